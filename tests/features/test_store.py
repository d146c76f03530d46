"""The store in memory, what a key is, and reading ahead only what a store lacks."""

import os
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import numbered_frames
from made_features import ROWS, SOURCE, WIDTH, key, made, same
from videopool.features import (
    ClipDataset,
    ClipJob,
    ClipKey,
    DiskStore,
    FeatureStore,
    FeatureStoreError,
    MemoryStore,
    ReadPlan,
    frames_of,
    read_again,
)
from videopool.features.loading import file_state
from videopool.features.source import source_hash, view_code
from videopool.shapes.clips import write_mp4
from videopool.shapes.mini import mini_image_processor
from videopool.video import UniformSampler, UnreadableClipError

SIZE = ROWS * WIDTH * 4


def test_least_recently_used_views_go_first():
    store, clip = MemoryStore(limit_bytes=3 * SIZE), key("clip")
    for view in (1, 2, 3):
        store.put(clip, made(view))
    assert store.get(clip, [1]).keys() == {1}  # used again
    store.put(clip, made(4))
    assert store.missing(clip, [1, 2, 3, 4]) == [2]
    assert store.bytes == 3 * SIZE
    store.put(clip, made(1, seed=9))  # replaced, not counted twice
    assert store.bytes == 3 * SIZE
    assert same(store.get(clip, [1]), made(1, seed=9))
    assert MemoryStore(SIZE - 1).put(clip, made(1)).keys() == {1}


def test_a_kept_view_does_not_hold_on_to_what_was_encoded_with_it():
    store, batch = MemoryStore(1 << 20), torch.zeros(100, ROWS, WIDTH)
    store.put(key(0), {7: batch[7]})
    assert store.get(key(0), [7])[7].untyped_storage().nbytes() == SIZE


@pytest.fixture(params=["none", "memory", "disk"])
def store(request, tmp_path):
    kinds = {"none": FeatureStore, "memory": lambda: MemoryStore(1 << 20, "bfloat16")}
    return kinds.get(request.param, lambda: DiskStore(tmp_path / "kept", 1 << 20, "float16"))()


def test_what_is_handed_back_is_what_is_kept(store):
    """Computing goes on with the same values, now and from the store."""
    given = made(3, 1, ("grid 2x1", 5, 6))
    used = store.put(key(0), given)
    kept = store.get(key(0), [3, 1, ("grid 2x1", 5, 6), 99])
    if store.dtype is None:
        assert same(used, given)
        assert kept == {}
    else:
        assert {str(one.dtype) for one in used.values()} == {f"torch.{store.dtype}"}
        assert same(used, kept)
        assert store.missing(key(0), [99, 1, 3, 99, ("grid 2x1", 6, 5)]) == [99, ("grid 2x1", 6, 5)]
    assert store.get(key(1), [3]) == {}
    assert store.finish() == []


def test_every_part_of_the_source_is_part_of_the_key(store):
    """But for what only tells: the model's name, and that an output (`layer`) is kept exactly or beside another."""
    if isinstance(store, (MemoryStore, DiskStore)):
        store.put(key(0), made(3))
        for field in (each for each in fields(SOURCE) if each.name not in ("exact", "beside")):
            other = (ROWS * 2, WIDTH) if field.name == "shape" else "other"
            changed = key(0, replace(SOURCE, **{field.name: other}))
            told_only = not field.compare
            assert (store.missing(changed, [3]) == []) is told_only, field.name
            assert (source_hash(changed.source, "own") == source_hash(SOURCE, "own")) is told_only
        assert source_hash(SOURCE, "own") != source_hash(SOURCE, "float16")


@pytest.mark.parametrize("dtype", ["float8", "double", 16])
def test_only_dtypes_that_are_there(dtype, tmp_path):
    for make in (lambda: MemoryStore(1, dtype), lambda: DiskStore(tmp_path, 1, dtype)):
        with pytest.raises(FeatureStoreError, match=rf"features\.dtype={dtype}: choose one of float16, bfloat16"):
            make()
    for limit in (-1, 1.5, None, True):
        with pytest.raises(FeatureStoreError, match=r"features\.limit_bytes"):
            DiskStore(tmp_path, limit)


def test_codes_and_frames_of_views():
    assert (view_code(12), frames_of(12)) == ("12", {12})
    tiled = ("image grid 3x2", 1, 4, 4, 9)
    assert frames_of(tiled) == {1, 4, 9}
    assert view_code(tiled).startswith("t")
    others = [("image grid 2x3", 1, 4, 4, 9), ("image grid 3x2", 1, 4, 9, 4)]
    assert len({view_code(view) for view in (tiled, *others)}) == 3


@pytest.fixture
def clip(tmp_path):
    write_mp4(tmp_path / "a.mp4", numbered_frames(40, 96, 96))
    return ClipJob(tmp_path / "a.mp4", "a.mp4", ("sample",))


def plan(num, reader="pyav"):
    return ReadPlan(UniformSampler(num), reader, mini_image_processor())


def dataset(clip, store, num, reader="pyav"):
    return ClipDataset([clip], plan(num, reader), store, SOURCE)


def remember(store, loaded):
    store.remember(loaded.state, loaded.digest, loaded.info)
    store.put(ClipKey(SOURCE, loaded.digest), made(*loaded.encoded))


@pytest.fixture(params=["memory", "disk"])
def keeping(request, tmp_path):
    """Opens a store: the same one each time in memory, another one on the same folder on disk."""
    kept = MemoryStore(1 << 20)
    return lambda: kept if request.param == "memory" else DiskStore(tmp_path / "kept", 1 << 20)


def fill(store, loaded):
    remember(store, loaded)
    store.finish()


def test_only_missing_frames_are_decoded(clip, keeping):
    first = dataset(clip, keeping(), 4)[0]
    assert (first.indices, first.encoded) == ([4, 14, 24, 33], [4, 14, 24, 33])
    assert first.pixels.shape == (4, 3, 96, 96)
    fill(keeping(), first)
    again = dataset(clip, keeping(), 4)
    assert not again.must_read
    assert (again[0].indices, again[0].encoded, again[0].pixels) == (first.indices, [], None)
    more = dataset(clip, keeping(), 8)
    assert more.must_read
    assert set(more[0].encoded) == set(more[0].indices) - set(first.indices)


def test_new_content_under_an_old_name_is_read_again(clip, keeping):
    first = dataset(clip, keeping(), 4)[0]
    fill(keeping(), first)
    write_mp4(clip.clip, numbered_frames(40, 96, 96)[::-1])
    second = dataset(clip, keeping(), 4)[0]
    assert second.digest != first.digest
    assert second.encoded == second.indices
    assert not np.allclose(second.pixels, first.pixels)


def test_content_of_the_same_size_is_told_apart_by_its_time(clip, keeping):
    """Written again at once, within the grain of the file system's clock."""
    content = clip.clip.read_bytes()
    first = dataset(clip, keeping(), 4)[0]
    fill(keeping(), first)
    clip.clip.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert dataset(clip, keeping(), 4)[0].digest != first.digest


def test_a_clip_that_changes_after_it_was_looked_up_is_not_taken_for_the_old_one(clip, keeping):
    first = dataset(clip, keeping(), 4)[0]
    fill(keeping(), first)
    looked_up = dataset(clip, keeping(), 8)
    write_mp4(clip.clip, numbered_frames(80, 96, 96))
    late = looked_up[0]
    assert late.digest not in ("", first.digest)
    assert late.encoded == sorted(late.indices)
    assert max(late.indices) > 40
    with pytest.raises(UnreadableClipError, match="changed while it was in use"):
        read_again(plan(4), first, [4], {})
    assert read_again(plan(4), late, late.views[:2], {}).shape[0] == 2


def test_a_clip_that_changes_while_it_is_read_is_refused(clip, monkeypatch):
    looked_up = dataset(clip, MemoryStore(0), 4)
    whole = ReadPlan.pixels

    def slowly(self, opened, views, seconds):
        clip.clip.write_bytes(clip.clip.read_bytes() + b"more")
        return whole(self, opened, views, seconds)

    monkeypatch.setattr(ReadPlan, "pixels", slowly)
    assert "changed while it was read" in looked_up[0].error


def test_length_and_timing_belong_to_the_way_of_opening(clip, keeping):
    """Another reader may count frames otherwise, and a folder's rate is a setting."""
    fill(keeping(), dataset(clip, keeping(), 4)[0])
    assert not dataset(clip, keeping(), 4).must_read
    assert dataset(clip, keeping(), 4, reader="decord").must_read


def test_a_folders_state_sees_every_file(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(bytes([number]) * 8)
    states = [file_state(folder, "pyav")]
    os.utime(folder / "0.png", ns=(1, 1))  # older, not newer
    states.append(file_state(folder, "pyav"))
    (folder / "1.png").rename(folder / "3.png")
    states.append(file_state(folder, "pyav"))
    assert len(set(states)) == 3
    assert file_state(folder, "pyav") == states[-1]
    assert file_state(tmp_path / "nothing", "pyav") is None


def test_a_fresh_file_is_waited_for(tmp_path):
    path = tmp_path / "fresh"
    path.write_bytes(b"x")
    state = file_state(path, "pyav")
    assert time.time_ns() - state.modified >= 20_000_000


def test_paths_are_absolute(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert file_state(Path("a"), "pyav") == file_state(tmp_path / "a", "pyav")


def test_pixels_are_the_processors(clip):
    loaded = dataset(clip, MemoryStore(0), 3)[0]
    bars = numbered_frames(40, 96, 96)[loaded.indices].astype(np.float32) / 255
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    expected = torch.from_numpy(((bars - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
    assert (loaded.pixels - expected).abs().mean() < 0.1


@pytest.mark.parametrize("name", ["none.mp4", "nul\0.mp4", "x" * 300 + ".mp4"])
def test_errors_travel_with_the_clip(tmp_path, name):
    loaded = dataset(ClipJob(tmp_path / name, name, ("sample",)), MemoryStore(0), 3)[0]
    assert "no such file" in loaded.error
