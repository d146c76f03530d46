"""Intervals and differences against closed forms and simulation."""

import numpy as np
import pytest
from scipy import stats

from videopool.results import mean_interval, paired_difference
from videopool.results.flips import flips
from videopool.results.power import design_effect, detectable_difference
from videopool.results.seeds import mean_over_seeds
from videopool.results.statistics import clustered_standard_error, holm


def simulate(rng, clips=60, per_clip=6, mean=0.6, spread=0.25):
    """Right or wrong answers whose chance of being right differs from clip to clip."""
    chances = np.clip(rng.normal(mean, spread, size=clips), 0.02, 0.98)
    return (rng.random((clips, per_clip)) < chances[:, None]).astype(float).ravel(), np.repeat(
        np.arange(clips), per_clip
    )


def test_interval_agrees_with_the_cluster_robust_error():
    values, clips = simulate(np.random.default_rng(0), clips=200)
    estimate = mean_interval(values, clips)
    assert estimate.value == values.mean()
    half = 1.96 * clustered_standard_error(values, clips)
    assert estimate.high - estimate.value == pytest.approx(half, rel=0.1)
    assert estimate.value - estimate.low == pytest.approx(half, rel=0.1)
    assert (estimate.n, estimate.clusters) == (1200, 200)


def test_unclustered_error_is_the_textbook_one():
    values = np.random.default_rng(1).random(500)
    expected = values.std(ddof=1) / np.sqrt(500)
    assert clustered_standard_error(values, range(500)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("clips", "per_clip"), [(12, 6), (60, 6)])
def test_coverage_and_that_naive_intervals_fail(clips, per_clip):
    rng = np.random.default_rng(clips)
    truth = np.clip(rng.normal(0.6, 0.25, size=400_000), 0.02, 0.98).mean()
    inside = naive_inside = 0
    runs = 1000 if clips < 20 else 600
    for run in range(runs):
        values, names = simulate(rng, clips, per_clip)
        estimate = mean_interval(values, names, seed=run)
        inside += estimate.low <= truth <= estimate.high
        half = 1.96 * values.std(ddof=1) / np.sqrt(values.size)
        naive_inside += abs(values.mean() - truth) <= half
    assert 0.93 <= inside / runs <= 0.97
    assert naive_inside / runs < 0.9


def two_points(rng, clips=40, effect=0.05):
    """Scores of two points whose difference varies from clip to clip, and the clips; unequally many samples on each."""
    sizes = rng.integers(1, 12, size=clips)
    names = np.repeat(np.arange(clips), sizes)
    chance = np.clip(rng.normal(0.55, 0.2, size=clips), 0.1, 0.8)[names]
    shift = (effect + rng.choice([-0.1, 0.1], size=clips))[names]
    draw = rng.random(names.size)  # shared, so that the two mostly agree
    return (draw < chance + shift).astype(float), (draw < chance).astype(float), names


def test_paired_intervals_cover_and_one_test_in_twenty_finds_what_is_not_there():
    rng = np.random.default_rng(11)
    runs, inside, claimed = 600, 0, 0
    for run in range(runs):
        first, second, names = two_points(rng, effect=0.05)
        estimate = paired_difference(first, second, names, seed=run)
        inside += estimate.low <= 0.05 <= estimate.high
        first, second, names = two_points(rng, effect=0.0)
        estimate = paired_difference(first, second, names, seed=run)
        claimed += estimate.p < 0.05
        assert (estimate.p < 0.05) == (not estimate.low <= 0 <= estimate.high) or abs(estimate.p - 0.05) < 0.01
    assert 0.93 <= inside / runs <= 0.97
    assert 0.03 <= claimed / runs <= 0.07


def test_paired_difference_uses_the_pairing():
    rng = np.random.default_rng(3)
    base, clips = simulate(rng, clips=150)
    better = np.where(rng.random(base.size) < 0.1, 1.0, base)
    estimate = paired_difference(better, base, clips)
    assert estimate.value == pytest.approx((better - base).mean())
    assert estimate.low > 0
    assert estimate.p is not None
    assert estimate.p < 0.01
    unpaired = mean_interval(base, clips)
    assert estimate.high - estimate.low < (unpaired.high - unpaired.low) / 2
    none = paired_difference(base, base, clips)
    assert (none.value, none.low, none.high, none.p) == (0.0, 0.0, 0.0, 1.0)


def test_one_clip_says_nothing_of_others():
    estimate = mean_interval([1.0, 0.0, 1.0], ["a"] * 3)
    assert estimate.value == pytest.approx(2 / 3)
    assert np.isnan(estimate.low)
    assert np.isnan(estimate.high)
    assert paired_difference([1.0, 1.0], [0.0, 0.0], ["a", "a"]).p == 1.0


def test_holm_by_hand():
    # ordered 0.01 0.02 0.03 0.04: times 4, 3, 2, 1, then never less than the one before
    assert holm([0.04, 0.01, None, 0.03, 0.02]) == pytest.approx([0.06, 0.04, None, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_false_claim():
    rng = np.random.default_rng(4)
    p = rng.random((20_000, 8))
    p[:, :2] *= 0.001  # two effects that are there
    any_false = [min(holm(row.tolist())[2:]) < 0.05 for row in p[:4000]]
    assert 0.03 < np.mean(any_false) < 0.056


def test_flips_and_mcnemar():
    rng = np.random.default_rng(5)
    first, second = ({f"q{i}": float(x) for i, x in enumerate(rng.random(300) < share)} for share in (0.6, 0.5))
    found = flips(first, second)
    assert found is not None
    only = [sum(first[q] > second[q] for q in first), sum(first[q] < second[q] for q in first)]
    assert [len(found.first), len(found.second)] == only
    assert found.both + found.neither + sum(only) == 300
    assert all(first[q] == 1 and second[q] == 0 for q in found.first)
    assert found.p == pytest.approx(stats.binomtest(only[0], sum(only)).pvalue, rel=1e-9)
    assert flips({"a": 0.5}, {"a": 1.0}) is None
    assert flips(first, first).p == 1.0


def test_the_detectable_difference_is_found_four_times_in_five():
    rng = np.random.default_rng(6)
    sizes, flipped = np.tile([2, 6, 10], 25), 0.3
    names = np.repeat(np.arange(sizes.size), sizes)
    # Half of the samples of a clip have the clip's own difference: two samples share it a quarter of the time.
    correlation = 0.25
    wanted = detectable_difference(int(sizes.sum()), design_effect(sizes.tolist(), correlation), flipped)
    odds = [(flipped + wanted) / 2, (flipped - wanted) / 2, 1 - flipped]
    found = 0
    for run in range(200):
        own, shared = (rng.choice([1, -1, 0], size=n, p=odds) for n in (names.size, sizes.size))
        difference = np.where(rng.random(names.size) < 0.5, shared[names], own).astype(float)
        found += paired_difference(difference, np.zeros(names.size), names, seed=run).p < 0.05
    assert 0.71 < found / 200 < 0.89
    assert design_effect([5] * 40, 0.3) == pytest.approx(1 + 4 * 0.3)
    assert design_effect([1] * 40, 0.3) == pytest.approx(1.0)
    assert detectable_difference(1000, 1.0, 0.2, comparisons=20) > detectable_difference(1000, 1.0, 0.2)


def test_seeds_are_a_source_of_chance_of_their_own():
    rng = np.random.default_rng(7)
    clips, per_clip, seeds, runs = 40, 5, 4, 500
    names = np.repeat(np.arange(clips), per_clip)
    inside = clips_only = 0
    for run in range(runs):
        of_clip = rng.normal(0, 0.2, size=clips)[names]
        scores = {
            seed: (0.6 + rng.normal(0, 0.05) + of_clip + rng.normal(0, 0.3, size=names.size)).tolist()
            for seed in range(seeds)
        }
        estimate = mean_over_seeds(scores, names)
        inside += estimate.low <= 0.6 <= estimate.high
        one = mean_interval(scores[0], names, seed=run)
        clips_only += one.low <= 0.6 <= one.high
    assert 0.93 <= inside / runs <= 0.98
    assert clips_only / runs < 0.9  # a single seed's interval does not know of other seeds
    with pytest.raises(ValueError, match="two seeds"):
        mean_over_seeds({0: [1.0, 0.0]}, ["a", "b"])


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([], [])
    with pytest.raises(ValueError, match="same samples"):
        paired_difference([1.0], [1.0, 0.0], ["a", "b"])
