"""Samplers: the published formulas, and properties that hold for all of them."""

import json
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from videopool.video import (
    ClipBoundsError,
    ClipInfo,
    FpsSampler,
    FrameSamplingError,
    InteriorSampler,
    LinspaceSampler,
    NestedSampler,
    RandomSampler,
    UniformSampler,
)

TABLE = json.loads((Path(__file__).parents[1] / "data" / "sampling_uniform.json").read_text())


def uniform(frames, fps, bounds, num, first):
    start, end = bounds or (None, None)
    chosen = UniformSampler(num).indices(ClipInfo(frames, fps, first_index=first), start, end)
    return [index + first for index in chosen]


@pytest.mark.parametrize("row", TABLE["rows"], ids=str)
def test_uniform_equals_the_reference(row):
    *arguments, expected = row
    assert uniform(*arguments) == expected


def test_uniform_equals_the_whole_reference_table(shared):
    rows = json.loads(shared("goldens/tables/sampling_eval_get_index.json").read_text())
    compared = 0
    for row in rows:
        bounds = row["bound"]
        # Left out: indices outside the clip or going backward, a rate of zero, an end before the start.
        if row["note"] or row["fps"] == 0 or (bounds and bounds[0] > bounds[1]):
            continue
        got = uniform(row["n_frames"], row["fps"], bounds, row["num_segments"], row["first_idx"])
        assert got == row["indices"], row
        compared += 1
    assert compared >= 430


def test_uniform_stays_inside_where_the_reference_does_not(shared):
    for row in json.loads(shared("goldens/tables/sampling_eval_get_index.json").read_text()):
        try:
            got = uniform(row["n_frames"], row["fps"] or 1.0, row["bound"], row["num_segments"], 0)
        except ClipBoundsError:
            assert row["bound"]
            continue
        assert got == sorted(got)
        assert 0 <= got[0] <= got[-1] < row["n_frames"]


SAMPLERS = [UniformSampler, LinspaceSampler, InteriorSampler, NestedSampler, FpsSampler, RandomSampler]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("frames", [1, 2, 7, 16, 301])
@pytest.mark.parametrize("num", [1, 4, 16])
def test_indices_ascend_within_the_clip(sampler, frames, num):
    chosen = sampler(num).indices(ClipInfo(frames, 25.0))
    assert chosen == sorted(chosen)
    assert 0 <= chosen[0] <= chosen[-1] < frames
    assert len(chosen) <= num if sampler is FpsSampler else len(chosen) == num


@pytest.mark.parametrize("frames", [1, 3, 5, 8, 12])
def test_a_short_clip_loses_no_frame(frames):
    for sampler in (LinspaceSampler(16), NestedSampler(16), RandomSampler(4 * frames * 16)):
        assert set(sampler.indices(ClipInfo(frames, 10.0))) == set(range(frames))


def test_linspace_and_interior_ends():
    info = ClipInfo(101, 25.0)
    assert LinspaceSampler(5).indices(info) == [0, 25, 50, 75, 100]
    assert InteriorSampler(3).indices(info) == [25, 50, 75]


def test_nested_frames():
    of = {num: NestedSampler(num).indices(ClipInfo(120, 25.0)) for num in (1, 2, 3, 4, 8)}
    assert of == {
        1: [40],
        2: [40, 100],
        3: [40, 70, 100],
        4: [10, 40, 70, 100],
        8: [10, 25, 40, 55, 70, 85, 100, 115],
    }
    assert NestedSampler(4).indices(ClipInfo(300, 10.0), 10.0, 21.9) == [110, 140, 170, 200]


def test_nested_frames_of_a_clip_grow_with_their_number_and_stay_spread():
    """Each count's frames are among those of the next, and no gap is over twice that of an even spacing."""
    for length in range(1, 201):
        info, smaller = ClipInfo(length, 25.0), Counter()
        for num in range(1, 65):
            chosen = NestedSampler(num).indices(info)
            assert len(chosen) == num
            assert chosen == sorted(chosen)
            assert smaller <= Counter(chosen), (length, num)
            smaller = Counter(chosen)
            if num >= length:  # each frame equally often, as far as that goes
                assert set(smaller) == set(range(length))
                assert max(smaller.values()) - min(smaller.values()) <= 1
                continue
            segments = 2 ** (num.bit_length() - 1)
            segment, gaps = length / segments, {after - before for before, after in pairwise(chosen)}
            assert max(1, segment // 2) <= min(gaps, default=segment)
            assert max(gaps, default=0) <= segment + 1
            assert chosen[0] <= segment * 2 / 3
            assert length - chosen[-1] <= segment * 2 / 3 + 1
            if num == segments:
                even = [(Fraction(1, 3) + Fraction(place, num)) % 1 * length for place in range(num)]
                assert chosen == sorted(map(int, even))


def test_fps_takes_one_frame_a_period():
    info = ClipInfo(250, 25.0)
    assert FpsSampler(num=100, rate=1.0).indices(info) == list(range(0, 250, 25))
    thinned = FpsSampler(num=4, rate=1.0).indices(info)
    assert len(thinned) == 4
    assert (thinned[0], thinned[-1]) == (0, 225)


def test_random_depends_on_seed_and_clip_only():
    info = ClipInfo(400, 25.0)
    first = RandomSampler(8, seed=1).indices(info, key="a")
    assert first == RandomSampler(8, seed=1).indices(info, key="a")
    assert first != RandomSampler(8, seed=2).indices(info, key="a")
    assert first != RandomSampler(8, seed=1).indices(info, key="b")
    assert [index // 50 for index in first] == list(range(8))


@pytest.mark.parametrize("num", [0, -1, 2.5, "four", None, True])
def test_number_of_frames_must_be_positive(num):
    with pytest.raises(FrameSamplingError, match=r"frames\.num must be a positive integer"):
        UniformSampler(num)


def test_rate_must_be_positive():
    with pytest.raises(FrameSamplingError, match=r"frames\.rate"):
        FpsSampler(4, rate=0)


def test_a_cap_of_frames_by_its_own_word():
    info = ClipInfo(250, 25.0, None)
    assert FpsSampler(rate=1.0, most=4).indices(info) == FpsSampler(num=4, rate=1.0).indices(info)
    assert FpsSampler(num=3, rate=1.0, most=100).indices(info) == list(range(0, 250, 25))
    assert FpsSampler(num=3, most=7).num == 7  # what tables and budgets count with
    with pytest.raises(FrameSamplingError, match=r"frames\.most must be null or a positive integer, got 0"):
        FpsSampler(most=0)
