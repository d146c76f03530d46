"""Broken clips, kills and interruptions, by doing them."""

import json
import os
import random
import shutil
import signal
import time

import numpy as np
import pytest

from conftest import numbered_frames
from videopool.shapes.clips import WorldSettings, build, write_mp4


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def own_clips(tmp_path):
    """Twelve good clips, and broken ones among them; two questions about each."""
    folder = tmp_path / "clips"
    folder.mkdir()
    good = [f"good{n}.mp4" for n in range(12)]
    for name in good:
        write_mp4(folder / name, numbered_frames(10, 96, 96))
    (folder / "empty.mp4").touch()
    (folder / "garbage.mp4").write_bytes(np.random.default_rng(0).bytes(4000))
    content = (folder / good[0]).read_bytes()
    (folder / "truncated.mp4").write_bytes(content[: len(content) // 2])
    names = [*good, "empty.mp4", "garbage.mp4", "truncated.mp4", "missing.mp4"]
    lines = [f"{name},question {n}?,yes,yes,no" for name in names for n in range(2)]
    (tmp_path / "q.csv").write_text("video_name,question,answer,a0,a1\n" + "\n".join(lines) + "\n")
    return ["benchmark=clips", f"benchmark.root={folder}", f"benchmark.questions={tmp_path / 'q.csv'}", "logger=none"]


def test_broken_clips_are_counted_and_never_scored(videopool, tmp_path, own_clips):
    videopool(*own_clips, "study=ok", "frames.num=2", "job.max_failed_fraction=0.3", small=False)
    (folder,) = [p.parent for p in (tmp_path / "results" / "ok").glob("*/metrics.json")]
    metrics, records = json.loads((folder / "metrics.json").read_text()), read(folder / "records.jsonl")
    assert (metrics["n"], metrics["n_failed"]) == (24, 8)
    failed = [r for r in records if r["status"] == "unreadable_video"]
    assert {r["clip"] for r in failed} == {"empty.mp4", "garbage.mp4", "truncated.mp4", "missing.mp4"}
    assert all(r["score"] is None and r["prediction"] is None and r["reason"] for r in failed)
    assert metrics["score"] == sum(r["score"] for r in records if r["status"] == "ok") / 24


SPOILED = """
import torch
from videopool.pooling.intervention import Intervention

class Spoiled(Intervention):  # a NaN in every clip in which the first frame is brighter than the second
    def pool(self, grid, context=None):
        if grid.shape[-1] <= 3:  # it is only looked at
            return grid
        first, second = grid[:, 0].sum((1, 2, 3)), grid[:, 1].sum((1, 2, 3))
        return torch.where((first > second)[:, None, None, None, None], torch.nan, grid)
"""


def test_tokens_that_are_not_finite_are_counted_and_never_scored(videopool, tmp_path):
    (tmp_path / "spoiled.py").write_text(SPOILED)
    words = ["frames.num=2", "study=spoiled", "benchmark.limit=6"]
    videopool("pooling._target_=spoiled.Spoiled", *words, "job.max_failed_fraction=0.9")
    (folder,) = [path.parent for path in (tmp_path / "results" / "spoiled").glob("*/metrics.json")]
    metrics, records = json.loads((folder / "metrics.json").read_text()), read(folder / "records.jsonl")
    failed = [record for record in records if record["status"] == "not_finite"]
    assert 0 < metrics["n_failed"] <= len(failed) < len(records)  # it counts the headline tasks
    assert not {record["clip"] for record in failed} & {r["clip"] for r in records if r["status"] == "ok"}
    assert all(record["score"] is None and "NaN" in record["reason"] for record in failed)
    videopool("pooling=none", *words)  # the others are answered as without it
    (plain,) = (tmp_path / "results" / "spoiled").glob("*none*/records.jsonl")
    answers = {record["id"]: record["prediction"] for record in read(plain)}
    assert all(r["prediction"] == answers[r["id"]] for r in records if r["status"] == "ok")


def test_too_many_broken_clips_fail_the_point_and_mending_them_resumes(videopool, tmp_path, own_clips):
    words = [*own_clips, "study=bad", "frames.num=2"]
    done = videopool(*words, small=False, check=1)
    told = done.stderr
    assert "8 of 32 samples could not be evaluated" in told
    for name in ("empty.mp4", "garbage.mp4", "truncated.mp4", "missing.mp4"):
        assert name in told
    (folder,) = [p.parent for p in (tmp_path / "results" / "bad").glob("*/run.json")]
    assert not (folder / "metrics.json").exists()
    assert json.loads((folder / "failure.json").read_text())["reason"]
    report = videopool("job=report", "study=bad", small=False, check=1)
    assert "failed" in report.stdout
    for name in ("empty.mp4", "garbage.mp4", "truncated.mp4", "missing.mp4"):
        shutil.copy(tmp_path / "clips" / "good1.mp4", tmp_path / "clips" / name)
    videopool(*words, small=False)
    assert json.loads((folder / "metrics.json").read_text())["n"] == 32
    assert not (folder / "failure.json").exists()
    assert len({r["id"] for r in read(folder / "records.jsonl")}) == 32


def test_nothing_usable_is_an_error(videopool, tmp_path, own_clips):
    shutil.rmtree(tmp_path / "clips")
    (tmp_path / "clips").mkdir()
    done = videopool(*own_clips, "study=none", "frames.num=2", "job.max_failed_fraction=1", small=False, check=1)
    assert "none of its 16 clips is there" in done.stderr


def test_descriptions_need_no_answers(videopool, tmp_path, own_clips):
    words = [*own_clips[:2], "benchmark.questions=null", "logger=none", "job.max_failed_fraction=0.5"]
    videopool(*words, "study=tell", "frames.num=3", small=False)
    (folder,) = [p.parent for p in (tmp_path / "results" / "tell").glob("*/metrics.json")]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["score"], metrics["n"], metrics["n_unscored"], metrics["n_failed"]) == (None, 0, 12, 3)
    good = [r for r in read(folder / "records.jsonl") if r["status"] == "ok"]
    assert all(r["prediction"] and max(r["frame_indices"]) < 10 for r in good)


def test_a_changed_clip_is_seen(videopool, tmp_path):
    """The clip's name stays, its content changes: a new point sees the new content."""
    folder = tmp_path / "clips"
    folder.mkdir()
    write_mp4(folder / "a.mp4", numbered_frames(10, 96, 96))
    words = ["benchmark=clips", f"benchmark.root={folder}", "logger=none", "study=c"]
    videopool(*words, "frames.num=2", small=False)
    write_mp4(folder / "a.mp4", numbered_frames(40, 96, 96))
    videopool(*words, "frames.num=4", small=False)
    found = sorted(read(p)[0]["frame_indices"] for p in (tmp_path / "results" / "c").glob("*/records.jsonl"))
    assert found == [[2, 6], [4, 14, 24, 33]]


SWEEP = (
    "-m", "pooling=none,average", "frames.num=1", "job.max_clips=4", "job.workers=1", "benchmark.limit=null",
    "+benchmark.tasks=[existence,object_count,event_count,event_order]",
)  # fmt: skip


@pytest.fixture
def start(tmp_path, data_dir, forked):
    small = [f"results_dir={tmp_path}/results", f"data_dir={data_dir}"]
    small += ["benchmark.clips=60", "benchmark.per_task=8", "logger=none"]
    return lambda *words: forked.start([*small, *words], tmp_path, new_session=True)


def wait_for_records(folder, count, process):
    """Until a study has at least so many records."""
    for _ in range(3000):
        lines = sum(len(p.read_bytes().splitlines()) for p in folder.glob("*/records.jsonl"))
        if lines >= count or process.poll() is not None:
            return lines
        time.sleep(0.02)
    raise AssertionError("no records came")


def scores(folder):
    return {
        p.parent.name: {r["id"]: (r["prediction"], r["score"]) for r in read(p)} for p in folder.glob("*/records.jsonl")
    }


def test_killed_sweeps_resume_to_the_same_scores(videopool, start, tmp_path, data_dir):
    build(WorldSettings(clips=60, per_task=8), data_dir / "shapes")
    videopool(*SWEEP, "study=whole")
    whole = tmp_path / "results" / "whole"
    broken = tmp_path / "results" / "broken"
    rng = random.Random(0)
    for _ in range(2):
        done = sum(len(p.read_bytes().splitlines()) for p in broken.glob("*/records.jsonl"))
        process = start(*SWEEP, "study=broken")
        seen = wait_for_records(broken, done + rng.randint(5, 30), process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        after = sum(len(p.read_bytes().splitlines()) for p in broken.glob("*/records.jsonl"))
        assert after >= seen, "what was written stays"
    videopool(*SWEEP, "study=broken")
    assert scores(whole) == scores(broken)
    columns = ["point", "status", "n", "n_failed", "score", "ci_low", "ci_high"]
    import pandas as pd

    tables = [pd.read_csv(folder / "sweep.csv")[columns] for folder in (whole, broken)]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_finishes_what_is_in_hand_and_says_how_to_go_on(videopool, start, tmp_path, data_dir, number):
    build(WorldSettings(clips=60, per_task=8), data_dir / "shapes")
    words = ["study=i", "frames.num=2", "job.max_clips=1", "+benchmark.tasks=[existence,object_count,event_order]"]
    process = start(*words)
    folder = tmp_path / "results" / "i"
    wait_for_records(folder, 5, process)
    os.killpg(process.pid, number)  # as terminals and schedulers do: to the loader processes too
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "run the same command again" in told
    assert "Traceback" not in told
    lines = next(folder.glob("*/records.jsonl")).read_text().splitlines(keepends=True)
    assert 5 <= len(lines) < 24
    assert all(line.endswith("}\n") for line in lines)
    videopool(*words, "benchmark.limit=null")
    assert len(read(next(folder.glob("*/records.jsonl")))) == 24
