"""The store in memory, and reading ahead only what it lacks."""

import numpy as np
import pytest
import torch

from conftest import numbered_frames
from videopool.features import ClipDataset, ClipJob, LoadPlan, MemoryStore
from videopool.shapes.clips import write_mp4
from videopool.shapes.mini import mini_image_processor
from videopool.video import UniformSampler


def grid(value, cells=10):
    return torch.full((1, cells, 1), float(value))


def test_least_recently_used_frames_go_first():
    store = MemoryStore(limit_bytes=3 * grid(0).nbytes)
    for name in "abc":
        store.put(name, grid(ord(name)))
    assert store.get("a") is not None  # used again
    store.put("d", grid(4))
    assert store.get("b") is None
    assert [store.get(name) is not None for name in "acd"] == [True, True, True]
    assert store.bytes == 3 * grid(0).nbytes
    store.put("a", grid(9))  # replaced, not counted twice
    assert store.bytes == 3 * grid(0).nbytes
    assert float(store.get("a")[0, 0, 0]) == 9
    store.put("huge", grid(1, cells=1000))
    assert store.get("huge") is None
    assert store.get("d") is not None


@pytest.fixture
def clip(tmp_path):
    write_mp4(tmp_path / "a.mp4", numbered_frames(40, 96, 96))
    return ClipJob(tmp_path / "a.mp4", "a.mp4", ("sample",))


def dataset(clip, store, num):
    plan = LoadPlan(UniformSampler(num), "pyav", mini_image_processor())
    return ClipDataset([clip], plan, store, lambda digest, index: (digest, index))


def remember(store, loaded):
    store.remember(loaded.state, loaded.digest, loaded.info)
    for index in loaded.encoded:
        store.put((loaded.digest, index), grid(index))


def test_only_missing_frames_are_decoded(clip):
    store = MemoryStore(1 << 20)
    first = dataset(clip, store, 4)[0]
    assert (first.indices, first.encoded) == ([4, 14, 24, 33], [4, 14, 24, 33])
    assert first.pixels.shape == (4, 3, 96, 96)
    remember(store, first)
    again = dataset(clip, store, 4)
    assert not again.must_read
    assert (again[0].indices, again[0].encoded, again[0].pixels) == (first.indices, [], None)
    more = dataset(clip, store, 8)
    assert more.must_read
    assert set(more[0].encoded) == set(more[0].indices) - set(first.indices)


def test_new_content_under_an_old_name_is_read_again(clip):
    store = MemoryStore(1 << 20)
    first = dataset(clip, store, 4)[0]
    remember(store, first)
    write_mp4(clip.clip, numbered_frames(40, 96, 96)[::-1])
    second = dataset(clip, store, 4)[0]
    assert second.digest != first.digest
    assert second.encoded == second.indices
    assert not np.allclose(second.pixels, first.pixels)


def test_pixels_are_the_processors(clip):
    loaded = dataset(clip, MemoryStore(0), 3)[0]
    bars = numbered_frames(40, 96, 96)[loaded.indices].astype(np.float32) / 255
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    expected = torch.from_numpy(((bars - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
    assert (loaded.pixels - expected).abs().mean() < 0.1


def test_errors_travel_with_the_clip(tmp_path):
    loaded = dataset(ClipJob(tmp_path / "none.mp4", "none.mp4", ("sample",)), MemoryStore(0), 3)[0]
    assert "no such file" in loaded.error
