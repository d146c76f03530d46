"""Intervals and differences against closed forms and simulation."""

import numpy as np
import pytest
from scipy import stats

import simulation
from videopool.results import mean_interval, paired_difference
from videopool.results.comparison import flips
from videopool.results.statistics import DIFFERENCE, LEAST_CLIPS, detectable_difference, holm, mean_over_seeds

# Layouts of samples on clips and their number, mean score, correlation of samples of a clip.
CORNERS = [
    (10, "five", 0.03, 0.0),
    (10, "five", 0.5, 0.0),
    (10, "unequal", 0.5, 0.6),
    (10, "twenty", 0.9, 0.6),
    (20, "unequal", 0.97, 0.0),
    (20, "five", 0.1, 0.6),
    (20, "one", 0.97, 0.0),
    (60, "unequal", 0.03, 0.6),
    (60, "twenty", 0.03, 0.3),
    (400, "unequal", 0.97, 0.6),
    (400, "five", 0.5, 0.3),
]


@pytest.mark.parametrize(("clips", "layout", "mean", "correlation"), CORNERS)
def test_intervals_of_scores_hold_the_truth(clips, layout, mean, correlation):
    """At least 93 %, allowing for 3000 runs, and nowhere much more than 98 %, however few right answers there are."""
    rng = np.random.default_rng(1)
    sizes = simulation.sizes_of(layout, clips)
    assert 0.92 < simulation.coverage_of_scores(rng, 3000, sizes, mean, correlation) < 0.988


@pytest.mark.parametrize("correlation", [0.0, 0.3])
@pytest.mark.parametrize("clips", [10, 20, 60, 400])
def test_intervals_of_differences_hold_the_truth_and_claims_are_as_rare_as_promised(clips, correlation):
    rng = np.random.default_rng(2)
    sizes = simulation.sizes_of("five", clips)
    runs = 1000 if clips == 400 else 3000
    for mean in (0.0, 0.15, 0.27):
        assert 0.93 < simulation.coverage_of_differences(rng, runs, sizes, mean, 0.3, correlation) < 0.985
    assert 0.015 < simulation.claims(rng, runs, sizes, 0.0, 0.3, correlation, 0.05) < 0.065


def test_intervals_that_take_samples_as_independent_fail():
    """The layout of the tests above can tell: the textbook interval holds the truth too rarely."""
    sizes = simulation.sizes_of("five", 60)
    right = simulation.scores(np.random.default_rng(3), 2000, sizes, 0.5, 0.3) / 5
    half = 1.96 * np.sqrt(right.mean(1) * (1 - right.mean(1)) / sizes.sum())
    assert np.mean(np.abs(right.mean(1) - 0.5) <= half) < 0.85


@pytest.mark.parametrize("clips", [20, 60, 400])
def test_a_hundred_comparisons(clips):
    """Holm's correction keeps the chance of any false claim; a difference that job=plan promises is found."""
    rng, sizes = np.random.default_rng(4), simulation.sizes_of("five", clips)
    assert simulation.any_false_claim(rng, 8000 // clips, 100, sizes, 0.2, 0.1) < 0.1
    for comparisons in (1, 100):
        planned = detectable_difference(sizes.tolist(), 0.1, 0.4, comparisons)
        assert planned is not None
        power = simulation.claims(rng, 1000, sizes, planned, 0.4, 0.1, 0.05 / comparisons)
        assert 0.76 < power < 0.93


def test_power_grows_with_clips_and_there_is_none_with_few():
    found = [detectable_difference([5] * clips, 0.1, 0.2, 20) for clips in (20, 60, 400, 4000)]
    assert found[0] is None
    assert found[1] > found[2] > found[3] > 0
    assert detectable_difference([50] * (LEAST_CLIPS - 1), 0.0, 0.9) is None
    assert detectable_difference([1] * 400, 0.9, 0.2) == detectable_difference([1] * 400, 0.0, 0.2)
    # Of many clips of one sample, Connor's formula with the normal's quantiles.
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    spread = z**2 / 100_000
    assert detectable_difference([1] * 100_000, 0.0, 0.2) == pytest.approx(
        np.sqrt(spread * 0.2 / (1 + spread)), rel=0.03
    )


def wilson(right, n, level=0.95):
    found = stats.binomtest(right, n).proportion_ci(level, method="wilson")
    return [found.low, found.high]


@pytest.mark.parametrize("right", [0, 1, 17, 30])
def test_one_sample_a_clip_is_never_wider_than_wilson(right):
    values = [1.0] * right + [0.0] * (30 - right)
    found, wanted = mean_interval(values, range(30)), wilson(right, 30)
    assert wanted[0] - 1e-12 <= found.low <= found.value <= found.high <= wanted[1] + 1e-12
    assert [found.low, found.high] == pytest.approx(wanted, abs=1e-9)


def test_the_tail_of_p_is_that_of_students_t_and_has_no_floor():
    """Small differences on many clips: a t test of the clips' means, to the leading digits of a tiny p."""
    rng = np.random.default_rng(5)
    for shift in (0.002, 0.01, 0.02):
        values = rng.normal(shift, 0.02, size=200)
        found = paired_difference(values.repeat(3) + 0.3, np.full(600, 0.3), np.arange(200).repeat(3))
        assert np.log(found.p) == pytest.approx(np.log(stats.ttest_1samp(values, 0).pvalue), rel=0.15)
    assert found.p < 1e-25
    assert holm([found.p] * 1000)[0] < 1e-20


def test_p_and_interval_never_contradict_each_other():
    """Made-up differences of all kinds: p < 0.05 exactly where the interval leaves zero out."""
    rng = np.random.default_rng(6)
    seen = set()
    for _ in range(200):
        clips = rng.integers(LEAST_CLIPS, 40)
        names = rng.integers(0, clips, size=clips * 4)
        kind, shift = rng.choice(["flips", "grades", "constant", "one way"]), rng.choice([0.0, 0.05, 0.2, 0.9])
        if kind == "flips":
            difference = rng.choice([-1.0, 0.0, 1.0], size=names.size, p=[0.05, 0.9 - 0.8 * shift, 0.05 + 0.8 * shift])
        elif kind == "grades":
            difference = np.clip(rng.normal(shift, 0.4, size=names.size), -1, 1)
        else:
            difference = np.full(names.size, shift) if kind == "constant" else 1.0 * (rng.random(names.size) < shift)
        found = paired_difference(np.maximum(difference, 0), np.maximum(-difference, 0), names)
        if found.p is None:
            continue
        assert -1 <= found.low <= found.value <= found.high <= 1
        assert 0 <= found.p <= 1
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high), (kind, shift, found)
        mirrored = paired_difference(np.maximum(-difference, 0), np.maximum(difference, 0), names)
        assert [mirrored.low, mirrored.high, mirrored.p] == pytest.approx([-found.high, -found.low, found.p])
        seen.add((kind, found.p < 0.05))
    assert len(seen) == 8


def test_where_all_clips_are_alike():
    """No spread is no certainty: what so many clips can have missed is within the interval."""
    clips = range(60)
    right = mean_interval([1.0] * 60, clips)
    assert [right.low, right.high] == pytest.approx(wilson(60, 60))
    same = paired_difference([1.0] * 60, [1.0] * 60, clips)
    assert (same.value, same.p) == (0.0, 1.0)
    assert same.low == pytest.approx(-same.high)
    assert 0.04 < same.high < 0.08
    never = paired_difference([0.0] * 60, [1.0] * 60, clips)
    assert never.low == -1
    assert never.high == pytest.approx(2 * (1 - right.low) - 1)
    assert never.p < 1e-9
    third = paired_difference([1.0] * 60, [2 / 3] * 60, clips)
    assert 0 < third.low < third.value < third.high < 1
    assert third.p < 0.001


@pytest.mark.parametrize("clips", [1, 2, 3, LEAST_CLIPS - 1])
def test_of_few_clips_there_is_no_interval_and_no_p(clips):
    names = np.arange(50) % clips
    for estimate in (
        mean_interval([1.0] * 50, names),
        paired_difference([1.0] * 50, [0.0] * 50, names),
        mean_over_seeds({0: [1.0] * 50, 1: [0.0] * 50}, names, bounds=DIFFERENCE),
    ):
        assert np.isnan([estimate.low, estimate.high]).all()
        assert estimate.p is None
        assert estimate.clusters == clips


def test_grades_and_lengths_have_intervals_of_their_own_bounds():
    rng, clips = np.random.default_rng(7), np.arange(50).repeat(3)
    of_clip = rng.random(50).repeat(3)
    values = np.clip(of_clip + rng.normal(0, 0.2, size=150), 0, 1)
    score, grade = mean_interval(values, clips), mean_interval(5 * values, clips, bounds=(0, 5))
    assert [grade.value, grade.low, grade.high] == pytest.approx([5 * score.value, 5 * score.low, 5 * score.high])
    words = mean_interval(40 * values, clips, bounds=None)
    half = stats.t.ppf(0.975, 49) * (40 * values).reshape(50, 3).mean(1).std(ddof=1) / np.sqrt(50)
    assert words.high - words.value == pytest.approx(half, rel=0.02)
    assert words.value - words.low == pytest.approx(half, rel=0.02)
    with pytest.raises(ValueError, match="means must lie"):
        mean_interval(5 * values, clips)


def test_weighted_means_have_honest_intervals():
    """A task of few samples with half of the weight: the interval is that of its few clips, near the bounds too."""
    rng = np.random.default_rng(8)
    tasks, weights = ["rare"] * 20 + ["often"] * 180, {"rare": 1.0, "often": 1.0}
    clips, inside = np.concatenate([np.arange(20), np.arange(180) // 3 + 20]), 0
    for _ in range(300):
        values = (rng.random(200) < np.where(np.arange(200) < 20, 0.9, 0.96)).astype(float)
        found = mean_interval(values.tolist(), clips, tasks, weights)
        inside += found.low <= 0.93 <= found.high
    assert 0.92 <= inside / 300 <= 0.99
    certain = mean_interval([1.0] * 200, clips, tasks, weights)
    assert certain.low < mean_interval([1.0] * 200, clips).low


def test_paired_difference_uses_the_pairing():
    rng = np.random.default_rng(3)
    clips = np.arange(150).repeat(6)
    base = (rng.random(900) < rng.random(150).repeat(6)).astype(float)
    better = np.where(rng.random(base.size) < 0.1, 1.0, base)
    estimate = paired_difference(better, base, clips)
    assert estimate.value == pytest.approx((better - base).mean())
    assert (estimate.n, estimate.clusters) == (900, 150)
    assert estimate.low > 0
    assert estimate.p < 0.01
    unpaired = mean_interval(base, clips)
    assert estimate.high - estimate.low < (unpaired.high - unpaired.low) / 2


def test_holm_by_hand():
    # ordered 0.01 0.02 0.03 0.04: times 4, 3, 2, 1, then never less than the one before
    assert holm([0.04, 0.01, None, 0.03, 0.02]) == pytest.approx([0.06, 0.04, None, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_false_claim():
    rng = np.random.default_rng(4)
    p = rng.random((4000, 8))
    p[:, :2] *= 0.001  # two effects that are there
    corrected = holm(p.ravel().tolist(), np.repeat(np.arange(4000), 8).tolist())
    any_false = np.reshape(corrected, p.shape)[:, 2:].min(1) < 0.05
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


def test_seeds_are_a_source_of_chance_of_their_own():
    rng = np.random.default_rng(7)
    clips, per_clip, seeds, runs = 40, 5, 4, 500
    names = np.repeat(np.arange(clips), per_clip)
    inside = clips_only = 0
    for _ in range(runs):
        of_clip = rng.normal(0, 0.2, size=clips)[names]
        scores = {
            seed: (0.6 + rng.normal(0, 0.05) + of_clip + rng.normal(0, 0.3, size=names.size)).tolist()
            for seed in range(seeds)
        }
        estimate = mean_over_seeds(scores, names)
        inside += estimate.low <= 0.6 <= estimate.high
        one = mean_interval(scores[0], names)
        clips_only += one.low <= 0.6 <= one.high
    assert 0.93 <= inside / runs <= 0.98
    assert clips_only / runs < 0.9  # a single seed's interval does not know of other seeds
    with pytest.raises(ValueError, match="two seeds"):
        mean_over_seeds({0: [1.0, 0.0]}, ["a", "b"])


def test_seeds_near_the_bounds():
    """All right under each seed, and 100, 100, 90 %: intervals stay within 0..1, and are no point."""
    clips = np.arange(80) // 4
    same = mean_over_seeds({seed: [1.0] * 80 for seed in range(3)}, clips)
    assert [same.low, same.high] == pytest.approx(wilson(20, 20))
    differ = mean_over_seeds(
        {seed: [float(i >= wrong) for i in range(80)] for seed, wrong in enumerate((0, 0, 8))}, clips
    )
    assert 0.5 < differ.low < differ.value < differ.high <= 1
    gap = mean_over_seeds({seed: [1.0] * 80 for seed in range(3)}, clips, bounds=DIFFERENCE)
    assert gap.p < 1e-4
    assert gap.low > 0


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([], [])
    with pytest.raises(ValueError, match="same samples"):
        paired_difference([1.0], [1.0, 0.0], ["a", "b"])
