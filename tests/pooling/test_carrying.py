"""Other levels of features are pooled by the map that a pooling takes at the main ones."""

import re

import pytest
import torch
from torch.nn import functional

from composed import composed
from videopool.config.build import build_pooling
from videopool.paths import shipped
from videopool.pooling import (
    ClipNorm,
    DropOutliers,
    NormWeighted,
    Pooling,
    PoolingContext,
    PoolingContractError,
    RescaleNorm,
    TextGuided,
    random_input,
)
from videopool.pooling.carrying import carried, check_map

SIZE, LARGE = (6, 6, 6), (17, 13, 13)  # the latter of poolings to a shape that is as large by default
NAMES = sorted(path.stem for path in (shipped("conf") / "pooling").glob("*.yaml"))
# Each feature chooses its patches by itself, or features are mixed.
NO_MAP = {"attention_resampler", "chain", "generalised_mean", "horizontal", "median", "slowfast", "trimmed_mean"}
MADE = {"frame_cls", "inject_outliers"}  # tokens that are not of patches are among them


def pooling_of(name):
    return build_pooling(composed(f"pooling={name}", *(["pooling.share=0.5"] if name == "dycoke" else [])))


@pytest.fixture(scope="module")
def given():
    """Poolings by name, with a grid, its context, and a level."""

    def make(name):
        pooling = pooling_of(name)
        draw, grid, context = random_input(pooling, *(LARGE if name in NO_MAP or "weighted" in name else SIZE))
        return pooling, grid, context, draw(*grid.shape).to(grid) - 0.5

    return make


@pytest.mark.parametrize("name", NAMES)
def test_every_pooling_carries_levels_or_says_that_it_cannot(given, name):
    """Carried by its own map, the main grid becomes the tokens; a level's part of it that part."""
    pooling, grid, context, level = given(name)
    if name in NO_MAP:
        with pytest.raises(PoolingContractError, match=rf"pooling {re.escape(pooling.label)}.*this pooling has none"):
            check_map(pooling, grid, context)
        return
    check_map(pooling, grid, context)
    thumbnails = [] if context.thumbnail is None else [context.thumbnail, 2 * context.thumbnail, context.thumbnail]
    own, twice, other = carried(pooling, grid, context, [grid, 2 * grid, level], thumbnails)
    tokens = pooling(grid, context)
    assert other.shape == tokens.shape
    torch.testing.assert_close(twice, 2 * own)
    if name not in MADE:
        torch.testing.assert_close(own, tokens)


class OwnMean(Pooling):
    """A pooling of a user's, whose weights follow the features."""

    def forward(self, grid, context=None):
        tokens = grid.flatten(1, 3)
        return (tokens * tokens.norm(dim=-1, keepdim=True).softmax(1)).sum(1, keepdim=True)

    def num_tokens(self, frames, height, width):
        return 1


def test_weights_that_follow_the_features_are_those_of_the_main_grid():
    """Norms, likeness to the prompt and thresholds: loops that write the weights down."""
    draw = torch.Generator().manual_seed(0)
    grid, level = (torch.randn(1, 2, 4, 4, 5, dtype=torch.float64, generator=draw) for _ in range(2))
    text = torch.randn(1, 5, dtype=torch.float64, generator=draw)
    norms, context = grid.norm(dim=-1, keepdim=True), PoolingContext()
    own = carried(NormWeighted(shape=(1, 2, 2)), grid, context, [level])[0].view(4, 5)
    shares = (functional.normalize(grid, dim=-1) @ text[0] * 100 / text.norm()).flatten().softmax(0).view(2, 4, 4, 1)
    asked = carried(TextGuided((1, 2, 2)), grid, PoolingContext(text=text), [level])[0].view(4, 5)
    for cell, (row, column) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
        window = (slice(None), slice(row, row + 2), slice(column, column + 2))
        values = level[0][window].flatten(0, 2)
        weights = (norms[0][window].flatten() / 5**0.5).softmax(0)
        torch.testing.assert_close(own[cell], weights @ values)
        torch.testing.assert_close(asked[cell], (shares[window].flatten() / 0.01).softmax(0) @ values)
    for pooling, factors in (
        (RescaleNorm(2.0), 2 / norms), (ClipNorm(1.5), (1.5 / norms).clamp(max=1)),
        (ClipNorm(quantile=0.5), (norms.quantile(0.5) / norms).clamp(max=1)),
    ):  # fmt: skip
        (found,) = carried(pooling, grid, context, [level])
        torch.testing.assert_close(found, (level * factors).flatten(1, 3))
    with pytest.raises(PoolingContractError, match="this pooling has none"):
        check_map(OwnMean(), grid, context)


def test_dropped_outliers_are_dropped_in_each_level():
    """Of a frame's patch the mean of its neighbours, whatever the level holds there."""
    grid = torch.ones(1, 1, 3, 3, 4, dtype=torch.float64)
    grid[0, 0, 1, 1] = 100.0
    level = torch.arange(9.0, dtype=torch.float64).view(1, 1, 3, 3, 1).expand(-1, -1, -1, -1, 4)
    (found,) = carried(DropOutliers(), grid, PoolingContext(), [level])
    assert found[0, :, 0].tolist() == [0, 1, 2, 3, (36 - 4) / 8, 5, 6, 7, 8]


def test_gradients_of_weights_stay():
    grid = torch.randn(1, 1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(NormWeighted(shape=(1, 1, 1)), grid)
