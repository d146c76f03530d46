"""What tokens are made of, held against maps found by other means: by pooling indicators, or by counting."""

import numpy as np
import pytest
import torch

from videopool.pooling import (
    Adaptive,
    AttentionResampler,
    Average,
    Blind,
    Chain,
    DropOutliers,
    DualMean,
    FrameCls,
    GridPyramid,
    Horizontal,
    InjectOutliers,
    NoPooling,
    NormWeighted,
    Pooling,
    PoolingContext,
    PoolingContractError,
    RescaleNorm,
    ShuffleSpace,
    ShuffleTime,
    SlowFast,
    Strided,
    Subsample,
    ThumbnailSampling,
    TokenMerging,
)
from videopool.pooling.tracing import PatchTrace

SIZE = (5, 6, 8)
PATCHES = 5 * 6 * 8
DIM = 32


def made_grid(dim=DIM, seed=0):
    return torch.randn(1, *SIZE, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def indicators():
    """[T, H, W, P]: each patch has a channel of its own."""
    return torch.eye(PATCHES, dtype=torch.float64).view(*SIZE, PATCHES)


def weights_of(pooling):
    """W [N, P] of a linear pooling: what it makes of indicators."""
    return pooling(indicators()[None])[0]


def rows(weights):
    return weights / weights.sum(1, keepdim=True)


LINEAR = [
    NoPooling(),
    Adaptive([2, 4, 5]),  # windows overlap
    Adaptive([7, None, None], expand=True),
    Average("space"),
    Strided(4),  # a remainder is lost
    Strided(3, "bilinear"),
    Horizontal("avg"),
    SlowFast(2, Horizontal("avg"), Adaptive([None, 2, 2])),
    DualMean(),
    GridPyramid([4], [1]),
    Subsample(37),
    ShuffleTime(),
    Chain([ShuffleSpace(), Adaptive([2, 3, 3])]),
]


@pytest.mark.parametrize("pooling", LINEAR, ids=lambda pooling: pooling.label)
def test_averages_and_selections_are_traced_exactly(pooling):
    trace, expected = PatchTrace(pooling, made_grid()), weights_of(pooling)
    assert trace.read.all()
    torch.testing.assert_close(trace.of_tokens(indicators()), rows(expected))
    torch.testing.assert_close(trace.tokens, pooling(made_grid())[0])
    values = torch.rand(len(expected), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    part = expected.sum(0)
    means = (expected.T @ values) / part[:, None]
    means[part == 0] = torch.nan
    torch.testing.assert_close(trace.of_patches(values).view(PATCHES, 2), means, equal_nan=True)


def test_of_a_maximum_each_patch_has_the_share_of_features_that_it_wins():
    grid = made_grid(64)
    found = PatchTrace(Adaptive([None, 3, 4], "max"), grid).of_tokens(indicators()).view(5, 3, 4, *SIZE)
    for frame, row, col in np.ndindex(5, 3, 4):
        window = grid[0, frame, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2].flatten(0, 1)  # [4, D]
        wins = torch.bincount(window.argmax(0), minlength=4) / 64
        own = found[frame, row, col]
        torch.testing.assert_close(
            own[frame, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2].flatten(), wins.to(own), atol=1e-12, rtol=0
        )
        assert own.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "pooling",
    [TokenMerging(9), TokenMerging(20, within="clip"), Subsample(25, "highest_norm"), Chain([DropOutliers(1.2)])],
    ids=lambda pooling: pooling.label,
)
def test_what_tokens_are_made_of_makes_them(pooling):
    grid = made_grid()
    trace = PatchTrace(pooling, grid)
    made_of = trace.of_tokens(indicators())  # which patches, depends on the features
    assert (made_of > -1e-12).all()
    torch.testing.assert_close(made_of @ grid.view(PATCHES, DIM), pooling(grid)[0])


def test_weights_that_depend_on_norms_are_found_but_for_noise():
    grid = made_grid(512)
    grid[0, ::2] *= 2
    pooling = NormWeighted(shape=[1, 3, 4])
    norms = grid[0].norm(dim=-1) / 512**0.5
    expected = torch.zeros(12, PATCHES, dtype=torch.float64)
    for cell, (row, col) in enumerate(np.ndindex(3, 4)):
        window = torch.zeros(SIZE, dtype=torch.bool)
        window[:, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2] = True
        expected[cell, window.flatten()] = norms[window].softmax(0)
    torch.testing.assert_close(PatchTrace(pooling, grid).of_tokens(indicators()), expected, atol=0.01, rtol=0)


def test_scales_do_not_count():
    grid = made_grid(256)
    trace = PatchTrace(Chain([RescaleNorm(7), NoPooling()]), grid)
    torch.testing.assert_close(trace.of_tokens(indicators()), torch.eye(PATCHES, dtype=torch.float64), atol=0.1, rtol=0)


def test_tokens_of_something_else_are_told_and_their_patches_left_blank():
    grid = made_grid(256)
    context = PoolingContext(cls=made_grid(256, 1)[:, :, 0, 0], thumbnail=made_grid(256, 2)[:, 0])
    assert PatchTrace(FrameCls(NoPooling()), grid, context).read.view(5, 49).tolist() == 5 * [[False] + 48 * [True]]
    assert PatchTrace(ThumbnailSampling(2, 2, 30), grid, context).read.tolist() == 48 * [False] + 30 * [True]
    pooling = InjectOutliers(fraction=0.1, mode="direction")
    trace = PatchTrace(pooling, grid)
    blank = trace.of_patches(torch.ones(PATCHES, 1))[..., 0].isnan()
    assert torch.equal(blank, pooling.places(*SIZE))
    assert trace.of_tokens(indicators()).isnan().any(dim=1).view(SIZE).equal(blank)


class Detached(Pooling):
    def forward(self, grid, context=None):
        return torch.from_numpy(grid.detach().numpy()).flatten(1, 3)

    def num_tokens(self, frames, height, width):
        return frames * height * width


class Reversed(Detached):
    def forward(self, grid, context=None):
        return grid.flip(-1).flatten(1, 3)


@pytest.mark.parametrize(
    "pooling", [AttentionResampler(8, DIM), Detached(), Reversed()], ids=lambda pooling: type(pooling).__name__
)
def test_what_mixes_features_or_cannot_be_followed_is_refused(pooling):
    with pytest.raises(PoolingContractError, match="cannot be traced to patches feature by feature"):
        PatchTrace(pooling, made_grid())
    with pytest.raises(PoolingContractError, match="blind leaves no visual tokens that could be shown"):
        PatchTrace(Blind(), made_grid())
