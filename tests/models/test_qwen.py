"""Qwen2.5-VL reads pairs of frames at positions of time, row and column as transformers does."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from random_models import save_qwen
from videopool.features import ClipJob, FeatureStore, load_clip
from videopool.features.loading import ClipRequest, ReadPlan
from videopool.models import ModelError, attach, load_adapter, load_backbone
from videopool.models.sizes import Pruning
from videopool.models.texts import Stamps
from videopool.pooling import Adaptive, Average, DualMean, NoPooling, Subsample
from videopool.reading.answers import (
    continuation_logprobs,
    greedy_answers,
    next_token_logits,
    prefill_clips,
    question_chunk,
)
from videopool.reading.merging import merge
from videopool.reading.module import VideoLM
from videopool.reading.prefix import by_question
from videopool.shapes.clips import write_mp4
from videopool.video import UniformSampler

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
SIDE, GRID = 48, 3  # pixels; 6 x 6 patches, 3 x 3 merged ones
# Seconds of four pairs of frames: at 2 tokens a second, 1.5 seconds apart are 3 positions, beyond the grid's 3 rows.
STAMPS = [Stamps([0.75 + 1.5 * pair for pair in range(4)], 6.0), Stamps([0.5 + pair for pair in range(4)], 4.0)]
PROMPT = "User: <|vision_start|>{}<|vision_end|>{} Assistant:"
ASKED = [["How many objects?", "You see what? The A or B", "Tell all."], ["How many objects?"]]
OPTIONS = ["the left one", "Frame"]
STEPS = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_qwen(tmp_path_factory.mktemp("qwen")))


@pytest.fixture(scope="module")
def backbone(folder):
    return load_backbone(folder, frame_size=SIDE)


@pytest.fixture(scope="module")
def views():
    """Two clips of four pairs of frames."""
    return torch.randn(2, 4, 6, SIDE, SIDE, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def features(backbone, views):
    return backbone.features(views.flatten(0, 1)).unflatten(0, (2, 4))


def patches(views):
    """The pixels of a clip as transformers' processor cuts them, in loops."""
    rows = []
    for view in views:
        frames = view.view(2, 3, SIDE, SIDE)
        for cell in range(GRID * GRID):
            for part in range(4):
                top = 16 * (cell // GRID) + 8 * (part // 2)
                left = 16 * (cell % GRID) + 8 * (part % 2)
                own = frames[:, :, top : top + 8, left : left + 8]
                rows.append(own.transpose(0, 1).flatten())
    return torch.stack(rows)


def given(backbone, clip, views, text):
    """What transformers' processor gives its model for a prompt about a clip."""
    places = "<|video_pad|>" * (4 * GRID * GRID)
    ids = torch.tensor([backbone.tokenizer.encode(PROMPT.format(places, text))])
    seconds = STAMPS[clip].times[1] - STAMPS[clip].times[0]
    return {
        "input_ids": ids, "pixel_values_videos": patches(views[clip]),
        "video_grid_thw": torch.tensor([[4, 2 * GRID, 2 * GRID]]), "second_per_grid_ts": torch.tensor([seconds]),
        "mm_token_type_ids": (ids == backbone.media_ids["video"]).int() * 2,
    }  # fmt: skip


def asked(backbone, texts):
    """Token ids before the clip, and of each text behind it."""
    split = [backbone.split_prompt(PROMPT.format(backbone.image_token, text)) for text in texts]
    return split[0][0], [after for _, after in split]


@torch.inference_mode()
def test_whole_prompts_and_answers_equal_transformers(backbone, views, features):
    """Forward and generate, whose answer goes on behind the highest position (rope_deltas)."""
    clips = VideoLM(backbone, NoPooling()).arranged(features, stamps=STAMPS)
    before = [asked(backbone, row)[0] for row in ASKED]
    after = [asked(backbone, row)[1] for row in ASKED]
    assert clips.tops[0] > clips.ends[0]  # the case in which the two differ
    fresh = partial(prefill_clips, backbone, before, clips)
    logits, answers = next_token_logits(backbone, fresh(), after), greedy_answers(backbone, fresh(), after, STEPS)
    for clip, row in enumerate(ASKED):
        for number, text in enumerate(row):
            inputs = given(backbone, clip, views, text)
            theirs = backbone.model(**inputs).logits[0, -1]
            torch.testing.assert_close(logits[clip][number], theirs, **CLOSE)
            written = backbone.model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)[0]
            own = written[inputs["input_ids"].shape[1] :].tolist()
            own = own[: own.index(backbone.tokenizer.eos_token_id)] if backbone.tokenizer.eos_token_id in own else own
            assert answers[clip][number] == own


def whole_positions(backbone, clip, views):
    """[3, L] of transformers for the whole grid, and which entries are the clip's."""
    inputs = given(backbone, clip, views, "x")
    kinds = {name: inputs[name] for name in ("video_grid_thw", "second_per_grid_ts", "mm_token_type_ids")}
    positions, _ = backbone.model.model.get_rope_index(inputs["input_ids"], **kinds)
    return positions[:, 0], inputs["input_ids"][0] == backbone.media_ids["video"]


def plain(backbone, before, tokens, ids, positions):
    """Logits of one whole sequence at positions [3, L]."""
    parts = [backbone.embed(torch.tensor(before)), tokens, backbone.embed(torch.tensor(ids))]
    states = torch.cat(parts)[None]
    hidden = backbone.language_model(
        inputs_embeds=states, position_ids=positions[:, None], attention_mask=torch.ones(states.shape[:2]),
        use_cache=False,
    )  # fmt: skip
    return backbone.logits(hidden.last_hidden_state[0])


@pytest.mark.parametrize("pruned", [False, True])
@torch.inference_mode()
def test_kept_tokens_have_the_positions_of_the_whole_grid(folder, backbone, views, features, pruned):
    """A loop that slices embeddings and position ids, of several questions on two clips; with FastV, too."""
    slow = load_backbone(folder, frame_size=SIDE, attention="eager") if pruned else backbone
    pooling, pruning = Subsample(5, "highest_norm"), Pruning(1, 0.4) if pruned else None
    lm = VideoLM(slow, pooling, original=True)
    clips = lm.arranged(features, stamps=STAMPS)
    grid, context = lm.pooling_input(features)
    places, tokens = pooling.token_places(grid, context), pooling(grid, context)
    before = [asked(slow, row)[0] for row in ASKED]
    after = [asked(slow, row)[1] for row in ASKED]
    fresh = partial(prefill_clips, slow, before, clips, pruning)
    room = question_chunk(slow, 10**12)
    logits = by_question(next_token_logits, slow, fresh(), after, room)
    options = [slow.tokenizer.encode(text, add_special_tokens=False) for text in OPTIONS]
    asks = [[(ids, options) for ids in row] for row in after]
    likely = by_question(continuation_logprobs, slow, fresh(), asks, room)
    for clip, row in enumerate(after):
        whole, is_clip = whole_positions(slow, clip, views)
        start, end = len(before[clip]), int(whole[0, is_clip.nonzero()[-1] + 1])
        own = torch.cat([whole[:, :start], whole[:, is_clip][:, places[clip]]], dim=1)
        for number, ids in enumerate(row):
            for rest in ([], *options):
                ends = end + torch.arange(len(ids) + len(rest))
                positions = torch.cat([own, ends.expand(3, -1)], dim=1)
                if pruned:
                    found = dropped(slow, before[clip], tokens[clip], [*ids, *rest], len(ids), positions, start)
                else:
                    found = plain(slow, before[clip], tokens[clip], [*ids, *rest], positions)
                if not rest:
                    torch.testing.assert_close(logits[clip][number], found[-1], **CLOSE)
                    continue
                each = found[-len(rest) - 1 : -1].log_softmax(-1)[range(len(rest)), rest]
                assert likely[clip][number][options.index(rest)] == pytest.approx(float(each.mean()), abs=1e-4)


def dropped(backbone, before, tokens, ids, question, positions, start):
    """As plain(), where after the first layer the two tokens stay to which the question's last one attends most."""
    parts = [backbone.embed(torch.tensor(before)), tokens, backbone.embed(torch.tensor(ids))]
    out = backbone.language_model(
        inputs_embeds=torch.cat(parts)[None], position_ids=positions[:, None],
        attention_mask=torch.ones(1, positions.shape[1]), output_attentions=True, output_hidden_states=True,
        use_cache=False,
    )  # fmt: skip
    weights = out.attentions[0][0].mean(0)[start + len(tokens) + question - 1, start : start + len(tokens)]
    stay = sorted(range(len(tokens)), key=lambda entry: -float(weights[entry]))[:2]
    kept = [*range(start), *(start + one for one in sorted(stay)), *range(start + len(tokens), positions.shape[1])]
    own, at = out.hidden_states[1][:, kept], positions[:, None, kept]
    turns = backbone.language_model.rotary_emb(own, position_ids=at)
    mask = torch.full((1, 1, len(kept), len(kept)), torch.finfo(own.dtype).min).triu(1)
    for block in backbone.language_model.layers[1:]:
        own = block(own, attention_mask=mask, position_embeddings=turns)
    return backbone.logits(backbone.language_model.norm(own))[0]


@torch.inference_mode()
def test_other_tokens_have_positions_of_their_own(backbone, features):
    """A pooled grid those of a grid of its size; half as many moments are twice as far apart. Others one by one."""
    start = VideoLM(backbone, Adaptive((2, 1, 3))).arranged(features, stamps=STAMPS)
    assert start.positions[0].tolist() == [[6 * t, 0, column] for t in range(2) for column in range(3)]
    assert (start.ends, start.tops) == ([3, 3], [7, 5])
    still = VideoLM(backbone, Average("time")).arranged(features, stamps=STAMPS)
    assert still.positions[0].tolist() == [[0, row, column] for row in range(3) for column in range(3)]
    for pooling in (DualMean(), Subsample(5)):
        line = VideoLM(backbone, pooling).arranged(features, stamps=STAMPS)
        count = line.at.shape[1]
        assert line.positions[1].tolist() == [[place] * 3 for place in range(count)]
        assert line.ends == [count] * 2


@torch.inference_mode()
def test_features_are_the_towers_own_row_by_row(backbone, views):
    """Windows are cut off at the edges of 3 x 3 cells."""
    theirs = backbone.model.model.visual(patches(views[0]), grid_thw=torch.tensor([[4, 6, 6]])).pooler_output
    ours = backbone.project(backbone.encode(views[0]))
    torch.testing.assert_close(ours.flatten(0, 2), theirs, **CLOSE)
    image = views[0, :1, :3]
    twice = backbone.encode(image.repeat(1, 2, 1, 1))
    torch.testing.assert_close(backbone.encode(image), twice)


def test_pairs_of_frames_are_views(backbone, tmp_path):
    """Five frames are three pairs: the last one is its own partner. Times are the pairs' means."""
    frames = np.random.default_rng(0).integers(0, 256, (20, SIDE, SIDE, 3), np.uint8)
    write_mp4(tmp_path / "a.mp4", frames, 10)
    plan = ReadPlan(UniformSampler(5), "pyav", backbone.image_processor, together=2)
    clip = load_clip(ClipRequest(ClipJob(tmp_path / "a.mp4", "a", ())), plan)
    first, second, third, fourth, fifth = clip.indices
    assert clip.views == [("together", first, second), ("together", third, fourth), ("together", fifth, fifth)]
    assert (clip.moments, tuple(clip.pixels.shape)) == (3, (3, 6, SIDE, SIDE))
    Image.fromarray(frames[0]).save(tmp_path / "a.png")
    request = ClipRequest(ClipJob(tmp_path / "a.png", "a", ()))
    once, often = (load_clip(request, replace(plan, sampler=UniformSampler(count))) for count in (1, 5))
    assert [one.still for one in (clip, once, often)] == [False, True, False]
    single = ReadPlan(UniformSampler(5), "pyav", backbone.image_processor)
    alone = load_clip(ClipRequest(ClipJob(tmp_path / "a.mp4", "a", ())), single).pixels
    assert torch.equal(clip.pixels[:, :3], alone[[0, 2, 4]])
    assert torch.equal(clip.pixels[:, 3:], alone[[1, 3, 4]])
    assert isinstance(FeatureStore(), FeatureStore)


def test_impossible_sizes_and_scores_are_told(folder):
    for size in (50, 0, 2.5, "x"):
        with pytest.raises(ModelError, match=r"model\.frame_size=.*give a multiple of 16"):
            load_backbone(folder, frame_size=size)
    with pytest.raises(ModelError, match=r"model\.frame_size=48: the tower takes views of one size, 96"):
        load_backbone("videopool:shapes/mini_llava", frame_size=48)
    with pytest.raises(ModelError, match=r"model\.tower\.register: the tower of .* has no place"):
        load_backbone(folder, tower={"register": "zeros"})


@pytest.mark.parametrize(("module", "changed"), [("visual.blocks.0.attn.qkv", True), ("visual.merger.mlp.0", False)])
def test_an_adapter_on_the_tower_makes_other_features(folder, tmp_path, module, changed):
    """The projector lies in the tower, and leaves the features as they are."""
    backbone = load_backbone(folder, frame_size=SIDE)
    before, weight = backbone.identity, backbone.model.get_submodule(f"model.{module}").weight
    sizes = {"lora_A": (2, weight.shape[1]), "lora_B": (weight.shape[0], 2)}
    names = {f"base_model.model.model.{module}.{part}.weight": torch.ones(size) for part, size in sizes.items()}
    save_file(names, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    attach(backbone, load_adapter(str(tmp_path)))
    assert (backbone.identity != before) == changed


@pytest.mark.parametrize("side", ["left", "right"])
@torch.inference_mode()
def test_training_reads_prompts_at_the_same_positions(backbone, views, features, side):
    """Two prompts of unequal length in a batch, padded on either side, against transformers' forward of each."""
    clips = VideoLM(backbone, NoPooling()).arranged(features, stamps=STAMPS)
    texts = ["How many objects?", "x"]
    rows = [backbone.tokenizer.encode(PROMPT.format(backbone.image_token, text)) for text in texts]
    longest = max(map(len, rows))
    pads = [[0] * (longest - len(row)) for row in rows]
    ids = torch.tensor([pad + row if side == "left" else row + pad for row, pad in zip(rows, pads, strict=True)])
    mask = torch.tensor([
        [0] * len(pad) + [1] * len(row) if side == "left" else [1] * len(row) + [0] * len(pad)
        for row, pad in zip(rows, pads, strict=True)
    ])  # fmt: skip
    places = list(zip(clips.positions, clips.ends, strict=True))
    merged = merge(backbone, ids, [[clips.row(clip)] for clip in range(2)], mask, places=places)
    hidden = backbone.read(merged.embeddings, merged.attention, merged.positions)
    for clip, text in enumerate(texts):
        theirs = backbone.model(**given(backbone, clip, views, text)).logits[0]
        torch.testing.assert_close(backbone.logits(hidden[clip][merged.mask[clip].bool()]), theirs, **CLOSE)


@torch.inference_mode()
def test_independent_rounds_go_on_behind_the_clip(backbone, features):
    """Each round has the positions that it has alone."""
    clips = VideoLM(backbone, NoPooling()).arranged(features, stamps=STAMPS)
    prompt = backbone.tokenizer.encode(PROMPT.format(backbone.image_token, ""))
    ids = torch.tensor([[*prompt, 5, 6, 7, 8]])
    rounds = torch.tensor([[0] * len(prompt) + [1, 1, 2, 2]])
    merged = merge(backbone, ids, [[clips.row(0)]], None, None, rounds, [(clips.positions[0], clips.ends[0])])
    behind = merged.positions[:, 0, -4:]
    assert torch.equal(behind[:, :2], behind[:, 2:])
    alone = merge(backbone, ids[:, :-2], [[clips.row(0)]], None, None, None, [(clips.positions[0], clips.ends[0])])
    assert torch.equal(merged.positions[:, :, :-2], alone.positions)
