"""job=check_videos: what it finds, writes and ends with; crashes, interruptions, going on."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from composed import composed
from conftest import numbered_frames
from videopool.benchmarks.clip_check import ClipReport, ClipTask, Journal, check_clip
from videopool.jobs.run import run_and_tell
from videopool.runtime import exit_code
from videopool.runtime.workers import in_processes
from videopool.shapes.clips import write_mp4


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The job in this process, by the words that a user gives: the exit code."""

    def call(*words):
        monkeypatch.setattr(exit_code, "_exit_code", 0)
        paths = [f"results_dir={tmp_path}/results", "study=s", "job=check_videos", "benchmark=clips"]
        run_and_tell(composed(*paths, f"benchmark.root={tmp_path}/clips", *words))
        return exit_code.exit_code()

    return call


@pytest.fixture
def clips(tmp_path):
    """Three good clips of 12 frames at 8 per second, one of them in a folder below."""
    folder = tmp_path / "clips"
    (folder / "below").mkdir(parents=True)
    for name in ("a.mp4", "b.mp4", "below/c.mp4"):
        write_mp4(folder / name, numbered_frames(12), 8)
    return folder


def table(tmp_path):
    with (tmp_path / "results" / "s" / "check_videos.csv").open(newline="") as file:
        return {row["clip"]: row for row in csv.DictReader(file)}


def test_good_clips(run, clips, tmp_path, capsys):
    assert run("benchmark.recursive=true") == 0
    rows = table(tmp_path)
    assert list(rows) == ["a.mp4", "b.mp4", "below/c.mp4"]
    first = rows["a.mp4"]
    assert [first[k] for k in ("status", "reason", "frames", "fps", "duration", "size")] == [
        "ok", "", "12", "8.0", "1.5", "96x64",
    ]  # fmt: skip
    assert float(first["seconds"]) > 0
    told = capsys.readouterr()
    assert "3 of 3 clips can be read" in told.out
    assert "36" in told.out, "frames of all clips"
    assert not told.err
    assert not (tmp_path / "results" / "s" / "check_videos.part").exists()


@pytest.mark.parametrize("reader", ["pyav", "decord"])
@pytest.mark.parametrize("full", ["false", "true"])
def test_every_kind_of_clip(run, clips, tmp_path, reader, full, capsys):
    (clips / "below" / "c.mp4").unlink()
    (clips / "empty.mp4").touch()
    (clips / "garbage.mp4").write_bytes(np.random.default_rng(0).bytes(4000))
    frames = [Image.fromarray(frame) for frame in numbered_frames(5)]
    frames[0].save(clips / "moving.gif", save_all=True, append_images=frames[1:], duration=100)
    (clips / "frames").mkdir()
    for number, frame in enumerate(frames):
        frame.save(clips / "frames" / f"{number}.png")
    sheet = tmp_path / "q.csv"
    names = ["a", "a.mp4", "moving", "frames", "empty", "garbage", "gone", "b"]
    sheet.write_text(
        "video_name,question,start,end\n" + "".join(f"{name},q,,\n" for name in names) + "b,q,0.5,1\nb,q,7,9\n"
    )
    assert run(f"benchmark.questions={sheet}", f"job.reader={reader}", f"job.full={full}") == 1
    rows = table(tmp_path)
    assert {name: row["status"] for name, row in rows.items()} == {
        "a": "ok", "moving": "ok", "frames": "ok", "empty": "unreadable", "garbage": "unreadable", "gone": "missing",
        "b": "bad_bounds",
    }  # fmt: skip
    assert (rows["a"]["samples"], rows["b"]["samples"]) == ("2", "3"), "each file once"
    assert (rows["moving"]["frames"], rows["frames"]["frames"], rows["frames"]["fps"]) == ("5", "5", "3.0")
    assert "outside the clip" in rows["b"]["reason"]
    assert all(row["reason"] and "\n" not in row["reason"] for row in rows.values() if row["status"] != "ok")
    told = capsys.readouterr().err
    assert "benchmark clips/own: 1 of 8 clips (12.5 %) are not there, with 1 of 10 samples: gone" in told
    assert "empty: unreadable: the file is empty" in told
    assert "3 of 7 clips can be read" in told


def damage(path):
    """Overwrite a little of a video, between its first and its middle frame."""
    content = bytearray(path.read_bytes())
    start = len(content) // 6
    content[start : start + 60] = b"\xff" * 60
    path.write_bytes(content)


def test_damage_between_the_three_frames_is_found_by_reading_all(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (90, 64, 96, 3), dtype=np.uint8)
    path = tmp_path / "a.mp4"
    write_mp4(path, noise, 8)
    task = ClipTask("a", str(path), 3.0, (), 1)
    assert check_clip(task, "pyav", True).status == "ok"
    damage(path)
    assert check_clip(task, "pyav", False).status == "ok"
    found = check_clip(task, "pyav", True)
    assert (found.status, found.frames) == ("unreadable", 90)
    assert found.reason.endswith("of 90 frames can be decoded")


def test_no_clip_at_all(run, clips, tmp_path, capsys):
    sheet = tmp_path / "q.csv"
    sheet.write_text("video_name,question\nx,q\ny,q\n")
    assert run(f"benchmark.questions={sheet}") == 1
    told = capsys.readouterr()
    assert "none of its 2 clips is there, not even" in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert not told.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["job.reader=other"], "job.reader='other': choose one of pyav, decord"),
        (["job.workers=0"], "job.workers must be a whole number of at least 1"),
        (["job.full=some"], "job.full='some': say true or false"),
        (["benchmark.root=???"], "benchmark.root is not given"),
    ],
)
def test_wrong_words(run, clips, words, told, capsys):
    assert run(*words) == 1
    assert told in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(run, clips, tmp_path, capsys):
    (tmp_path / "results").write_text("a file")
    assert run() == 1
    assert "check_videos.csv cannot be written" in capsys.readouterr().err


def test_earlier_reports_count_while_the_file_is_the_same(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"1")
    task, found = ClipTask("a", str(path), 3.0, ((None, 2.5),), 1), ClipReport("a", "ok", frames=3)
    Journal(tmp_path / "j", {"full": False}).add(task, found)
    with (tmp_path / "j").open("a") as file:
        file.write('{"key": "cut o')
    assert Journal(tmp_path / "j", {"full": False}).get(task) == found
    assert Journal(tmp_path / "j", {"full": True}).get(task) is None
    path.write_bytes(b"12")
    assert Journal(tmp_path / "j", {"full": False}).get(task) is None


def answer(number):
    """What a process is asked to do: give a number back, die, or fail."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 100:
        raise ValueError("out of range")
    return number * 2


def test_a_process_that_dies_costs_its_own_clip_alone():
    results = dict(in_processes(answer, [(n,) for n in range(9)], 2, lambda: False))
    assert results == {n: None if n == 3 else 2 * n for n in range(9)}


def test_errors_of_the_program_are_not_swallowed():
    with pytest.raises(RuntimeError, match="out of range"):
        list(in_processes(answer, [(1,), (100,)], 1, lambda: False))


def test_nothing_is_begun_once_it_is_to_stop():
    asked = iter([False, False, True, True, True, True])
    results = list(in_processes(answer, [(n,) for n in (1, 2, 4)], 1, lambda: next(asked)))
    assert len(results) in (1, 2)


SCRIPT = """
import sys
from hydra import compose, initialize_config_dir
from videopool.app import register_experiments
from videopool.jobs import check_videos as module
from videopool.config.errors import Stopped
from videopool.paths import shipped
import time
slow = module.check_clip
def check_clip(*job):
    time.sleep(0.3)
    return slow(*job)
module.check_clip = check_clip
register_experiments(shipped("experiments"))
with initialize_config_dir(str(shipped("conf")), version_base="1.3"):
    config = compose("config", overrides=sys.argv[1:])
try:
    print(module.run(config).message)
except Stopped as stop:
    print("stopped:", stop)
"""


def test_interrupting_keeps_what_is_done(run, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(12):
        write_mp4(folder / f"{number:02d}.mp4", numbered_frames(3), 8)
    words = [
        "job=check_videos",
        "benchmark=clips",
        f"benchmark.root={folder}",
        f"results_dir={tmp_path}/results",
        "study=s",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, cwd=tmp_path,
    )  # fmt: skip
    journal = tmp_path / "results" / "s" / "check_videos.part"
    for _ in range(1200):
        if (journal.is_file() and len(journal.read_bytes().splitlines()) >= 3) or process.poll() is not None:
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes
    out, err = process.communicate(timeout=60)
    assert out.startswith("stopped: "), err
    assert "of 12 clips are checked" in out
    assert not (tmp_path / "results" / "s" / "check_videos.csv").exists()
    kept = {json.loads(line)["report"]["clip"]: json.loads(line)["report"]["seconds"] for line in journal.open()}
    assert 3 <= len(kept) < 12
    assert run() == 0
    rows = table(tmp_path)
    assert len(rows) == 12
    assert all(float(rows[name]["seconds"]) == round(seconds, 3) for name, seconds in kept.items()), "not read again"
    assert not journal.exists()
