"""Listing, verifying and pruning a store on disk."""

import os
import shutil
import time
from pathlib import Path

import pytest
import torch

from made_features import SOURCE, key, made, same
from videopool.features import ClipDataset, ClipJob, DiskStore, FeatureSource, ReadPlan, segment
from videopool.features.disk import SOURCE as WORDS
from videopool.features.upkeep import holdings, prune, verify
from videopool.locks import claim
from videopool.video import UniformSampler

LIMIT = 1 << 30


def silent(items, what):
    return items


def filled(root, clips=3, views=(4, 14), source=SOURCE, dtype="float32"):
    kept = DiskStore(root, LIMIT, dtype)
    for clip in range(clips):
        kept.put(key(clip, source), made(*views, seed=clip))
    assert kept.finish() == []
    return kept


def segments(root):
    return sorted(root.rglob("*.safetensors"))


def test_what_is_held_by_source(tmp_path):
    other = FeatureSource(*["x"] * 6, SOURCE.shape, "cuda", "av 2", "another model")
    filled(tmp_path)
    filled(tmp_path, clips=2, views=(14, 24, ("grid 3x2", 1, 2)))
    filled(tmp_path, clips=1, source=other, dtype="float16")
    one, two = sorted(holdings(tmp_path), key=lambda held: -held.clips)
    assert (one.clips, one.views, one.words["kept"]) == (3, 3 * 2 + 2 * 2, "float32")
    assert (two.clips, two.views, two.words["kept"], two.words["model"]) == (1, 2, "float16", "another model")
    assert one.bytes + two.bytes == sum(path.stat().st_size for path in segments(tmp_path))
    assert abs(one.used / 1e9 - time.time()) < 60
    assert holdings(tmp_path / "nothing") == []


def test_verifying_reads_everything_and_sets_aside_what_is_damaged(tmp_path):
    filled(tmp_path, clips=4)
    good = verify(tmp_path, silent)
    assert (good.views, good.segments, good.damaged, good.changed) == (8, 4, [], [])
    path = segments(tmp_path)[2]
    content = bytearray(path.read_bytes())
    content[-3] ^= 16
    path.write_bytes(content)
    moved = segments(tmp_path)[0]
    shutil.copy(moved, path.with_name("4.14-abcdef.safetensors"))  # into another clip's folder
    bad = verify(tmp_path, silent)
    assert (bad.views, bad.segments) == (6, 3)
    assert len(bad.damaged) == 2
    assert any("the checksum differs" in line for line in bad.damaged)
    assert any("of another source or clip" in line for line in bad.damaged)
    assert len(list(tmp_path.rglob("*.damaged"))) == 2
    assert verify(tmp_path, silent).damaged == []
    assert sum(held.damaged for held in holdings(tmp_path)) == 2


def test_verifying_sees_another_dtype_and_lives_without_words(tmp_path):
    kept = filled(tmp_path)
    folder = tmp_path / "v1" / holdings(tmp_path)[0].name
    words = (folder / WORDS).read_text()
    (folder / WORDS).write_text(words.replace("float32", "float16"))
    assert len(verify(tmp_path, silent).damaged) == 3
    (folder / WORDS).unlink()
    kept.put(key(0), made(4))
    assert same(DiskStore(tmp_path, LIMIT, "float32").put(key(0), made(4)), made(4))
    filled(tmp_path)
    assert (folder / WORDS).read_text() == words
    assert verify(tmp_path, silent).damaged == []


@pytest.fixture
def clip(tmp_path):
    """A clip of frames as a store knows it."""
    from PIL import Image

    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")

    class Halves:
        def __call__(self, images, return_tensors):
            return {"pixel_values": torch.zeros(len(images), 3, 8, 8)}

    kept = DiskStore(tmp_path / "kept", LIMIT)
    jobs = [ClipJob(folder, "clip", ())]
    loaded = ClipDataset(jobs, ReadPlan(UniformSampler(2), "pyav", Halves()), kept, SOURCE)[0]
    kept.remember(loaded.state, loaded.digest, loaded.info)
    return folder, loaded


def test_verifying_reads_clips_again(tmp_path, clip):
    """A change that leaves size and time as they were is seen here, and only here."""
    folder, loaded = clip
    filled(tmp_path / "kept", clips=1)
    assert verify(tmp_path / "kept", silent).clips == 1
    image = folder / "1.png"
    stat, content = image.stat(), bytearray(image.read_bytes())
    content[-1] ^= 1
    image.write_bytes(content)
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert DiskStore(tmp_path / "kept", LIMIT).clip(loaded.state)[0] == loaded.digest
    assert verify(tmp_path / "kept", silent).changed == [str(folder)]
    assert DiskStore(tmp_path / "kept", LIMIT).clip(loaded.state) is None


def test_damaged_records_are_removed(tmp_path, clip):
    filled(tmp_path / "kept", clips=1)
    (record,) = (tmp_path / "kept" / "v1" / "clips").rglob("*.json")
    record.write_text("{}")
    assert "no intact record" in verify(tmp_path / "kept", silent).damaged[0]
    assert not record.exists()


def test_pruning_removes_what_is_of_no_use(tmp_path, clip):
    root = tmp_path / "kept"
    filled(root, clips=4)
    paths = segments(root)
    shutil.copy(paths[0], paths[0].with_name("4.14-abcdef.safetensors"))  # as two writers at once leave it
    shutil.copy(paths[0], paths[0].with_name("4-abcdef.safetensors"))
    paths[3].rename(paths[3].with_name(paths[3].name + ".damaged"))
    old, fresh, held = (paths[1].with_name(f".{name}.tmp") for name in ("old", "fresh", "held"))
    for path in (old, fresh, held):
        path.write_bytes(b"x" * 100)
    for path in (old, held):
        os.utime(path, (1, 1))
    (clip[0] / "1.png").unlink()
    with held.open("rb") as writer:
        assert claim(writer.fileno())
        freed = prune(root, LIMIT)
    records = "records of clips that are gone or changed"
    assert {**freed, "bytes": 0} == {"bytes": 0, "duplicates": 2, "damaged": 1, "unfinished": 1, records: 1}
    assert freed["bytes"] > 100
    assert (old.exists(), fresh.exists(), held.exists()) == (False, True, True)
    assert len(segments(root)) == 3
    assert not paths[3].parent.exists()
    for number in range(4):
        found = DiskStore(root, LIMIT, "float32").get(key(number), [4, 14])
        assert found == {} or same(found, made(4, 14, seed=number))
    again = prune(root, LIMIT)  # its writer has let go of it by now
    assert again == {"unfinished": 1, "bytes": 100}


def test_pruning_goes_down_to_the_limit_and_to_nothing(tmp_path):
    filled(tmp_path, clips=5)
    paths = segments(tmp_path)
    for age, path in enumerate(paths):
        os.utime(path, (age, age))
    size = paths[0].stat().st_size
    freed = prune(tmp_path, 3 * size)
    assert freed == {"beyond the limit": 2, "bytes": 2 * size}
    assert segments(tmp_path) == paths[2:]
    assert prune(tmp_path, 0)["beyond the limit"] == 3
    assert holdings(tmp_path) == []
    filled(tmp_path)
    assert len(holdings(tmp_path)) == 1
    assert prune(tmp_path / "nothing", 0) == {}


def test_two_processes_that_make_room_at_once(tmp_path):
    """Each holds the lock while it counts and removes, so neither removes for the other's sake."""
    import multiprocessing

    filled(tmp_path, clips=30)
    size = segments(tmp_path)[0].stat().st_size
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=prune, args=(tmp_path, 10 * size)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(segments(tmp_path)) == 10


@pytest.mark.parametrize("opened", [0, 1])
def test_what_another_process_removes_meanwhile_is_not_damaged(tmp_path, monkeypatch, opened):
    """What opens a segment does so more than once: it may be gone at the second time."""
    filled(tmp_path, clips=1)
    own = segment.safe_open

    def open_and_lose(name, framework):
        file = own(name, framework) if opened else None
        Path(name).unlink()
        if file is None:
            raise RuntimeError(f"unable to open file <{name}>: No such file or directory (2)")
        return Lost(file)

    class Lost:
        def __init__(self, file):
            self.metadata = file.metadata

        def get_tensor(self, code):
            raise RuntimeError("unable to open file")

    monkeypatch.setattr(segment, "safe_open", open_and_lose)
    store = DiskStore(tmp_path, LIMIT, "float32")
    assert store.get(key(0), [4, 14]) == {}
    assert store.finish() == []
    filled(tmp_path, clips=1)
    assert verify(tmp_path, silent).damaged == []


def test_a_folder_with_the_name_of_a_segment_is_pruned(tmp_path):
    filled(tmp_path, clips=1)
    (path,) = segments(tmp_path)
    path.unlink()
    path.mkdir()
    (path / "other").write_bytes(b"x" * 100)
    store = DiskStore(tmp_path, LIMIT, "float32")
    assert store.get(key(0), [4, 14]) == {}
    assert "damaged" in store.finish()[0]
    freed = prune(tmp_path, LIMIT)
    assert (freed["damaged"], freed["bytes"] >= 100) == (1, True)
    assert not list(tmp_path.rglob("*.safetensors*"))
