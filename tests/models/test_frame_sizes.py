"""Views with the proportions of their clip: sizes, features, prompts and answers are transformers' own."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from random_models import QWEN, save_qwen
from videopool.features import ClipJob, FeatureSource, FeatureStore, load_clip
from videopool.features.loading import ClipRequest, ReadPlan
from videopool.inference.reader import ClipReader
from videopool.models import ModelError, load_backbone
from videopool.pooling import Adaptive, NoPooling, Subsample
from videopool.reading.answers import continuation_logprobs, greedy_answers, next_token_logits, prefill_clips
from videopool.shapes.clips import write_mp4
from videopool.video import Proportional, UniformSampler, Unresizable, open_clip

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
UNIT, FRAMES, FPS = 16, 5, 10
PAD, START, END = "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"
PROMPT = f"User: {START}{{}}{END}{{}} Assistant:"
ASKED = ["How many objects?", "You see what? The A or B"]
OPTIONS = ["the left one", "Frame"]
# Height, width and frames of clips: twice landscape, portrait, as wide as its patches, tiny.
CLIPS = {"wide": (44, 92, 20), "long": (44, 92, 65), "tall": (92, 44, 20), "fitting": (32, 48, 20), "tiny": (8, 12, 20)}
# Pixels of a frame, or of all five of Qwen3-VL; and what becomes of the clips.
LIMITS = {"qwen2_5_vl": (256, 2048), "qwen3_vl": (1024, 8192)}
SIZES = {
    "qwen2_5_vl": {"wide": (16, 64), "long": (16, 64), "tall": (64, 16), "fitting": (32, 48), "tiny": (16, 32)},
    "qwen3_vl": {"wide": (16, 48), "long": (16, 48), "tall": (48, 16), "fitting": (32, 48), "tiny": (16, 32)},
}


@pytest.fixture(scope="module", params=QWEN)
def folder(request, tmp_path_factory):
    folder = save_qwen(tmp_path_factory.mktemp(request.param), request.param)
    least, most = LIMITS[request.param]
    video = {"size": {"shortest_edge": least, "longest_edge": most}}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video))
    return folder


@pytest.fixture(scope="module")
def backbone(folder):
    return load_backbone(str(folder), frame_size="clip")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root, draw = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    for name, (height, width, frames) in CLIPS.items():
        write_mp4(root / f"{name}.mp4", draw.integers(0, 256, (frames, height, width, 3), np.uint8), FPS)
    return root


def source_of(backbone):
    words = dict.fromkeys(("reader", "processor", "tower", "media", "layer", "dtype", "arithmetic", "software"), "")
    return FeatureSource(**words | {"media": "video"}, shape=(0, backbone.feature_states.size[1]))


@torch.inference_mode()
def read(backbone, root, names, pooling=None):
    """Clips as their reader leaves them, and their visual tokens, of equal grids in one batch."""
    plan = ReadPlan(UniformSampler(FRAMES), "pyav", backbone.image_processor, together=2)
    reader = ClipReader(backbone, pooling or NoPooling(), "projector", FeatureStore(), plan, source_of(backbone))
    loaded = [load_clip(ClipRequest(ClipJob(root / f"{name}.mp4", name, ())), plan) for name in names]
    assert not any(clip.error for clip in loaded)
    features = [own for own, _ in reader.read(loaded)]
    return loaded, torch.stack(features), reader.tokens_of(loaded, torch.stack(features))


def by_processor(backbone, root, clip):
    """A clip's patches and grid by transformers' image processor, told the size: its two frames of a moment in turn."""
    with open_clip(root / f"{clip.job.name}.mp4", "pyav", 3.0) as opened:
        frames = opened.frames(clip.indices)
    size = SIZES[backbone.shape.family][clip.job.name]
    pixels = size[0] * size[1]
    processor = Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, size={"shortest_edge": pixels, "longest_edge": pixels},
        image_mean=[0.5, 0.4, 0.3], image_std=[0.5, 0.5, 0.5],
    )  # fmt: skip
    resized = [Image.fromarray(frame).resize(size[::-1], Image.Resampling.BICUBIC) for frame in frames]
    moments = [(2 * place, min(2 * place + 1, FRAMES - 1)) for place in range(-(-FRAMES // 2))]
    rows = []
    for pair in moments:
        each = [processor(images=resized[place], return_tensors="pt")["pixel_values"] for place in pair]
        parts = [own.unflatten(-1, (3, 2, 64))[:, :, 0] for own in each]  # which repeats an image in time
        rows.append(torch.stack(parts, dim=2).flatten(1))
    return torch.cat(rows), torch.tensor([[len(moments), size[0] // 8, size[1] // 8]])


def given(backbone, root, clip, times, text):
    """What transformers' processor gives its model for a prompt about a clip."""
    patches, grid = by_processor(backbone, root, clip)
    cells = PAD * int(grid[0, 1:].prod() // 4)
    if backbone.shape.family == "qwen3_vl":
        moments = "".join(f"<{time:.1f} seconds>{START}{cells}{END}" for time in times)
        prompt = PROMPT.format(moments, text)
    else:
        prompt = PROMPT.format(cells * len(times), text)
    ids = torch.tensor([backbone.tokenizer.encode(prompt)])
    apart = {"second_per_grid_ts": torch.tensor([(times[-1] - times[0]) / (len(times) - 1)])}
    apart = {} if backbone.shape.family == "qwen3_vl" else apart
    kinds = (ids == backbone.media_ids["video"]).int() * 2
    parts = {"pixel_values_videos": patches, "video_grid_thw": grid, "mm_token_type_ids": kinds}
    return {"input_ids": ids, **parts, **apart}


def test_sizes_are_those_of_transformers_image_processor():
    draw = np.random.default_rng(0)
    for _ in range(2000):
        height, width, most = draw.integers(1, [900, 900, 100000]).tolist()
        unit, least = int(draw.choice([16, 28, 32])), int(draw.choice([1, 3136, 50000]))
        limits = {"min_pixels": least, "max_pixels": max(least, most, unit**2)}
        own = Proportional(None, unit, least, limits["max_pixels"])
        if max(height, width) > 200 * min(height, width):
            with pytest.raises(Unresizable, match="one side is over 200 times the other"):
                own.sides(height, width, 7)
        else:
            assert own.sides(height, width, 7) == smart_resize(height, width, factor=unit, **limits)


def test_sizes_of_whole_clips_are_those_of_transformers_video_processor():
    """Recorded from smart_resize of Qwen3-VL's, which needs torchvision."""
    own = Proportional(None, 16, 1024, 16384, whole=True)
    asked = [(64, 40, 4), (40, 64, 4), (10, 12, 4), (90, 160, 7), (200, 30, 3)]
    assert [own.sides(*each) for each in asked] == [(64, 32), (32, 64), (16, 16), (32, 64), (176, 16)]


@torch.inference_mode()
def test_logits_likelihoods_and_answers_equal_transformers(backbone, clips):
    """Two landscape clips in one batch of unequal length (of Qwen3-VL, whose times differ), the others alone."""
    for names in (["wide", "long"], ["tall"], ["fitting"], ["tiny"]):
        loaded, features, tokens = read(backbone, clips, names)
        assert [tuple(own.shape[1:3]) for own in features] == [
            tuple(side // 8 for side in SIZES[backbone.shape.family][name]) for name in names
        ]
        token, times = backbone.image_token, [tuple(map(float, own)) for own in _times(loaded)]
        texts = [[tokens.asked(row, PROMPT.format(token, ask), token) for ask in ASKED] for row in range(len(names))]
        before = [backbone.split_prompt(own[0])[0] for own in texts]
        after = [[backbone.split_prompt(text)[1] for text in own] for own in texts]
        fresh = partial(prefill_clips, backbone, before, tokens)
        logits, answers = next_token_logits(backbone, fresh(), after), greedy_answers(backbone, fresh(), after, 3)
        asks = [[backbone.continued(text, OPTIONS) for text in own] for own in texts]
        likely = continuation_logprobs(backbone, fresh(), asks)
        for row, clip in enumerate(loaded):
            for number, ask in enumerate(ASKED):
                inputs = given(backbone, clips, clip, times[row], ask)
                theirs = backbone.model(**inputs).logits[0, -1]
                torch.testing.assert_close(logits[row][number], theirs, **CLOSE)
                written = backbone.model.generate(**inputs, max_new_tokens=3, do_sample=False)[0].tolist()
                ends = backbone.tokenizer.eos_token_id
                own = written[inputs["input_ids"].shape[1] :]
                assert answers[row][number] == (own[: own.index(ends)] if ends in own else own)
                for place, option in enumerate(OPTIONS):
                    inputs = given(backbone, clips, clip, times[row], f"{ask}")
                    rest = backbone.tokenizer.encode(f" {option}", add_special_tokens=False)
                    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([rest])], dim=1)
                    inputs["mm_token_type_ids"] = (inputs["input_ids"] == backbone.media_ids["video"]).int() * 2
                    found = backbone.model(**inputs).logits[0, -len(rest) - 1 : -1].log_softmax(-1)
                    mean = float(found[range(len(rest)), rest].mean())
                    assert likely[row][number][place] == pytest.approx(mean, abs=1e-4)


def _times(loaded):
    for clip in loaded:
        seconds = [index / FPS for index in clip.indices]
        yield [np.mean(seconds[first : first + 2]) for first in range(0, FRAMES, 2)]


@torch.inference_mode()
def test_poolings_take_the_grid_of_each_clip(backbone, clips):
    """Against a loop over a clip's cells; a budget is cut to what a clip has, a share is of its own tokens."""
    _, features, tokens = read(backbone, clips, ["tall"], Adaptive((None, 2, 2)))
    grid = backbone.project(backbone.grid(features[0]))
    height = grid.shape[1]
    assert (height, grid.shape[2]) == (SIZES[backbone.shape.family]["tall"][0] // UNIT, 1)
    rows = (slice(0, -(-height // 2)), slice(height // 2, height))
    wanted = [grid[moment, own, 0].mean(0) for moment in range(3) for own in rows]
    torch.testing.assert_close(backbone.main(tokens.states[0])[tokens.at[0]], torch.stack(wanted), **CLOSE)
    counts = {name: read(backbone, clips, [name], Subsample(7))[2].at.shape[1] for name in ("fitting", "tiny")}
    assert counts == {"fitting": 7, "tiny": 6}


def test_limits_come_from_the_models_video_processor(folder, tmp_path):
    """Of the first of its files that states them; all frames of a clip count together for Qwen3-VL."""
    family = folder.name.rstrip("0123456789")
    own = load_backbone(str(folder), frame_size="clip").image_processor
    assert (own.unit, own.least, own.most, own.whole) == (UNIT, *LIMITS[family], family == "qwen3_vl")
    own = load_backbone(str(folder), frame_size=[300, 900]).image_processor
    assert (own.unit, own.least, own.most, own.whole) == (UNIT, 300, 900, False)
    shutil.copytree(folder, tmp_path / "m")
    video, image = (tmp_path / "m" / name for name in ("video_preprocessor_config.json", "preprocessor_config.json"))
    video.unlink()
    image.write_text(json.dumps({**json.loads(image.read_text()), "min_pixels": 512, "max_pixels": 4096}))
    own = load_backbone(str(tmp_path / "m"), frame_size="clip").image_processor
    assert (own.least, own.most) == (512, 4096)
    nested = {"video_processor": {"size": {"shortest_edge": 700, "longest_edge": 800}}}
    (tmp_path / "m" / "processor_config.json").write_text(json.dumps(nested))
    assert load_backbone(str(tmp_path / "m"), frame_size="clip").image_processor.least == 700
    for wrong in ({"cap_pixels_per_frame": True, **nested["video_processor"]}, {"size": {"height": 5, "width": 5}}):
        (tmp_path / "m" / "processor_config.json").write_text(json.dumps({"video_processor": wrong}))
        with pytest.raises(ModelError, match=r"model\.frame_size=clip: the video processor of .* say .*\[least,most\]"):
            load_backbone(str(tmp_path / "m"), frame_size="clip")


def test_impossible_sizes_are_told(folder):
    for size in ("x", [5], [1, 255], [300, 256], [1, 2, 3], [0, 300], True, 50, [1.5, 300]):
        with pytest.raises(ModelError, match=r"model\.frame_size=.*give a multiple of 16.*; clip; or \[least,most\]"):
            load_backbone(str(folder), frame_size=size)
    with pytest.raises(ModelError, match=r"the tower takes views of one size, 96"):
        load_backbone("videopool:shapes/mini_llava", frame_size="clip")
