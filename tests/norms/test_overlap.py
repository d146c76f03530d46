"""What poolings do with outliers, against plain loops, and fates of patches under poolings of every kind."""

import numpy as np
import pytest
import scipy.stats
import torch

from videopool.config.build import build
from videopool.measuring.meter import fates_of
from videopool.norms import ClipNorms, Overlap
from videopool.pooling import (
    Adaptive,
    AttentionResampler,
    Average,
    Blind,
    Chain,
    NoPooling,
    PoolingContext,
    PoolingContractError,
    ShuffleSpace,
    ShuffleTime,
    SlowFast,
    Strided,
    Subsample,
)

RULES = ("times_median", "phi")


def drawn(rng, count, broken=()):
    valid = np.ones(count, bool)
    valid[list(broken)] = False
    outliers = {rule: valid & (rng.random(count) < 0.4) for rule in RULES}
    return ClipNorms(np.where(valid, rng.random(count), np.nan), valid, outliers, rng.random(count))


def top(values, count):
    return set(sorted(range(len(values)), key=lambda n: -values[n])[:count])


def test_fates_of_outliers_against_plain_loops():
    rng, overlap = np.random.default_rng(3), Overlap(RULES)
    clips = []
    for size, tasks in ((13, ("a",)), (5, ("a", "b")), (1, ()), (20, ("b",))):
        clips.append((rng.integers(0, 3, size), drawn(rng, size, [2] * (size > 9)), rng.random(size), tasks))
        overlap.add(*clips[-1])
    numbers = overlap.numbers()
    assert set(numbers) == {"", "a", "b"}
    for task, found in numbers.items():
        own = [(fates[c.valid], c, s) for fates, c, s, tasks in clips if not task or task in tasks]
        assert found["clips"] == len(own)
        for number, fate in enumerate(("dropped", "merged", "kept")):
            patches = sum(len(fates) for fates, _, _ in own)
            assert found[fate] == pytest.approx(sum(list(fates).count(number) for fates, _, _ in own) / patches)
            for rule in RULES:
                marks = [c.outliers[rule][c.valid] for _, c, _ in own]
                hits = sum(int(f == number and m) for (fates, _, _), mark in zip(own, marks, strict=True)
                           for f, m in zip(fates, mark, strict=True))  # fmt: skip
                chance = sum(list(fates).count(number) / len(fates) * sum(mark)
                             for (fates, _, _), mark in zip(own, marks, strict=True))  # fmt: skip
                count = sum(map(sum, marks))
                assert found["outliers"][rule]["count"] == count
                assert found["outliers"][rule][fate] == pytest.approx(hits / count)
                assert found["outliers"][rule][f"{fate}_by_chance"] == pytest.approx(chance / count)
        jaccards, correlations, chances = [], [], []
        for fates, clip, saliency in own:
            norms, kept = clip.norms[clip.valid], {n for n, f in enumerate(fates) if f == 2}
            if len(fates) > 1 and len(set(fates)) > 1:
                correlations.append(scipy.stats.spearmanr(norms, fates).statistic)
            if 0 < len(kept) < len(fates):
                norm = top(norms, len(kept))
                jaccards.append((len(norm & kept) / len(norm | kept), len(norm & top(saliency[clip.valid], len(kept)))))
                both = len(kept) ** 2 / len(fates)
                chances.append(both / (2 * len(kept) - both))
        agreement = found["agreement"]
        assert agreement["norm-kept"]["jaccard"] == pytest.approx(np.mean([one for one, _ in jaccards]))
        assert agreement["norm-kept"]["spearman"] == pytest.approx(np.mean(correlations))
        assert agreement["norm-saliency"]["jaccard"] is not None
        assert found["jaccard_by_chance"] == pytest.approx(np.mean(chances))


def test_without_saliency_or_clips_nothing_is_made_up():
    overlap, rng = Overlap(RULES), np.random.default_rng(0)
    assert overlap.numbers() == {}
    overlap.add(np.full(7, 1), drawn(rng, 7))  # all merged: nothing agrees or disagrees
    (whole,) = overlap.numbers().values()
    assert whole["agreement"]["norm-saliency"] == {"spearman": None, "jaccard": None}
    assert whole["agreement"]["norm-kept"] == {"spearman": None, "jaccard": None}
    assert (whole["kept"], whole["merged"], whole["jaccard_by_chance"]) == (0, 1, None)


@pytest.mark.parametrize(
    "pooling",
    [
        NoPooling(), Blind(), Average("time"), Adaptive((2, 2, 3)), Strided(3), Subsample(7), ShuffleTime(),
        ShuffleSpace(),
        SlowFast(1, NoPooling(), Adaptive((3, 1, 1))), Chain([ShuffleSpace(), Strided(2)]),
    ],
    ids=lambda pooling: pooling.label,
)  # fmt: skip
def test_fates_under_poolings(pooling):
    """A patch is in a token if it changes it; kept, if a token changes with no other patch."""
    grid = torch.randn(1, 3, 3, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.inference_mode():
        fates = fates_of(pooling, grid, PoolingContext())
        tokens = pooling(grid)
        changes = []
        for place in np.ndindex(3, 3, 5):
            moved = grid.clone()
            moved[0][place] *= 1.001
            changes.append((pooling(moved) != tokens).any(-1)[0].numpy())
    changes = np.array(changes)  # [patches, N]
    alone = changes[:, changes.sum(0) == 1].any(1)
    expected = np.where(alone, 2, np.where(changes.any(1), 1, 0)) if changes.size else np.zeros(45)
    np.testing.assert_array_equal(fates, expected)
    assert fates.dtype.kind == "i"


COMPRESSED = {
    "even": [],
    "visionzip": ["pooling.selector.kind=norm", "pooling.merger.by=features"],
    "dtd": [],
    "framefusion": [],
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_fates_under_compressions(name, hydra_conf):
    """Kept are the places that a compression tells; of the others, merged are those on which a token depends."""
    pooling = build(hydra_conf(f"pooling={name}", "pooling.share=0.4", *COMPRESSED[name]), "pooling", ("stage",))
    grid = torch.randn(1, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        fates = fates_of(pooling, grid, PoolingContext())
    places = pooling.token_places(grid)[0]
    slopes = torch.autograd.functional.jacobian(pooling, grid.clone())  # [1, N, D, 1, T, H, W, D]
    depends = slopes.abs().sum(dim=(0, 1, 2, 3, -1)).flatten() > 0
    expected = np.where(depends.numpy(), 1, 0)
    expected[places.numpy()] = 2
    np.testing.assert_array_equal(fates, expected)
    assert 2 in fates


def test_tokens_that_mix_features_are_refused():
    pooling = AttentionResampler(queries=4, dim=6, heads=1, head_dim=3, depth=1)
    with torch.inference_mode(), pytest.raises(PoolingContractError, match="cannot be traced to patches") as caught:
        fates_of(pooling, torch.randn(1, 3, 3, 5, 6), PoolingContext())
    assert "\n" not in str(caught.value)
