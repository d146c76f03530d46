"""Several sources side by side in one store."""

from dataclasses import replace

import pytest
import torch

from made_features import ROWS, SOURCE, WIDTH, key, made
from videopool.features import DiskStore, JointStore, MemoryStore

OTHER = replace(SOURCE, layer="-3", shape=(ROWS, 2))


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    return MemoryStore(10**6) if request.param == "memory" else DiskStore(tmp_path / "features", 10**9, "float16")


def test_parts_are_shared_with_whoever_needs_one(store):
    joint, clip = JointStore(store, [SOURCE, OTHER]), key("a")
    first = store.put(clip, made(0, 1))
    assert joint.missing(clip, [1, 0, 2, 1]) == [1, 0, 2]
    assert joint.get(clip, [0, 1]) == {}
    whole = {view: torch.cat([values, torch.ones(ROWS, 2)], dim=-1) for view, values in made(0, 2).items()}
    kept = joint.put(clip, whole)
    assert joint.missing(clip, [1, 0, 2]) == [1]
    found = joint.get(clip, [0, 1, 2])
    assert found.keys() == {0, 2}
    for view in found:
        assert torch.equal(found[view], kept[view])  # what comes back first is what is kept
        assert torch.equal(store.get(clip, [view])[view], found[view][:, :WIDTH])
        assert torch.equal(store.get(replace(clip, source=OTHER), [view])[view], found[view][:, WIDTH:])
    assert torch.equal(found[0][:, :WIDTH], first[0])
