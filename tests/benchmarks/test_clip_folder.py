"""Clips by their names, and which of a benchmark's clips are there."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videopool.benchmarks import Benchmark, BenchmarkError, Sample, load_clips, missing_clips, require_clips
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


HIDDEN = ("._a.avi", ".hidden.mp4", "Thumbs.db", "desktop.ini", ".cache/far.mp4", "__MACOSX/0042/._far.mp4",
          "__MACOSX/far.mp4", "0042/._far.mp4")  # fmt: skip


def test_hidden_files_are_no_clips(root, capfd):
    before = [sample.clip_id for sample in load_clips(root, recursive=True).samples]
    told = capfd.readouterr().err
    for name in HIDDEN:
        path = root / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.touch()
    assert [sample.clip_id for sample in load_clips(root, recursive=True).samples] == before
    assert [sample.clip_id for sample in load_clips(root).samples] == [name for name in before if "/" not in name]
    assert all(name not in told + capfd.readouterr().err for name in HIDDEN)
    assert ClipFolder(root, recursive=True).find("far", "here") == root / "0042" / "far.mp4"
    assert ClipFolder(root, recursive=True).find("._far", "here") == root / "._far", "not there"


def test_files_that_are_no_videos_are_told(tmp_path, capfd):
    for name in ("a.mp4", "b.xyz", "c.mp4.part", "noending", "d.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "folder.d").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "e.png")
    for _ in range(2):
        assert [sample.clip_id for sample in load_clips(tmp_path).samples] == ["a.mp4"]
    (line,) = capfd.readouterr().err.splitlines()
    assert line == (
        f"videopool: benchmark.root={tmp_path}: 5 of 6 files are no videos: b.xyz, c.mp4.part, d.jpg, e.png, noending"
    )
    for number in range(20):
        (tmp_path / f"{number}.xyz").touch()
    load_clips(tmp_path)
    assert capfd.readouterr().err.endswith(" and 20 more\n")


@pytest.mark.parametrize("suffix", ["webp", "png", "apng"])
def test_animations_are_clips(tmp_path, suffix):
    pictures = [Image.fromarray(np.full((8, 8, 3), 50 * number, np.uint8)) for number in range(4)]
    kind = "WEBP" if suffix == "webp" else "PNG"
    pictures[0].save(tmp_path / f"a.{suffix}", kind, save_all=True, append_images=pictures[1:], duration=100)
    pictures[0].save(tmp_path / f"still.{suffix}", kind)
    assert [sample.clip_id for sample in load_clips(tmp_path).samples] == [f"a.{suffix}"]
    assert ClipFolder(tmp_path).find("a", "here") == tmp_path / f"a.{suffix}"
    assert ClipFolder(tmp_path).find("still", "here") == tmp_path / "still", "perhaps a video's thumbnail"


@pytest.mark.parametrize("name", [b"bad\xff.mp4", "lone \ud800.mp4"])
def test_names_that_are_no_text(tmp_path, name):
    if isinstance(name, bytes):
        name = os.fsdecode(name)
        (tmp_path / name).touch()
        (sample,) = load_clips(tmp_path).samples
    else:
        sample = Sample(name, ClipFolder(tmp_path).find(name, "here"), name, "q")
        assert missing_clips(Benchmark("made/test", "test", [sample], "")) == [sample.clip_id]
    assert sample.id == sample.clip_id == sample.clip_id.encode().decode()
