"""The mark of time against plain loops in float64."""

import math

import numpy as np
import pytest
import torch

from videopool.pooling import (
    Adaptive,
    Average,
    Chain,
    FrameTime,
    NoPooling,
    PoolingContractError,
    PoolingShapeError,
    ShuffleTime,
    checked,
    map_signature,
)

GRIDS = [(1, 1, 1), (1, 5, 7), (3, 4, 6), (16, 1, 5), (2, 7, 3)]


def random_grid(size, dim=6, batch=2):
    return torch.from_numpy(np.random.default_rng(0).standard_normal((batch, *size, dim)) * 3)


def directions(dim, seed):
    """u and v out of the marks of one and two frames: at a half of the turn, and at a quarter and three quarters."""
    v = FrameTime(seed=seed).code(1, dim)[0]
    early, late = FrameTime(seed=seed).code(2, dim)
    return ((early - late) / (2 * math.cos(math.pi / 4))).numpy(), v.numpy()


@pytest.mark.parametrize("size", GRIDS, ids=str)
@pytest.mark.parametrize(("scale", "seed"), [(0.5, 0), (2.0, 3), (0.0, 0)])
def test_equals_its_definition(size, scale, seed):
    grid = random_grid(size)
    u, v = directions(6, seed)
    assert u @ u == pytest.approx(1)
    assert v @ v == pytest.approx(1)
    assert u @ v == pytest.approx(0, abs=1e-12)
    expected = grid.numpy().copy()
    for clip in expected:
        norms = [math.sqrt(sum(x * x for x in token)) for token in clip.reshape(-1, 6)]
        mean = sum(norms) / len(norms)
        for t in range(size[0]):
            turn = math.pi * (t + 0.5) / size[0]
            clip[t] += scale * mean * (math.cos(turn) * u + math.sin(turn) * v)
    given = grid.clone()
    got = FrameTime(scale, seed).pool(grid)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(grid, given)
    assert torch.equal(checked(FrameTime(scale, seed), grid), got.flatten(1, 3))


def test_properties():
    pooling, grid = FrameTime(), random_grid((5, 3, 4))
    marked = pooling.pool(grid)
    torch.testing.assert_close(torch.cat([pooling.pool(grid[:1]), pooling.pool(grid[1:])]), marked)
    torch.testing.assert_close(pooling.pool(2.5 * grid), 2.5 * marked)
    half = pooling.pool(grid.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), pooling.pool(grid.bfloat16().double()), rtol=0.01, atol=0.02)
    assert torch.autograd.gradcheck(pooling.pool, (random_grid((3, 2, 2), dim=3).requires_grad_(),))
    zeros = torch.zeros(1, 2, 2, 2, 3, requires_grad=True)
    pooling.pool(zeros).sum().backward()
    assert zeros.grad.isfinite().all()


def test_time_can_be_told_where_it_could_not():
    """Frames in another order have another mean over pairs; over all of time the mark is a constant."""
    grid = random_grid((4, 2, 2), batch=1)
    pairs, whole = Adaptive((2, None, None)), Average("time")
    still = grid[:, :1].expand(-1, 4, -1, -1, -1)
    early, late = Chain([FrameTime(), pairs])(still).view(2, 4, 6)
    assert torch.linalg.vector_norm(early - late, dim=-1).min() > 0.5
    assert torch.equal(*pairs(still).view(2, 4, 6))
    backwards = ShuffleTime(0).pool(grid)
    torch.testing.assert_close(whole(FrameTime().pool(grid)), whole(FrameTime().pool(backwards)))


def test_what_is_wrong_is_said():
    with pytest.raises(PoolingShapeError, match=r"pooling\.scale must be a number of at least 0, got -1"):
        FrameTime(-1)
    with pytest.raises(PoolingShapeError, match=r"pooling\.seed"):
        FrameTime(seed=-1)
    with pytest.raises(PoolingContractError, match="turns in a plane, but the grid's dim is 1"):
        FrameTime()(torch.zeros(1, 2, 2, 2, 1))


def test_labels_and_signatures():
    assert [FrameTime().label, FrameTime(2, 1).label] == ["frame time 0.5", "frame time 2 seed 1"]
    found = [str(map_signature(p, 4, 4, 6)) for p in (NoPooling(), FrameTime(), FrameTime(seed=1), FrameTime(1))]
    assert len(set(found)) == 4
    assert str(map_signature(FrameTime(0), 4, 4, 6)) == found[0]
