"""Intervals and differences against closed forms and simulation."""

import numpy as np
import pytest

from videopool.results import mean_interval, paired_difference
from videopool.results.statistics import clustered_standard_error


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


def test_coverage_and_that_naive_intervals_fail():
    rng = np.random.default_rng(2)
    truth = np.clip(rng.normal(0.6, 0.25, size=400_000), 0.02, 0.98).mean()
    inside = naive_inside = 0
    runs = 400
    for _ in range(runs):
        values, clips = simulate(rng)
        estimate = mean_interval(values, clips)
        inside += estimate.low <= truth <= estimate.high
        naive = mean_interval(values, range(len(values)))
        naive_inside += naive.low <= truth <= naive.high
    assert 0.92 <= inside / runs <= 0.98
    assert naive_inside / runs < 0.9


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


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([], [])
    with pytest.raises(ValueError, match="same samples"):
        paired_difference([1.0], [1.0, 0.0], ["a", "b"])
