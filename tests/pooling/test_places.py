"""Where tokens came from, by their values: each is the patch at its place."""

import pytest
import torch

from videopool.pooling import (
    Adaptive,
    Average,
    Blind,
    NoPooling,
    Pooling,
    PoolingContractError,
    Subsample,
    TokenMerging,
    places_by,
)

GRID = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
PLACED = {
    "none": NoPooling(),
    "blind": Blind(),
    "all": Subsample(1000),
    **{mode: Subsample(17, mode) for mode in ("uniform", "random", "lowest_norm", "highest_norm")},
}


@pytest.mark.parametrize("name", PLACED)
def test_tokens_are_the_patches_at_their_places(name):
    pooling = PLACED[name]
    places, tokens = places_by(pooling, GRID), pooling(GRID)
    assert places.shape == tokens.shape[:2]
    for patches, own, kept in zip(GRID.flatten(1, 3), places, tokens, strict=True):
        assert torch.equal(kept, patches[own])
        assert own.tolist() == sorted(set(own.tolist()))


@pytest.mark.parametrize("pooling", [Average("time"), Adaptive((3, 2, 2)), TokenMerging(9)], ids=lambda one: one.label)
def test_merged_tokens_have_no_places(pooling):
    with pytest.raises(PoolingContractError, match=f"{pooling.label} have no places in the grid") as told:
        places_by(pooling, GRID)
    assert "say positions=contiguous" in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "places",
    [[[0.0, 1.0]] * 2, [[0, 60]] * 2, [[0, 1, 2]] * 2, [[0, 1]], [0, 1]],
    ids=["floats", "far", "3", "1", "flat"],
)
def test_wrong_places_of_ones_own_are_told(places):
    class Own(Pooling):
        def forward(self, grid, context=None):
            return grid.flatten(1, 3)[:, :2]

        def num_tokens(self, frames, height, width):
            return 2

        def token_places(self, grid, context=None):
            return torch.tensor(places)

    with pytest.raises(
        PoolingContractError, match=r"Own: token_places must be whole numbers below 60, \(2, 2\) of them"
    ):
        places_by(Own(), GRID)
