"""Clips whose frames differ in size, through job=evaluate and other jobs."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from composed import composed
from random_models import QWEN, save_qwen
from videopool.errors import UserError
from videopool.evaluation.run import evaluate
from videopool.jobs.run import job_of
from videopool.results import load_study
from videopool.shapes.clips import write_mp4

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


def test_what_takes_one_size_is_told(words):
    for job in ("norms", "finetune"):
        with pytest.raises(UserError, match=rf"model\.frame_size=clip: job={job} takes grids of one size; give"):
            job_of(job).run(composed(f"job={job}", *(word for word in words if "job." not in word)))
    with pytest.raises(UserError, match=r"model\.frame_size: patches of views of one size are replaced"):
        evaluate(composed(*words, "model.tower.replace=mean", "model.tower.layer=1"))
    with pytest.raises(UserError, match=r"makes an image of frames, .* say model\.frame_size=<pixels>"):
        evaluate(composed(*words, "pooling=image_grid", "frames.num=6"))
