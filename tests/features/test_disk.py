"""The store on disk: what comes back, whatever happened to the files."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from made_features import ROWS, WIDTH, key, made, same
from videopool.features import ClipState, DiskStore, FeatureSource
from videopool.features import disk as disk_module
from videopool.features import segment as segment_module
from videopool.features import space as space_module
from videopool.features.disk import read_record
from videopool.features.segment import LONGEST, codes_of
from videopool.video import ClipInfo

VIEWS = (4, 14, 24, 33)


def store(root, limit=1 << 30, dtype="float32"):
    return DiskStore(root, limit, dtype)


def segments(root):
    return sorted(root.rglob("*.safetensors"))


@pytest.fixture
def root(tmp_path):
    """A store with four views of one clip."""
    kept = store(tmp_path / "kept")
    kept.put(key("clip"), made(*VIEWS))
    assert kept.finish() == []
    return tmp_path / "kept"


@pytest.mark.usefixtures("sooner")
def test_another_process_finds_the_same_bits(root):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from made_features import *; from videopool.features import DiskStore\n"
        "store = DiskStore(sys.argv[2], 1 << 30, 'float32')\n"
        "assert same(store.get(key('clip'), [4, 14, 24, 33]), made(4, 14, 24, 33))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(Path(__file__).parents[1]), str(root)], check=True)


def test_where_things_are(root):
    """The layout that docs/feature_store.md gives."""
    (path,) = segments(root)
    content = key("clip").content
    source, *rest, name = path.relative_to(root / "v1").parts
    assert (len(source), rest) == (16, [content[:2], content])
    assert name.startswith("4.14.24.33-")
    words = json.loads((root / "v1" / source / "source.json").read_text())
    assert words["hash"].startswith(source)
    assert (words["reader"], words["layer"], words["shape"], words["kept"]) == ("pyav", "-2", [ROWS, WIDTH], "float32")
    with safe_open(path, "pt") as file:
        assert file.metadata()["format"] == "1"
        assert file.metadata()["content"] == content
        assert set(json.loads(file.metadata()["checksums"])) == set(file.keys()) == {"4", "14", "24", "33"}


def test_other_views_become_another_segment_and_known_ones_are_not_written_again(root):
    kept = store(root)
    assert kept.missing(key("clip"), [4, 9, 33]) == [9]
    kept.put(key("clip"), made(4, 9))
    kept.finish()
    assert sorted(len(codes_of(path.name)) for path in segments(root)) == [1, 4]
    assert same(store(root).get(key("clip"), [*VIEWS, 9]), made(*VIEWS, 9))


def test_tiled_images_and_frames_live_together(root):
    tiled = [("grid 3x2", 4, 14, 24), ("grid 2x3", 4, 14, 24)]
    kept = store(root)
    for seed, view in enumerate(tiled):
        kept.put(key("clip"), made(view, seed=seed))
    kept.finish()
    for seed, view in enumerate(tiled):
        assert same(store(root).get(key("clip"), [view]), made(view, seed=seed))
    assert store(root).missing(key("clip"), [*tiled, ("grid 3x2", 14, 4, 24), 4]) == [("grid 3x2", 14, 4, 24)]


def test_more_views_than_a_name_can_tell(tmp_path):
    kept, views = store(tmp_path / "kept"), [number * 37 for number in range(300)]
    kept.put(key("long"), made(*views))
    kept.finish()
    assert len(segments(tmp_path)) > 1
    assert all(len(path.name) <= LONGEST + 25 for path in segments(tmp_path))
    assert same(store(tmp_path / "kept").get(key("long"), views), made(*views))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", None])
def test_each_dtype_has_its_own_entries(root, dtype):
    kept = store(root, dtype=dtype)
    assert kept.missing(key("clip"), VIEWS) == list(VIEWS)
    used = kept.put(key("clip"), made(*VIEWS, dtype=torch.bfloat16))
    assert same(kept.get(key("clip"), VIEWS), used)
    assert same(store(root).get(key("clip"), VIEWS), made(*VIEWS))


def flip(path, place, bit=0):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def recomputed(root, lost):
    """What a point does with a damaged store: what is lost is made again, and is there for the next."""
    kept = store(root)
    found = kept.get(key("clip"), VIEWS)
    assert same(found, {view: one for view, one in made(*VIEWS).items() if view not in lost})
    kept.put(key("clip"), {view: one for view, one in made(*VIEWS).items() if view not in found})
    (line,) = kept.finish()
    word = "entry" if len(lost) == 1 else "entries"
    assert line.startswith(f"feature store: {len(lost)} damaged {word} recomputed")
    assert kept.finish() == [], "said once"
    assert len(list(root.rglob("*.safetensors.damaged"))) == 1
    assert same(store(root).get(key("clip"), VIEWS), made(*VIEWS))


def test_any_flipped_bit_is_seen(root):
    """Each byte of the header, and some of each view: never another value, at worst a value made again."""
    (path,) = segments(root)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(0)
    for place in [*range(header), *rng.integers(header, len(whole), 60)]:
        flip(path, place, int(rng.integers(8)))
        kept = store(root)
        found = kept.get(key("clip"), VIEWS)
        assert same(found, {view: one for view, one in made(*VIEWS).items() if view in found})
        if place >= header:
            assert len(found) < len(VIEWS)
        for other in path.parent.iterdir():
            other.unlink()
        path.write_bytes(whole)
    assert same(store(root).get(key("clip"), VIEWS), made(*VIEWS))


@pytest.mark.parametrize("tensor", range(4))
def test_a_flipped_bit_costs_the_segment(root, tensor):
    """Views of it that were read before the damage was seen are made again too, so that all are kept again."""
    (path,) = segments(root)
    flip(path, len(path.read_bytes()) - ROWS * WIDTH * 4 * (4 - tensor) + 5)
    recomputed(root, lost=set(VIEWS))


@pytest.mark.parametrize("size", [0, 4, 100, -1, "more"])
def test_truncated_and_overlong_files(root, size):
    (path,) = segments(root)
    content = path.read_bytes()
    path.write_bytes(content + b"x" if size == "more" else content[:size])
    recomputed(root, lost=set(VIEWS))


def rewritten(path, metadata=None, tensors=None):
    with safe_open(path, "pt") as file:
        old = file.metadata()
        kept = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    save_file(tensors(kept) if tensors else kept, path, {**old, **(metadata or {})})


@pytest.mark.parametrize(
    ("metadata", "tensors"),
    [
        ({"format": "2"}, None),
        ({"source": "0" * 64}, None),
        ({"content": "0" * 64}, None),
        ({"views": "{}"}, None),
        ({"checksums": "nonsense"}, None),
        (None, lambda kept: {name: one[:-1].contiguous() for name, one in kept.items()}),
        (None, lambda kept: {name: one.half() for name, one in kept.items()}),
        (None, lambda kept: {name: one.flatten() for name, one in kept.items()}),
        (None, lambda kept: dict(zip(kept, reversed(list(kept.values())), strict=True))),
    ],
    ids=["version", "source", "content", "views", "checksums", "shape", "dtype", "flat", "swapped"],
)
def test_what_was_written_otherwise_is_not_used(root, metadata, tensors):
    (path,) = segments(root)
    rewritten(path, metadata, tensors)
    recomputed(root, lost=set(VIEWS))


def test_segments_in_the_wrong_place_are_not_used(root):
    """Of another clip, of another source, of another dtype: as a careless copy of folders makes them."""
    (path,) = segments(root)
    for other in (key("other"), key("clip", FeatureSource(*["x"] * 6, (ROWS, WIDTH), "cpu", "av 2"))):
        kept = store(root)
        folder = kept._folder(other)
        folder.mkdir(parents=True)
        shutil.copy(path, folder)
        assert kept.missing(other, VIEWS) == []
        assert kept.get(other, VIEWS) == {}
        assert len(kept.finish()) == 1
    assert same(store(root).get(key("clip"), VIEWS), made(*VIEWS))


def test_a_second_whole_copy_serves_where_the_first_is_damaged(root):
    (path,) = segments(root)
    copy = path.with_name(path.name.replace("-", "-z"))
    shutil.copy(path, copy)
    flip(path, -1)
    kept = store(root)
    assert same(kept.get(key("clip"), VIEWS), made(*VIEWS))
    assert kept.finish() == []


def test_a_segment_that_cannot_be_renamed_is_left_and_avoided(root, monkeypatch):
    (path,) = segments(root)
    flip(path, -1)

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", refuse)
        kept = store(root)
        assert len(kept.get(key("clip"), VIEWS)) < 4
        kept.put(key("clip"), made(*VIEWS))
        kept.finish()
        assert same(kept.get(key("clip"), VIEWS), made(*VIEWS))
        assert kept.finish() == []


def test_foreign_files_in_a_clips_folder_are_left_alone(root):
    folder = segments(root)[0].parent
    (folder / "notes.txt").write_text("mine")
    (folder / ".x.tmp").write_text("half")
    (folder / "4.9-deadbeef.safetensors.damaged").write_text("old")
    (folder / "7.7-deadbeef.safetensors").mkdir()
    kept = store(root)
    assert kept.missing(key("clip"), [4, 9]) == [9]
    assert same(kept.get(key("clip"), VIEWS), made(*VIEWS))
    assert kept.get(key("clip"), [7]) == {}
    assert (folder / "notes.txt").read_text() == "mine"


def test_checksums_are_compared_once_in_a_process(root, monkeypatch):
    counted = []
    whole = segment_module._checksum
    monkeypatch.setattr(segment_module, "_checksum", lambda *words: counted.append(1) or whole(*words))
    kept = store(root)
    for _ in range(3):
        kept.get(key("clip"), VIEWS)
    assert len(counted) == 4


def test_a_mapped_segment_stays_readable_when_it_is_evicted(root):
    found = store(root).get(key("clip"), VIEWS)
    shutil.rmtree(root)
    assert same(found, made(*VIEWS))


# Several writers


def write_clips(root, order, scale):
    kept = store(root)

    def some(clips):
        for clip in clips:
            kept.put(key(clip), made(*VIEWS, seed=clip))
            assert same(kept.get(key(clip), VIEWS), made(*VIEWS, seed=clip))

    threads = [threading.Thread(target=some, args=(order[part::scale],)) for part in range(scale)]
    for thread in threads:
        thread.start()
    some(order)
    for thread in threads:
        thread.join()
    assert kept.finish() == []


def test_processes_and_threads_that_write_the_same_clips(tmp_path):
    fork = multiprocessing.get_context("fork")
    orders = [list(range(30)), list(reversed(range(30))), list(range(30))]
    workers = [fork.Process(target=write_clips, args=(tmp_path / "kept", order, 2)) for order in orders]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob("*.damaged"))
    kept = store(tmp_path / "kept")
    for clip in range(30):
        assert same(kept.get(key(clip), VIEWS), made(*VIEWS, seed=clip))


def test_a_fork_has_a_writer_of_its_own(tmp_path):
    """A process that is forked while its parent still writes."""
    kept = store(tmp_path / "kept")
    kept.put(key("parent"), made(*VIEWS))
    worker = multiprocessing.get_context("fork").Process(target=lambda: (kept.put(key(1), made(1)), kept.finish()))
    worker.start()
    worker.join(30)
    assert worker.exitcode == 0
    kept.finish()
    assert same(store(tmp_path / "kept").get(key(1), [1]), made(1))
    assert same(store(tmp_path / "kept").get(key("parent"), VIEWS), made(*VIEWS))


def test_a_process_that_ends_without_a_word_has_written_what_it_was_given(tmp_path):
    """Processes of several devices never come to finish()."""
    kept = store(tmp_path / "kept")
    worker = multiprocessing.get_context("fork").Process(target=lambda: kept.put(key(1), made(1)))
    worker.start()
    worker.join(30)
    assert same(kept.get(key(1), [1]), made(1))


def test_a_store_that_is_sent_to_another_process_opens_the_same_folder(root):
    import pickle

    sent = pickle.loads(pickle.dumps(store(root)))  # noqa: S301 (our own)
    assert same(sent.get(key("clip"), VIEWS), made(*VIEWS))
    assert (sent.dtype, sent.limit_bytes) == ("float32", 1 << 30)


KILLED = """
import os, sys, time; sys.path.insert(0, sys.argv[1])
from made_features import *
from videopool.features import DiskStore
def hang(*_):
    print("writing", flush=True)
    time.sleep(60)
os.{call} = hang
store = DiskStore(sys.argv[2], 1 << 30, "float32")
store.put(key("clip"), made(4, 14, 24, 33))
time.sleep(60)
"""


@pytest.mark.usefixtures("sooner")
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_writer_that_is_killed_leaves_nothing_that_counts(tmp_path, call):
    words = [
        sys.executable,
        "-c",
        KILLED.replace("{call}", call),
        str(Path(__file__).parents[1]),
        str(tmp_path / "kept"),
    ]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert len(list(tmp_path.rglob("*.tmp"))) == 1
    kept = store(tmp_path / "kept")
    assert kept.missing(key("clip"), VIEWS) == list(VIEWS)
    kept.put(key("clip"), made(*VIEWS))
    assert kept.finish() == []
    assert same(store(tmp_path / "kept").get(key("clip"), VIEWS), made(*VIEWS))


# Where nothing can be written


def test_below_a_file_nothing_is_kept_and_that_is_said_once(tmp_path):
    (tmp_path / "file").write_text("")
    kept = store(tmp_path / "file" / "kept")
    for clip in range(3):
        used = kept.put(key(clip), made(*VIEWS))
        assert same(used, made(*VIEWS))
        assert kept.get(key(clip), VIEWS) == {}
        kept.remember(ClipState("a", 1, 2, "pyav"), "content", ClipInfo(4, 2.0))
    (line,) = kept.finish()
    assert "cannot be written (Not a directory): nothing more is kept" in line
    kept.put(key("more"), made(*VIEWS))
    assert kept.finish() == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_or_read_only_disk(root, monkeypatch, call, number):
    """Old entries are still read; of what failed nothing is left."""

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    kept = store(root)
    assert same(kept.put(key("new"), made(1, 2)), made(1, 2))
    kept.put(key("newer"), made(1, 2))
    assert same(kept.get(key("clip"), VIEWS), made(*VIEWS))
    (line,) = kept.finish()
    assert os.strerror(number) in line
    assert len(segments(root)) == 1
    assert not list(root.rglob("*.tmp"))


def test_some_space_is_left_to_others(tmp_path, monkeypatch):
    monkeypatch.setattr(space_module, "RESERVE_BYTES", 1 << 60)
    kept = store(tmp_path / "kept")
    kept.put(key(0), made(1))
    (line,) = kept.finish()
    assert "MB would be left on the file system" in line
    assert segments(tmp_path) == []


def test_an_error_of_the_program_is_not_hidden(tmp_path, monkeypatch):
    kept = store(tmp_path / "kept")
    with pytest.raises(ValueError, match="of shape"):
        kept.put(key(0), {1: torch.zeros(ROWS + 1, WIDTH)})
    monkeypatch.setattr(disk_module, "pack", lambda *_: 1 / 0)
    kept.put(key(0), made(1))
    with pytest.raises(ZeroDivisionError):
        kept.finish()


# The limit


def size_of_one(tmp_path):
    kept = store(tmp_path / "one")
    kept.put(key(0), made(*VIEWS))
    kept.finish()
    return segments(tmp_path / "one")[0].stat().st_size


def clips_in(root, names):
    return [name for name in names if not store(root).missing(key(name), VIEWS)]


def test_what_was_used_least_recently_goes_first(tmp_path):
    size, root = size_of_one(tmp_path), tmp_path / "kept"
    limit = 4 * size
    for clip in range(4):
        kept = store(root, limit)
        kept.put(key(clip), made(*VIEWS))
        kept.finish()
        os.utime(segments(kept._folder(key(clip)))[0], (clip, clip))
    store(root, limit).get(key(0), VIEWS)  # in a process of its own: used again
    kept = store(root, limit)
    kept.put(key(4), made(*VIEWS))
    kept.finish()
    assert clips_in(root, range(5)) == [0, 2, 3, 4]
    assert sum(path.stat().st_size for path in segments(root)) <= limit
    assert not kept._folder(key(1)).exists()


def test_looking_up_counts_as_use(tmp_path):
    """What a point is going to need is not what makes room for its other clips."""
    size, root = size_of_one(tmp_path), tmp_path / "kept"
    for clip in range(3):
        kept = store(root)
        kept.put(key(clip), made(*VIEWS))
        kept.finish()
        os.utime(segments(kept._folder(key(clip)))[0], (clip, clip))
    kept = store(root, 3 * size)
    kept.missing(key(0), VIEWS)
    kept.put(key(3), made(*VIEWS))
    kept.finish()
    assert 0 in clips_in(root, range(4))


def test_the_limit_holds_over_many_clips_and_several_writers(tmp_path):
    size, root = size_of_one(tmp_path), tmp_path / "kept"
    writers = [store(root, 10 * size) for _ in range(2)]
    for clip in range(40):
        kept = writers[clip % 2]
        kept.put(key(clip), made(*VIEWS))
        assert kept.finish() == []
        total = sum(path.stat().st_size for path in segments(root))
        # One more than a sixteenth of the limit may have been written by the other unseen.
        assert total <= 11 * size
    assert clips_in(root, [38, 39]) == [38, 39]


def test_a_limit_smaller_than_a_clip(tmp_path):
    kept = store(tmp_path / "kept", 100)
    for clip in range(3):
        assert same(kept.put(key(clip), made(*VIEWS)), made(*VIEWS))
    (line,) = kept.finish()
    assert "do not fit features.limit_bytes=100" in line
    assert segments(tmp_path) == []


def test_a_segment_that_goes_between_looking_up_and_reading(root):
    kept = store(root)
    assert kept.missing(key("clip"), VIEWS) == []
    segments(root)[0].unlink()
    assert kept.get(key("clip"), VIEWS) == {}
    assert kept.finish() == [], "gone is not damaged"


# What is known of clips


def test_length_and_timing_come_back_to_the_bit(tmp_path):
    stamps = np.cumsum(np.random.default_rng(0).random(50))
    infos = [ClipInfo(50, 29.97, stamps, 1), ClipInfo(7, 1 / 3), ClipInfo(3, 25.0, None, 4)]
    for number, info in enumerate(infos):
        state = ClipState(f"/clips/ä {number}.mp4", 10, time.time_ns(), "pyav")
        store(tmp_path).remember(state, "content", info)
        content, back = store(tmp_path).clip(state)
        assert (content, back.num_frames, back.fps, back.first_index) == (
            "content", info.num_frames, info.fps, info.first_index,
        )  # fmt: skip
        assert (back.timestamps is None) == (info.timestamps is None)
        if info.timestamps is not None:
            assert back.timestamps.tobytes() == info.timestamps.tobytes()
        for other in (
            ClipState(state.path, 11, state.modified, "pyav"),
            ClipState(state.path, 10, state.modified + 1, "pyav"),
            ClipState(state.path + "x", 10, state.modified, "pyav"),
            ClipState(state.path, 10, state.modified, "decord"),
        ):
            assert store(tmp_path).clip(other) is None


def test_any_flipped_bit_of_a_record_is_seen(tmp_path):
    state = ClipState("/clips/a.mp4", 10, 12345, "pyav")
    store(tmp_path).remember(state, "content", ClipInfo(3, 25.0, np.array([0.0, 0.5, 2.0])))
    (path,) = tmp_path.rglob("*.json")
    whole = path.read_bytes()
    assert read_record(path)[0] == state
    for place in range(len(whole)):
        flip(path, place, place % 8)
        found = read_record(path)
        assert found is None, path.read_bytes()
        path.write_bytes(whole)


def test_a_changed_clip_replaces_its_record(tmp_path):
    for modified in range(5):
        store(tmp_path).remember(ClipState("/clips/a.mp4", 10, modified, "pyav"), f"content {modified}", ClipInfo(3, 1))
    assert len(list(tmp_path.rglob("*.json"))) == 1
    assert store(tmp_path).clip(ClipState("/clips/a.mp4", 10, 4, "pyav"))[0] == "content 4"
