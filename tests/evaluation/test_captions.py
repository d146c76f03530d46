"""Describing a folder of clips: lines of JSON, lengths, and clips that cannot be read."""

import json
import os
import shutil

from conftest import numbered_frames
from videopool.shapes.clips import write_mp4

WORDS = ("benchmark=recaption", "benchmark.max_new_tokens=6", "frames.num=2", "study=s", "job.max_failed_fraction=0.5")


def test_clips_are_described_and_broken_ones_counted(videopool, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("b.mp4", "a.mp4", "ünï.mp4"):
        write_mp4(folder / name, numbered_frames(8, 96, 96))
    (folder / "broken.mp4").write_bytes(b"no video")
    done = videopool(*WORDS, f"benchmark.root={folder}", "logger=none", small=False)
    (point,) = (tmp_path / "results" / "s").glob("*/captions.jsonl")
    lines = [json.loads(line) for line in point.read_text(encoding="utf-8").splitlines()]
    assert [line["clip"] for line in lines] == ["a.mp4", "b.mp4", "ünï.mp4"]
    records = {r["clip"]: r for r in map(json.loads, (point.parent / "records.jsonl").read_text().splitlines())}
    assert all(line["caption"] == records[line["clip"]]["prediction"] for line in lines)
    metrics = json.loads((point.parent / "metrics.json").read_text())
    words = [len(line["caption"].split()) for line in lines]
    assert metrics["answer_words"]["mean"] == sum(words) / 3
    assert (metrics["answer_words"]["n"], metrics["n_failed"], metrics["score"]) == (3, 1, None)
    assert "3 answers of" in done.stdout
    # A clip that can be read later is added, and the others are not described again.
    write_mp4(folder / "broken.mp4", numbered_frames(8, 96, 96))
    before = {r["clip"]: r["prediction"] for r in records.values()}
    (point.parent / "metrics.json").unlink()
    videopool(*WORDS, f"benchmark.root={folder}", "logger=none", small=False)
    lines = [json.loads(line) for line in point.read_text(encoding="utf-8").splitlines()]
    assert [line["clip"] for line in lines] == ["a.mp4", "b.mp4", "broken.mp4", "ünï.mp4"]
    assert all(line["caption"] == before[line["clip"]] for line in lines if line["clip"] != "broken.mp4")


def test_one_odd_name_spoils_nothing(videopool, tmp_path):
    """A name that is no UTF-8, one that looks like a protocol, files that a Mac leaves behind, the disk store."""
    for name in ("a.mp4", "12:30:05.mp4"):
        write_mp4(tmp_path / name, numbered_frames(8, 96, 96))
    shutil.copy(tmp_path / "a.mp4", os.fsdecode(bytes(tmp_path) + b"/bad\xff.mp4"))
    (tmp_path / "._a.mp4").write_bytes(b"\0")
    shared = ("benchmark.root=.", "features=disk", "logger=none")
    done = videopool(*WORDS, *shared, small=False)
    (point,) = (tmp_path / "results" / "s").glob("*/records.jsonl")
    records = [json.loads(line) for line in point.read_text(encoding="utf-8").splitlines()]
    assert {record["clip"]: record["status"] for record in records} == {
        "12:30:05.mp4": "ok", "a.mp4": "ok", "bad\\udcff.mp4": "ok",
    }  # fmt: skip
    assert len({record["prediction"] for record in records}) == 1
    assert "3 answers of" in done.stdout
    checked = videopool("job=check_videos", "benchmark=clips", "study=s", *shared[::2], small=False)
    assert "3 of 3 clips can be read" in checked.stdout
    videopool("job=report", "study=s", "logger=none", small=False)
