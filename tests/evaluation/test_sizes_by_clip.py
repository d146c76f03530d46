"""Clips whose frames differ in size, through job=evaluate and other jobs."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from composed import composed
from random_models import QWEN, save_qwen
from videopool.errors import UserError
from videopool.evaluation.run import evaluate
from videopool.jobs.finetune import run as finetune
from videopool.jobs.merge import run as merge
from videopool.jobs.norms import run as measure
from videopool.measuring.table import tell_norms
from videopool.models import attach, load_adapter, load_backbone
from videopool.norms import load_norms
from videopool.points.setting import Setting
from videopool.results import load_study
from videopool.shapes.clips import write_mp4
from videopool.video import UniformSampler, open_clip

pytestmark = pytest.mark.usefixtures("read_once")
SIZES = {"wide": (32, 64), "wider": (32, 64), "tall": (64, 32), "tiny": (16, 16)}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips with two questions each; of folders, one with frames of two sizes, and one with frames that are a line."""
    root, draw = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    for name, (height, width) in SIZES.items():
        write_mp4(root / f"{name}.mp4", draw.integers(0, 256, (8, height, width, 3), np.uint8), 4)
    for name, sizes in (("changing", [(30, 40), (40, 30)]), ("line", [(1, 300), (1, 300)])):
        (root / name).mkdir()
        for number, (height, width) in enumerate(sizes):
            Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8)).save(root / name / f"{number}.png")
    rows = [f"{name}{'.mp4' if name in SIZES else ''},{ask} ?,a,a,b"
            for name in (*SIZES, "changing", "line") for ask in ("how many objects", "which one")]  # fmt: skip
    (root / "asked.csv").write_text("\n".join(["video_name,question,answer,a0,a1", *rows]) + "\n")
    return root


@pytest.fixture(scope="module", params=QWEN)
def folder(request, tmp_path_factory):
    return save_qwen(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def words(tmp_path, clips, folder):
    return [
        f"results_dir={tmp_path}/results", f"data_dir={tmp_path}/data", "logger=none", "job.workers=0", "prompt=plain",
        "benchmark=clips", f"benchmark.root={clips}", f"benchmark.questions={clips}/asked.csv", "model=local",
        f"model.source={folder}", "model.frame_size=clip", "frames.num=4", "job.max_failed_fraction=0.5",
    ]  # fmt: skip


def records_of(done):
    return [json.loads(line) for line in (Path(done.folder) / "records.jsonl").read_text().splitlines()]


def numbers(records):
    return {record["id"]: (record["status"], record.get("option_logprobs"), record["prediction"]) for record in records}


def test_clips_keep_their_proportions_and_are_kept(words, tmp_path, folder):
    """From a store that is empty, then full; tokens and grids are those of each clip."""
    store = ["features=disk", f"features.root={tmp_path}/features"]
    cold = evaluate(composed(*words, *store, "pooling=none", "study=cold"))
    warm = evaluate(composed(*words, *store, "pooling=none", "study=warm"))
    alone = evaluate(composed(*words, *store[:1], f"features.root={tmp_path}/other", "pooling=none", "study=alone",
                              "job.max_clips=1"))  # fmt: skip
    assert numbers(records_of(cold)) == numbers(records_of(warm)) == numbers(records_of(alone))
    metrics = [json.loads((Path(one.folder) / "metrics.json").read_text()) for one in (cold, warm)]
    assert [one["frames_decoded"] for one in metrics] == [16, 0]
    records = {record["clip"]: record for record in records_of(cold)}
    cells = {f"{name}.mp4": [2, height // 16, width // 16] for name, (height, width) in SIZES.items()}
    assert {name: records[name]["grid"] for name in cells} == cells
    assert "frames differ in size" in records["changing"]["reason"]
    assert "one side is over 200 times the other" in records["line"]["reason"]
    (row,) = load_study(Path(cold.folder).parent).itertuples()
    counts = [records[name]["visual_tokens"] for name in cells]
    assert (row.tokens_least, row.tokens_most, row.visual_tokens) == (min(counts), max(counts), np.mean(counts))
    if "qwen3" not in str(folder):
        assert counts == [2 * height * width for _, height, width in cells.values()]


@pytest.mark.parametrize(
    "more",
    [
        ["pooling=visionzip", "pooling.tokens=4", "positions=original"],  # tiny has two tokens
        ["pooling=subsample", "pooling.tokens=3", "benchmark.scoring=generate", "benchmark.max_new_tokens=2"],
        ["pooling=adaptive_Tx3x3", "benchmark.scoring=cloze"],
        ["pooling=strided", "pooling.mode=bilinear", "pruning=fastv", "pruning.layer=1", "pruning.share=0.5"],
    ],
)
def test_poolings_and_ways_of_asking_take_clips_of_all_sizes(words, more):
    records = [one for one in records_of(evaluate(composed(*words, *more))) if one["clip"].endswith(".mp4")]
    lacking = [one for one in records if one["status"] != "ok"]
    assert [one["clip"] for one in records].count("tiny.mp4") == 2
    if more[0] == "pooling=visionzip":
        assert [(one["clip"], one["status"]) for one in lacking] == [("tiny.mp4", "not_pooled")] * 2
        assert "pooling.tokens=4 is impossible" in lacking[0]["reason"]
    else:
        assert not lacking


MEASURED = [
    "job=norms", "job.stages=[encoder,projector,pooled,llm.1]", "job.tower_scores=[received.1,values.2]",
    "job.overlap=true", "model.attention=eager", "job.attention_layers=[2]", "pooling=strided", "pooling.stride=1",
]  # fmt: skip


def grids_of(folder, clips):
    """Each readable clip's grid [T, H, W, D] as the tower gives it, one clip at a time, and its pixels [T, 6, h, w]."""
    backbone = load_backbone(str(folder), frame_size="clip")
    for name in SIZES:
        with open_clip(clips / f"{name}.mp4", "pyav", 3.0) as clip:
            frames = clip.frames(UniformSampler(4).indices(clip.info, None, None, name))
        pixels = torch.from_numpy(backbone.image_processor(images=list(frames), return_tensors="np")["pixel_values"])
        views = pixels.unflatten(0, (2, 2)).flatten(1, 2)
        yield name, backbone, backbone.encode(views), views


@torch.inference_mode()
def test_norms_are_those_of_clips_one_at_a_time(words, tmp_path, clips, folder, capsys):
    """Against a loop over the clips, and against measurements of each clip alone."""
    words = [word for word in words if word != "job.max_failed_fraction=0.5"]

    def measured(*names):
        sheet = tmp_path / f"{len(names)}{names[0]}.csv"
        lines = [f"{name}.mp4,how many ?,a,a,b" for name in names]
        sheet.write_text("\n".join(["video_name,question,answer,a0,a1", *lines]) + "\n")
        done = measure(composed(*words, *MEASURED, f"benchmark.questions={sheet}"))
        tell_norms(Path(done.folder))
        return load_norms(done.folder)

    every = measured(*SIZES)
    told = "no map of encoder, projector, pooled, llm.1: grids of clips differ in their size"
    assert capsys.readouterr().out.count(told) == 1
    assert not any("map.norm" in arrays for arrays in every.arrays.values())
    norms = {"encoder": [], "projector": []}
    for _, backbone, grid, _ in grids_of(folder, clips):
        for stage, own in (("encoder", grid), ("projector", backbone.project(grid))):
            norms[stage].append(own.norm(dim=-1).double().numpy())
    for stage, own in norms.items():
        flat, found = np.concatenate([each.ravel() for each in own]), every.numbers["stages"][stage]
        assert (found["tokens"], found["clips"]) == (flat.size, 4)
        assert found["mean"] == pytest.approx(flat.mean(), rel=1e-5)
        ratios = [each.max() / np.median(each) for each in own]
        assert found["max_over_median_in_clip"] == pytest.approx(np.mean(ratios), rel=1e-5)
        inner = sum((each[:, 1:-1, 1:-1]).size for each in own)
        assert found["border_area"] == pytest.approx(1 - inner / flat.size)
        profile = sum(each.sum((1, 2)) for each in own) / sum(each[0].size for each in own)
        np.testing.assert_allclose(every.arrays[stage]["frame.norm"], profile, rtol=1e-5)
    alone = [measured(name) for name in SIZES]
    for stage, found in every.numbers["stages"].items():
        single = [one.numbers["stages"][stage] for one in alone]
        counts = [own["tokens"] for own in single]
        assert found["tokens"] == sum(counts)
        assert found["mean"] == pytest.approx(np.average([own["mean"] for own in single], weights=counts), rel=1e-6)
        assert found["gini_in_clip"] == pytest.approx(np.mean([own["gini_in_clip"] for own in single]))
        assert all("map.norm" in one.arrays[stage] for one in alone)
    for kind, name in (("attention", "2"), ("scores", "received.1"), ("scores", "values.2")):
        single = [one.numbers[kind][name]["visual_share"] for one in alone]
        assert every.numbers[kind][name]["visual_share"] == pytest.approx(np.mean(single), rel=1e-5)
    assert every.numbers["overlap"][""]["kept"] == 1


TRAINED = ("wide", "tall", "tiny")
ROUND = ("how many objects ?", "two or three")


def transformers_loss(model, backbone, clips, name):
    """Sum of transformers' own losses of one conversation as job=finetune writes it, and the number of its labels."""
    with open_clip(clips / f"{name}.mp4", "pyav", 3.0) as clip:
        indices = UniformSampler(4).indices(clip.info, None, None, name)
        frames = clip.frames(indices)
    processor = Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, do_resize=False, image_mean=[0.5, 0.4, 0.3], image_std=[0.5, 0.5, 0.5]
    )
    single = [processor(images=one, return_tensors="pt")["pixel_values"].unflatten(-1, (3, 2, 64)) for one in frames]
    rows = [torch.stack([single[at][:, :, 0], single[at + 1][:, :, 0]], dim=2).flatten(1) for at in (0, 2)]
    height, width = (side // 8 for side in SIZES[name])
    seconds = [(indices[at] + indices[at + 1]) / 2 / 4 for at in (0, 2)]
    cells = "<|video_pad|>" * (height * width // 4)
    shown = cells * 2
    if backbone.shape.family == "qwen3_vl":
        shown = "".join(f"<{one:.1f} seconds><|vision_start|>{cells}<|vision_end|>" for one in seconds)
    encode, ends = partial(backbone.tokenizer.encode, add_special_tokens=False), "</s>"
    before = [*encode("USER: "), *encode(f"{shown}\n{ROUND[0]} "), *encode("ASSISTANT:")]
    answer = encode(f"{ROUND[1]}{ends}")
    ids = torch.tensor([[*before, *answer]])
    output = model(
        input_ids=ids, labels=torch.tensor([[-100] * len(before) + answer]), pixel_values_videos=torch.cat(rows),
        video_grid_thw=torch.tensor([[2, height, width]]), second_per_grid_ts=torch.tensor([seconds[1] - seconds[0]]),
        mm_token_type_ids=(ids == backbone.media_ids["video"]).int() * 2,
    )  # fmt: skip
    return float(output.loss) * len(answer), len(answer), output.logits


def one_batch(clips, folder):
    """Words of a training whose steps have a conversation about each clip."""
    told = [
        {"id": name, "video": f"{name}.mp4", "conversations": [
            {"from": "human", "value": f"<video>\n{ROUND[0]}"}, {"from": "gpt", "value": ROUND[1]}]}
        for name in TRAINED
    ]  # fmt: skip
    (folder / "told.json").write_text(json.dumps(told))
    return [
        "job=finetune", "training_data=llava", f"training_data.sources.llava.path={folder}/told.json",
        f"training_data.sources.llava.root={clips}", "training.global_batch=3", "training.micro_batch=3",
        "training.validation.share=0", "training.lora.rank=4", "job.evaluate=false",
    ]  # fmt: skip


def test_training_reads_clips_of_several_sizes_together(words, tmp_path, clips, folder):
    """A step's loss is the mean of transformers' own over its labels: at first, and with the exported weights."""
    words = [word for word in words if not word.startswith("benchmark")]
    training = [
        *one_batch(clips, tmp_path), "training.steps=2", "training.rate=0.02", "job.export_every=1", "pooling=none",
    ]  # fmt: skip
    run = Path(finetune(composed(*words, *training)).folder)
    first, second = [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]

    def loss_of(model):
        sums, counts, _ = zip(*(transformers_loss(model, backbone, clips, name) for name in TRAINED), strict=True)
        return sum(sums) / sum(counts)

    backbone = load_backbone(str(folder), frame_size="clip")
    with torch.inference_mode():
        assert first == pytest.approx(loss_of(backbone.model), abs=1e-4)
        attach(backbone, load_adapter(str(run / "exports" / "step-000001")))
        assert second == pytest.approx(loss_of(backbone.model), abs=1e-4)
        assert abs(second - first) > 0.01
    words = [word for word in words if not word.startswith("job.")]
    merged = merge(composed(*words, "job=merge", f"job.to={tmp_path}/merged", f"lora.checkpoint={run}/export"))
    last = load_backbone(str(folder), frame_size="clip")
    attach(last, load_adapter(str(run / "export")))
    own = load_backbone(merged.folder, frame_size="clip")
    peft = PeftModel.from_pretrained(load_backbone(str(folder), frame_size="clip").model, str(run / "export" / "peft"))
    with torch.inference_mode():
        ours = transformers_loss(last.model, last, clips, "tall")[2]
        for other in (own.model, peft):
            torch.testing.assert_close(transformers_loss(other, last, clips, "tall")[2], ours, rtol=1e-4, atol=1e-4)
    recorded = [word for word in words if "frame_size" not in word and "model.source" not in word]
    taken = Setting(composed(*recorded, f"model.source={merged.folder}", "model.pooling=recorded"))
    assert (taken.shape.by_clip, taken.frames) == (True, 4)


def test_clips_that_cannot_be_learned_from_are_left_out(words, tmp_path, clips):
    """Too small for the pooling: a line each, and no step fails of it."""
    words = [word for word in words if not word.startswith("benchmark")]
    run = Path(finetune(composed(
        *words, *one_batch(clips, tmp_path), "training.steps=1", "pooling=strided",
    )).folder)  # fmt: skip
    (left,) = [json.loads(line) for line in (run / "left_out.jsonl").read_text().splitlines()]
    assert "told.json, entry 2: pooling.stride=2 is larger than the patch grid, 1 x 1" in left["why"]


def test_what_takes_one_size_is_told(words):
    with pytest.raises(UserError, match=r"model\.frame_size: patches of views of one size are replaced"):
        evaluate(composed(*words, "model.tower.replace=mean", "model.tower.layer=1"))
    with pytest.raises(UserError, match=r"makes an image of frames, .* say model\.frame_size=<pixels>"):
        evaluate(composed(*words, "pooling=image_grid", "frames.num=6"))
