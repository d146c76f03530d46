"""Leaves of a configuration that test_identity.py lists as changing no number: points that differ in them alone agree.

Each is changed, the point is evaluated (or measured) anew in a folder of its own, and every number is compared.
"""

import json
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from chat_server import ChatServer
from conftest import numbered_frames
from videopool.jobs import evaluate as evaluate_job
from videopool.jobs import norms as norms_job
from videopool.paths import shipped
from videopool.runtime.outcome import COMPLETE
from videopool.shapes.clips import write_mp4

OF_THE_RUN = {"attempt"}  # keys of a record that say how it was made


@pytest.fixture
def clips(tmp_path):
    """A folder of clips and a sheet with questions on them, one of them open."""
    folder = tmp_path / "clips"
    folder.mkdir()
    rows = []
    for number in range(4):
        frames = np.roll(numbered_frames(8, 96, 96), number, axis=0)
        write_mp4(folder / f"{number}.mp4", frames)
        rows.append({"video_name": str(number), "question": "what colour is it ?", "answer": "white",
                     "options": ["black", "white", "red"], "question_type": "colour"})  # fmt: skip
    (tmp_path / "sheet.json").write_text(json.dumps(rows))
    return tmp_path


def words(clips, results, *more):
    root, sheet = clips / "clips", clips / "sheet.json"
    return ["benchmark=qa_sheet", f"benchmark.root={root}", f"benchmark.annotations={sheet}", "benchmark.answers=text",
            "benchmark.columns.options=[options]", "frames.num=4", "pooling=adaptive", "pooling.shape=[2,4,4]",
            "logger=none", "job.workers=0", f"results_dir={results}", f"data_dir={clips}/data", *more]  # fmt: skip


def moved(clips):
    """The same clips, sheet and model under other paths."""
    there = clips / "there"
    shutil.copytree(clips / "clips", there / "clips")
    shutil.copy(clips / "sheet.json", there / "other.json")
    shutil.copytree(Path(shipped("conf")).parent / "src/videopool/shapes/mini_llava", there / "model")
    return there


# Together, so that each run changes many: it is the numbers that matter, not which of them moves one.
HARMLESS = [
    ["study=other", "data_dir=elsewhere", "baseline=average", "features=none",
     "figures=[{_target_: types.SimpleNamespace, name: a, applies: 1, draw: 1}]",
     "logger=wandb", "logger.predictions=1", "logger.project=p", "logger.entity=e", "job.workers=2",
     "job.max_failed_fraction=0.5", "job.columns=[pooling]"],
    ["features.limit_bytes=1", "job.max_visual_tokens=1", "model.name=other", "model.shape=null",
     "trainer.accelerator=cpu", "trainer.devices=1", "trainer.strategy=auto", "benchmark.bounds_in_name=false",
     "job.max_cache_bytes=1", "features.frames_at_once=5"],
    ["features=disk", "features.dtype=null", "features.root=store", "features.limit_bytes=100000", "job.max_clips=1",
     "benchmark.root=there/clips", "benchmark.annotations=there/other.json", "model.source=there/model"],
]  # fmt: skip


def records_of(config):
    """All that an evaluation says of its samples, and its scores."""
    outcome = evaluate_job.run(config)
    assert (outcome.status, outcome.fresh) == (COMPLETE, True), outcome.message
    folder = Path(outcome.folder)
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    metrics = json.loads((folder / "metrics.json").read_text())
    numbers = {key: metrics[key] for key in ("score", "n", "n_failed", "n_unparsed", "tasks", "groups")}
    return [{key: record[key] for key in record.keys() - OF_THE_RUN} for record in lines], numbers


@pytest.fixture
def plain(hydra_conf, clips, monkeypatch):
    monkeypatch.chdir(clips)
    return records_of(hydra_conf(*words(clips, clips / "plain")))


def test_evaluate(hydra_conf, clips, plain, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    moved(clips)
    assert {record["status"] for record in plain[0]} == {"ok"}
    for number, changes in enumerate(HARMLESS):
        records, numbers = records_of(hydra_conf(*words(clips, clips / str(number), *changes)))
        assert sorted(records, key=lambda record: record["id"]) == sorted(plain[0], key=lambda record: record["id"])
        assert numbers == plain[1]


def test_a_leaf_that_counts_does_change_records(hydra_conf, clips, plain):
    """So that the comparison above could fail."""
    for number, change in enumerate(("frames.num=3", "pooling.shape=[2,3,3]", "model.dtype=bfloat16")):
        assert records_of(hydra_conf(*words(clips, clips / f"c{number}", change)))[0] != plain[0], change


def test_judge_settings(hydra_conf, clips):
    """Effort, keys and files of a judge."""
    reply = json.dumps({"pred": "yes", "score": 4})
    server = ChatServer(lambda number, request: reply)
    with closing(server):
        judge = ["judge=openai", f"judge.base_url={server.base_url}", "judge.model=m", "benchmark.columns.options=[]"]
        first = records_of(hydra_conf(*words(clips, clips / "plain", *judge, "judge.key_env=null")))
        changes = ["judge.concurrency=1", "judge.retries=1", "judge.timeout=9", "judge.backoff=0.1",
                   f"judge.store={clips}/replies.jsonl", "judge.key_env=null"]  # fmt: skip
        assert records_of(hydra_conf(*words(clips, clips / "other", *judge, *changes))) == first


NORMS = (
    "job.save_every=1", "job.workers=1", "features.limit_bytes=1", "model.name=other", "benchmark.headline=null",
    "benchmark.scoring=generate", "benchmark.max_new_tokens=3",
    "job.max_visual_tokens=1", "job.max_clips=1", "compat.scoring=pllava",
)  # fmt: skip


def test_norms(hydra_conf, clips):
    def measured(name, *changes):
        outcome = norms_job.run(hydra_conf(*words(clips, clips / name, "job=norms", *changes)))
        assert outcome.status == COMPLETE, outcome.message
        folder = Path(outcome.folder)
        norms = json.loads((folder / "norms.json").read_text())
        return {key: norms[key] for key in norms if "seconds" not in key}, load_file(folder / "norms.safetensors")

    (first, arrays), (others, changed) = measured("plain"), measured("changed", *NORMS)
    assert changed.keys() == arrays.keys()
    for key in arrays:
        np.testing.assert_array_equal(changed[key], arrays[key], err_msg=key)
    different = {key for key in first if others.get(key) != first[key]}
    assert not different & {"stages", "rules", "clips"}
