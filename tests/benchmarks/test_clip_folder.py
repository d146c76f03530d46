"""Clips by their names, and which of a benchmark's clips are there."""

from pathlib import Path

import pytest

from videopool.benchmarks import Benchmark, BenchmarkError, Sample, missing_clips, require_clips
from videopool.benchmarks.clip_folder import ClipFolder


@pytest.fixture
def root(tmp_path):
    for name in ("a.avi", "b.MP4", "c.webm", "d.mkv", "e.gif", "v_f.mp4", "6H78U_2.3_8.mp4", "notes.txt", "g/1.jpg",
                 "0042/far.mp4", "0043/twice.mp4", "0044/twice.mp4", "é b.mp4"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a", "a.avi"), ("a.avi", "a.avi"), ("b", "b.MP4"), ("c", "c.webm"), ("d", "d.mkv"), ("e", "e.gif"),
        ("f", "v_f.mp4"), ("v_f", "v_f.mp4"), ("6H78U_2.3_8", "6H78U_2.3_8.mp4"), ("g", "g"), ("é b", "é b.mp4"),
        ("0042/far", "0042/far.mp4"), ("0042/../a", "a.avi"), ("notes", "notes"), ("gone", "gone"), ("far", "far"),
    ],
)  # fmt: skip
def test_names_may_leave_out_suffix_and_prefix(root, name, file):
    found = ClipFolder(root, prefixes=["v_"]).find(name, "q.csv, line 2")
    assert Path(found).resolve() == (root / file).resolve()


def test_folders_below(root):
    clips = ClipFolder(root, recursive=True)
    assert clips.find("far", "here") == root / "0042" / "far.mp4"
    assert clips.find("a", "here") == root / "a.avi"
    assert clips.find("gone", "here") == root / "gone"
    with pytest.raises(BenchmarkError, match=r"line 2: 'twice' names several clips: .*0043.*0044"):
        clips.find("twice", "q.csv, line 2")
    (root / "0042" / "up").symlink_to(root)
    assert ClipFolder(root, recursive=True).find("far", "here") == root / "0042" / "far.mp4"


@pytest.mark.parametrize("name", ["../a", "/a", "x/../../a", ".", "g/.."])
def test_names_that_lead_elsewhere(root, name):
    with pytest.raises(BenchmarkError, match=r"q\.csv, line 2"):
        ClipFolder(root).find(name, "q.csv, line 2")


def test_no_folder(tmp_path):
    with pytest.raises(BenchmarkError, match=r"benchmark\.root=.*nowhere: no such folder"):
        ClipFolder(tmp_path / "nowhere")


def benchmark(root, *names):
    samples = [Sample(f"{n}/{i}", root / n, n, "q") for n in names for i in range(2)]
    return Benchmark("made/test", "test", samples, "")


def test_which_clips_are_there(root):
    assert require_clips(benchmark(root, "a.avi", "g")) == ""
    some = benchmark(root, "a.avi", "gone", "b.MP4", "away")
    assert missing_clips(some) == ["away", "gone"]
    assert require_clips(some) == (
        "benchmark made/test: 2 of 4 clips (50.0 %) are not there, with 4 of 8 samples: away, gone"
    )
    many = benchmark(root, "a.avi", *(f"gone{n}" for n in range(7)))
    assert require_clips(many).endswith("gone0, gone1, gone2, gone3, gone4 and 2 more")


def test_no_clip_at_all(root):
    with pytest.raises(BenchmarkError, match=r"none of its 2 clips is there, not even .*away") as error:
        require_clips(benchmark(root, "away", "gone"))
    assert "\n" not in str(error.value)
