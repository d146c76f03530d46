"""Poolings against plain loops in float64, and their contract."""

import math

import numpy as np
import pytest
import torch

from videopool.pooling import (
    Adaptive,
    Average,
    Blind,
    Chain,
    GridPooling,
    NoPooling,
    Pooling,
    PoolingContractError,
    PoolingShapeError,
    checked,
    map_signature,
)

GRIDS = [(1, 1, 1), (1, 5, 7), (16, 12, 12), (3, 24, 24), (8, 4, 6), (5, 1, 9)]
SHAPES = [(1, 1, 1), (4, 6, 6), (16, 12, 12), (3, 5, 2), (None, 3, 3), (2, None, None), (100, 7, 100)]


def random_grid(size, batch=2, dim=3, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((batch, *size, dim)))


def adaptive_by_loops(grid, shape, mode):
    """Each output cell from its definition; an axis shorter than asked is kept."""
    array = grid.numpy()
    batch, *size, dim = array.shape
    out = [s if a is None else min(a, s) for a, s in zip(shape, size, strict=True)]
    result = np.zeros((batch, *out, dim))
    for t in range(out[0]):
        for y in range(out[1]):
            for x in range(out[2]):
                cells = []
                for a in range(math.floor(t * size[0] / out[0]), math.ceil((t + 1) * size[0] / out[0])):
                    for b in range(math.floor(y * size[1] / out[1]), math.ceil((y + 1) * size[1] / out[1])):
                        for c in range(math.floor(x * size[2] / out[2]), math.ceil((x + 1) * size[2] / out[2])):
                            cells.append(array[:, a, b, c])
                stacked = np.stack(cells)
                result[:, t, y, x] = stacked.mean(0) if mode == "avg" else stacked.max(0)
    return torch.from_numpy(result).flatten(1, 3)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_adaptive_equals_its_definition(size, shape, mode):
    grid = random_grid(size)
    pooling = Adaptive(shape, mode)
    tokens = checked(pooling, grid)
    torch.testing.assert_close(tokens, adaptive_by_loops(grid, shape, mode), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_average_adaptive_equals_torch(size):
    """Where every axis is at least as long as asked, this is torch's own operator."""
    grid = random_grid(size)
    shape = tuple(max(1, s // 2) for s in size)
    expected = torch.nn.functional.adaptive_avg_pool3d(grid.movedim(-1, 1), shape).movedim(1, -1).flatten(1, 3)
    torch.testing.assert_close(Adaptive(shape)(grid), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_average_equals_its_definition(size):
    grid = random_grid(size)
    array = grid.numpy()
    expected = {"time": array.mean(1).reshape(2, -1, 3), "space": array.mean((2, 3)), "both": array.mean((1, 2, 3))}
    for axis, value in expected.items():
        tokens = checked(Average(axis), grid)
        np.testing.assert_allclose(tokens.numpy(), value.reshape(2, -1, 3), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_oracles(size):
    """Maps that must coincide."""
    grid = random_grid(size)
    frames, height, width = size
    none = NoPooling()(grid)
    assert torch.equal(none, grid.reshape(2, -1, 3))
    assert torch.equal(Adaptive((frames, height, width))(grid), none)
    assert torch.equal(Adaptive((None, None, None))(grid), none)
    torch.testing.assert_close(Average("time")(grid), Adaptive((1, height, width))(grid))
    torch.testing.assert_close(Average("both")(grid), Adaptive((1, 1, 1))(grid))


def test_chain_is_one_after_another():
    grid = random_grid((16, 12, 12))
    chain = Chain([Adaptive((None, 6, 6)), Adaptive((4, None, None))])
    torch.testing.assert_close(checked(chain, grid), Adaptive((4, 6, 6))(grid))
    assert chain.num_tokens(16, 12, 12) == 4 * 36
    assert chain.windows(16, 12, 12)["steps"][1]["frames"] == [(0, 4), (4, 8), (8, 12), (12, 16)]
    with pytest.raises(PoolingShapeError):
        Chain([])
    with pytest.raises(PoolingContractError, match="Linear"):
        Chain([torch.nn.Linear(1, 1)])


def test_blind_leaves_nothing_and_still_has_gradients():
    grid = random_grid((5, 3, 4)).requires_grad_()
    tokens = checked(Blind(), grid)
    assert tokens.shape == (2, 0, 3)
    assert Blind().num_tokens(5, 3, 4) == 0
    tokens.sum().backward()
    assert torch.equal(grid.grad, torch.zeros_like(grid))
    assert map_signature(Blind(), 5, 3, 4) != map_signature(NoPooling(), 5, 3, 4)


def test_a_short_clip_keeps_all_its_frames_once():
    grid = random_grid((5, 12, 12))
    tokens = Adaptive((16, 6, 6))(grid)
    assert tokens.shape[1] == 5 * 36 == Adaptive((16, 6, 6)).num_tokens(5, 12, 12)
    torch.testing.assert_close(tokens, Adaptive((5, 6, 6))(grid))


@pytest.mark.parametrize("pooling", [NoPooling(), Average("time"), Adaptive((3, 5, 2)), Adaptive((3, 5, 2), "max")])
def test_properties(pooling):
    grid = random_grid((7, 6, 5))
    tokens = pooling(grid)
    torch.testing.assert_close(pooling(2.5 * grid), 2.5 * tokens)  # scale goes through
    torch.testing.assert_close(torch.cat([pooling(grid[:1]), pooling(grid[1:])]), tokens)  # no mixing in a batch
    mixed = grid[..., [2, 0, 1]]
    torch.testing.assert_close(pooling(mixed), tokens[..., [2, 0, 1]])  # features are pooled each alone
    half = pooling(grid.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), tokens, rtol=0.03, atol=0.03)
    small = random_grid((3, 4, 2), batch=1, dim=2).requires_grad_()
    assert torch.autograd.gradcheck(pooling, (small,))


@pytest.mark.parametrize(
    "shape", [[0, 6, 6], [-1, 6, 6], [6, 6], [1, 2, 3, 4], [1.5, 2, 2], "666", [True, 2, 2], 6, ["a", 1, 1]]
)
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(PoolingShapeError, match="three positive integers"):
        Adaptive(shape)


def test_wrong_names_are_refused():
    with pytest.raises(PoolingShapeError, match="choose one of avg, max"):
        Adaptive((1, 1, 1), mode="median")
    with pytest.raises(PoolingShapeError, match="choose one of time, space, both"):
        Average("width")


def test_a_pooling_that_breaks_its_contract_is_named():
    class Liar(Pooling):
        def forward(self, grid, context=None):
            return grid.flatten(1, 3)[:, :3]

        def num_tokens(self, frames, height, width):
            return 4

    with pytest.raises(PoolingContractError, match=r"Liar returned \(2, 3, 3\)"):
        checked(Liar(), random_grid((2, 2, 2)))


def test_signature_tells_equal_maps_from_different_ones():
    size = (4, 12, 12)
    same = [Adaptive((4, 6, 6)), Adaptive((16, 6, 6)), Adaptive((None, 6, 6)), Chain([Adaptive((None, 6, 6))])]
    assert len({str(map_signature(p, *size)) for p in same}) == 1
    other = [NoPooling(), Average("time"), Adaptive((4, 6, 6), "max"), Adaptive((2, 6, 6)), same[0]]

    class Reversed(GridPooling):
        def pool(self, grid, context=None):
            return grid.flip(1)

        def out_shape(self, frames, height, width):
            return frames, height, width

    assert len({str(map_signature(p, *size)) for p in [*other, Reversed()]}) == 6
