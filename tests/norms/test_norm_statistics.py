"""Each statistic against a plain computation of its own, on numbers of odd sizes and shapes."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from videopool.norms import NormsError, OutlierRules, StageNorms, token_norms
from videopool.norms.statistics import RATIO, LogHistogram, Moments, gini, spearman
from videopool.norms.token_norms import as_feature, border, centre, frame_cosines, low_texture, patch_texture, power

POWERS = (0.5, 1.0, 2.0, 3.0, 50.0, math.inf)


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_norms_are_those_of_plain_loops(p, dtype):
    tokens = draw(3, 2, 5, 7, dtype=dtype)
    found = token_norms(tokens, p)
    for place in np.ndindex(3, 2, 5):
        values = [abs(float(x)) for x in tokens[place]]
        wanted = max(values) if p == math.inf else sum(v**p for v in values) ** (1 / p)
        assert float(found[place]) == pytest.approx(wanted, rel=1e-5)


def test_norms_of_extreme_tokens():
    tokens = torch.tensor([[3e30, 4e30], [3e-30, 4e-30], [0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
    large, small, zero, *broken = token_norms(tokens).tolist()
    assert (large, small, zero) == (pytest.approx(5e30), pytest.approx(5e-30), 0.0)
    assert not any(map(math.isfinite, broken))
    assert float(token_norms(tokens.bfloat16()[:1])[0]) == pytest.approx(5e30, rel=0.01)


@pytest.mark.parametrize("value", [0, -1, math.nan, "two", True, None])
def test_an_impossible_power_is_refused(value):
    with pytest.raises(NormsError, match=r"job\.p"):
        power(value)


def filled(values, parts=7):
    histogram = LogHistogram()
    for part in np.array_split(values, parts):
        histogram.add(part)
    return histogram


RNG = np.random.default_rng(5)
SAMPLES = {
    "log-normal": RNG.lognormal(2, 1, 20001),
    "narrow": RNG.normal(50, 0.5, 3000),
    "two humps": np.concatenate([RNG.normal(20, 1, 5000), RNG.normal(300, 9, 40)]),
    "many sizes": 10 ** RNG.uniform(-12, 12, 4000),
    "five": np.array([1.0, 2.0, 2.0, 3.0, 1e6]),
    "equal": np.full(12, 7.25),
    "one": np.array([3.7]),
}


@pytest.mark.parametrize("values", SAMPLES.values(), ids=list(SAMPLES))
def test_quantiles_are_within_their_bound(values):
    histogram = filled(values)
    for share in (0.0, 0.001, 0.01, 0.25, 0.5, 0.75, 0.99, 0.999, 1.0):
        exact = np.quantile(values, share, method="inverted_cdf")
        assert abs(math.log(histogram.quantile(share) / exact)) <= 0.5 * math.log(RATIO) + 1e-9
    assert math.sqrt(RATIO) - 1 < 0.0055


def plain_gini(values):
    return float(np.abs(values[:, None] - values[None]).mean() / (2 * values.mean()))


@pytest.mark.parametrize("values", SAMPLES.values(), ids=list(SAMPLES))
def test_gini(values):
    some = values[:: max(1, len(values) // 2000)]
    exact = plain_gini(some)
    assert gini(some) == pytest.approx(exact, abs=1e-12)
    assert -1e-12 <= exact - filled(some).gini() <= 0.003


def test_numbers_out_of_range_are_counted_at_the_ends():
    histogram = filled(np.array([1e-30, 1.0, 2.0, 1e30]), 2)
    assert (histogram.counts[0], histogram.counts[-1], histogram.total) == (1, 1, 4)
    assert (histogram.quantile(0), histogram.quantile(1)) == (1e-30, 1e30)
    assert LogHistogram().quantile(0.5) is LogHistogram().gini() is LogHistogram().gap_above_median() is None


def test_the_gap_is_the_widest_stretch_above_the_median():
    values = SAMPLES["two humps"]
    low, high = values[values < 100].max(), values[values > 100].min()
    gap = filled(values).gap_above_median()
    assert gap.above == 40
    assert low < gap.cutoff < high
    assert abs(math.log(gap.ratio / (high / low))) <= 2 * math.log(RATIO)
    assert filled(np.array([5.0, 5.0, 5.0])).gap_above_median() is None
    # A gap below the median is none: small norms are no outliers here.
    assert filled(np.array([1.0, 100.0, 100.1, 100.2])).gap_above_median() is None


def plain_gap(values):
    """Bins of the widest stretch, over all pairs of bins, and the numbers above its middle."""
    bins = np.floor(np.log2(values) * 64).astype(int)
    first = math.floor(np.log2(np.quantile(values, 0.5, method="inverted_cdf")) * 64)
    widest = (0, 0, 0)
    for high in sorted({place for place in bins if place > first}):
        for low in range(first, high):
            inside, above = ((bins > low) & (bins < high)).sum(), (bins >= high).sum()
            if inside <= 0.2 * above and high - low - 1 > widest[0]:
                widest = (high - low - 1, low, high)
    width, low, high = widest
    return width, int((bins >= (low + high + 1) // 2).sum())


@pytest.mark.parametrize("share", [0.0, 0.01, 0.15, 0.3])
def test_a_gap_may_hold_a_few_tokens(share):
    """A second hump is seen through tokens between the two, where there is no empty stretch."""
    rng = np.random.default_rng(8)
    bridge = 10 ** rng.uniform(1.1, 2, int(500 * share))
    values = np.concatenate([rng.normal(10, 0.4, 481), rng.lognormal(5, 0.1, 29), bridge])
    gap, stage = filled(values).gap_above_median(0.2), StageNorms(2.0, OutlierRules())
    width, above = plain_gap(values)
    assert (gap.ratio, gap.above) == (pytest.approx(RATIO**width), above)
    assert gap.above == (values > gap.cutoff).sum()
    stage.add(torch.from_numpy(values)[:, None])
    empty = filled(values).gap_above_median()
    assert (empty.ratio < 1.5) == (share > 0.1)
    found = stage.numbers()["gap"]
    wide = gap if empty.ratio < 1.5 else empty
    assert found == {"ratio": wide.ratio, "cutoff": wide.cutoff, "share": wide.above / len(values)}
    assert found["share"] >= 29 / len(values)


def test_a_tail_that_thins_out_is_no_gap():
    values = SAMPLES["log-normal"]
    gap = filled(values).gap_above_median(0.2)
    assert gap.ratio < 1.5
    assert (gap.above, gap.ratio) == (plain_gap(values)[1], pytest.approx(RATIO ** plain_gap(values)[0]))


@pytest.mark.parametrize("values", SAMPLES.values(), ids=list(SAMPLES))
@pytest.mark.parametrize("parts", [1, 2, 9])
def test_moments_of_parts_are_those_of_the_whole(values, parts):
    moments = Moments()
    for part in np.array_split(values, parts):
        moments.add(part)
    assert moments.mean == pytest.approx(values.mean())
    assert moments.std == pytest.approx(values.std(), abs=1e-9)
    if np.ptp(values):
        assert moments.excess_kurtosis == pytest.approx(scipy.stats.kurtosis(values), rel=1e-7, abs=1e-9)
    else:
        assert moments.excess_kurtosis is None


def test_cutoffs_against_scipy():
    norms = SAMPLES["log-normal"]
    median, spread = np.median(norms), scipy.stats.median_abs_deviation(norms, scale="normal")
    found = OutlierRules(times_median=2.5, robust_z=4).cutoffs(norms, 0.01)
    assert found["times_median"] == pytest.approx(2.5 * median)
    assert found["robust_z"] == pytest.approx(median + 4 * spread)
    assert OutlierRules(absolute=[1, 2.5]).cutoffs(np.array([2.0, 2.0, 2.0, 9.0]), 0.3) == {
        "times_median": 6.0, "robust_z": None, "above_1": 1.0, "above_2.5": 2.5, "massive": 300.0, "phi": 20.0
    }  # fmt: skip
    assert found["massive"] == 100.0


@pytest.mark.parametrize(
    "rules",
    [
        {"times_median": 1}, {"robust_z": 0}, {"gap": 0.5}, {"gap": "wide"}, {"absolute": 30}, {"absolute": [0, 3]},
        {"absolute": [3, 3]}, {"absolute": "30"}, {"massive": [100]}, {"massive": [100, True]}, {"phi": 0},
        {"sink_dimensions": 0}, {"sink_dimensions": 1.5},
    ],
)  # fmt: skip
def test_impossible_rules_are_refused(rules):
    with pytest.raises(NormsError, match=rf"job\.rules\.{next(iter(rules))}"):
        OutlierRules(**rules)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 5), (3, 4), (24, 24), (7, 8)])
def test_regions(size):
    height, width = size
    for y, x in np.ndindex(*size):
        assert border(*size)[y, x] == (y in (0, height - 1) or x in (0, width - 1))
        inside = abs(y + 0.5 - height / 2) <= height / 4 and abs(x + 0.5 - width / 2) <= width / 4
        assert centre(*size)[y, x] == inside


@pytest.mark.parametrize(("side", "patch"), [(12, 4), (14, 4), (9, 3)])
def test_texture_of_patches(side, patch):
    pixels = draw(2, 3, side, side)
    found = patch_texture(pixels, patch)
    cells = side // patch
    for frame, y, x in np.ndindex(2, cells, cells):
        one = pixels[frame, :, y * patch : (y + 1) * patch, x * patch : (x + 1) * patch].double().numpy()
        wanted = np.sqrt(np.mean([channel.var() for channel in one]))
        assert float(found[frame, y * cells + x]) == pytest.approx(wanted, rel=1e-5)
    assert as_feature(found, 1).shape == (2, 1 + cells * cells, 1)
    assert low_texture(np.arange(8.0).reshape(1, 2, 4)).sum() == 2


def test_spearman_against_scipy():
    rng = np.random.default_rng(0)
    for size in (2, 3, 50):
        a, b = rng.integers(0, 9, size) + rng.random(size).round(1), rng.integers(0, 9, size)
        if np.ptp(a) and np.ptp(b):
            assert spearman(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic)
    assert spearman(np.ones(4), np.arange(4.0)) is None
    assert spearman(np.ones(1), np.ones(1)) is None


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 2), (4, 1, 1), (3, 2, 5)])
def test_cosines_between_frames(shape):
    grid = draw(*shape, 6) * 10 ** draw(*shape, 1, seed=1)
    grid[0, 0, 0] = 0
    grid[-1, -1, -1, 2] = math.nan
    sums, counts = frame_cosines(grid, token_norms(grid))
    plain = grid.double().numpy()
    for t, s in np.ndindex(shape[0], shape[0]):
        cosines = []
        for y, x in np.ndindex(*shape[1:]):
            a, b = plain[t, y, x], plain[s, y, x]
            if np.isfinite(a).all() and np.isfinite(b).all() and a.any() and b.any():
                cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        assert int(counts[t, s]) == len(cosines)
        assert float(sums[t, s]) == pytest.approx(sum(cosines), abs=1e-5)


CLIPS = {
    "grids": [(4, 3, 5), (4, 3, 5), (2, 3, 5)],
    "one frame": [(1, 3, 3), (1, 3, 3)],
    "one cell": [(3, 1, 1), (5, 1, 1)],
    "one token": [(1, 1, 1)],
}


def made(shapes, dtype=torch.float32):
    """Clips with some large tokens, a zero and a NaN; textures beside them."""
    for seed, shape in enumerate(shapes):
        grid = draw(*shape, 8, seed=seed)
        large = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.8
        grid = torch.where(large[..., None], grid * 40, grid)
        if math.prod(shape) > 10:
            grid[0, 0, 0] = 0
            grid[-1, -1, -1, 0] = math.nan
        texture = torch.rand(shape, generator=torch.Generator().manual_seed(seed + 99)).numpy()
        yield grid.to(dtype), texture


def share(above, below):
    return None if not below else pytest.approx(above / below)


@pytest.mark.parametrize("shapes", CLIPS.values(), ids=list(CLIPS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stage_against_plain_loops(shapes, dtype):
    rules = OutlierRules(times_median=2.0)
    stage = StageNorms(2.0, rules)
    every, zeros, broken, chosen, at_border, in_centre, low, lows, cells, borders = [], 0, 0, 0, 0, 0, 0, 0, 0, 0
    again, could, chance, cosines, by_frame, by_place = 0, 0, 0.0, [], {}, {}
    for grid, texture in made(shapes, dtype):
        stage.add(grid, texture)
        norms = np.linalg.norm(grid.double().numpy(), axis=-1)
        usable = np.isfinite(norms) & (norms > 0)
        zeros, broken = zeros + (norms == 0).sum(), broken + (~np.isfinite(norms)).sum()
        every += list(norms[usable])
        large = usable & (np.nan_to_num(norms) > 2 * np.median(norms[usable]))
        least = texture <= np.sort(texture, axis=None)[math.ceil(texture.size / 4) - 1]
        frames, height, width = norms.shape
        for t, y, x in np.ndindex(*norms.shape):
            if not usable[t, y, x]:
                continue
            edge = y in (0, height - 1) or x in (0, width - 1)
            middle = abs(y + 0.5 - height / 2) <= height / 4 and abs(x + 0.5 - width / 2) <= width / 4
            by_frame.setdefault(t, []).append(norms[t, y, x])
            by_place.setdefault((y, x), []).append(norms[t, y, x])
            cells, borders, lows = cells + 1, borders + edge, lows + least[t, y, x]
            if large[t, y, x]:
                chosen, at_border, in_centre = chosen + 1, at_border + edge, in_centre + middle
                low += least[t, y, x]
                if t + 1 < frames:
                    could += 1
                    again += large[t + 1, y, x]
                    chance += large[t + 1].mean()
            if t + 1 < frames and usable[t + 1, y, x]:
                a, b = grid[t, y, x].double().numpy(), grid[t + 1, y, x].double().numpy()
                cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    numbers, arrays = stage.numbers(), stage.arrays()
    assert (numbers["zero"], numbers["not_finite"], numbers["clips"]) == (zeros, broken, len(shapes))
    assert numbers["tokens"] == sum(map(math.prod, shapes)) == len(every) + zeros + broken
    assert numbers["mean"] == pytest.approx(np.mean(every), rel=1e-5)
    assert numbers["max"] == pytest.approx(max(every), rel=1e-5)
    if len(every) > 1:
        assert numbers["excess_kurtosis"] == pytest.approx(scipy.stats.kurtosis(every), rel=1e-4, abs=1e-4)
    found = numbers["outliers"]["times_median"]
    assert found["share"] == share(chosen, len(every))
    assert (found["border"], found["centre"]) == (share(at_border, chosen), share(in_centre, chosen))
    assert (found["low_texture"], numbers["low_texture_area"]) == (share(low, chosen), share(lows, cells))
    assert (found["next_frame"], found["next_frame_by_chance"]) == (share(again, could), share(chance, could))
    assert numbers["border_area"] == share(borders, cells)
    assert numbers["neighbour_cosine"] == (pytest.approx(np.mean(cosines), abs=1e-5) if cosines else None)
    for t, values in by_frame.items():
        assert arrays["frame.norm"][t] == pytest.approx(np.mean(values), rel=1e-5)
    for place, values in by_place.items():
        assert arrays["map.norm"][place] == pytest.approx(np.mean(values), rel=1e-5)


@pytest.mark.parametrize(("size", "dim"), [((3, 2, 5), 7), ((1, 1, 1), 3), ((11,), 5), ((2, 3, 1), 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_components_against_plain_loops(size, dim, dtype):
    rules = OutlierRules(absolute=[2, 40], massive=[5, 8], phi=1.5, sink_dimensions=2)
    stage, marked, largest, over, phis, kept = StageNorms(2.0, rules), {}, [], [], [], 0
    massive, sinks = np.zeros(dim), np.zeros(dim)
    for seed in range(3):
        grid = draw(*size, dim, seed=seed)
        grid[..., seed % dim] *= 12 * (torch.rand(size, generator=torch.Generator().manual_seed(seed)) > 0.7) + 1
        if seed == 2 and math.prod(size) > 1:
            grid.view(-1, dim)[1] = 0
            grid.view(-1, dim)[0, 0] = math.inf
        grid = grid.to(dtype)
        clip = stage.add(grid)
        tokens = grid.double().reshape(-1, dim).tolist()
        usable = [n for n, token in enumerate(tokens) if any(token) and all(map(math.isfinite, token))]
        every = sorted(abs(x) for n in usable for x in tokens[n])
        median = every[(len(every) - 1) // 2]
        normed = {n: [abs(x) / math.sqrt(sum(y * y for y in tokens[n]) / dim) for x in tokens[n]] for n in usable}
        tops = [max(own[d] for own in normed.values()) for d in range(dim)]
        chosen = sorted(range(dim), key=lambda d: -tops[d])[:2]
        for n, token in enumerate(tokens):
            norm = math.sqrt(sum(x * x for x in token))
            phi = max(normed[n][d] for d in chosen) if n in normed else 0
            cutoff = max(5, 8 * median)
            own = {"above_2": norm > 2, "above_40": norm > 40, "massive": max(map(abs, token)) > cutoff,
                   "phi": phi > 1.5}  # fmt: skip
            for rule, is_one in own.items():
                marked[rule] = marked.get(rule, 0) + (is_one and n in normed)
                assert clip.outliers[rule].reshape(-1)[n] == (is_one and n in normed)
            massive += [n in normed and abs(x) > cutoff for x in token]
        sinks += [d in chosen for d in range(dim)]
        kept, largest = kept + len(usable), [*largest, every[-1]]
        over, phis = [*over, every[-1] / median], [*phis, max(max(normed[n][d] for d in chosen) for n in usable)]
    numbers = stage.numbers()
    assert {rule: own["share"] for rule, own in numbers["outliers"].items() if rule in marked} == {
        rule: pytest.approx(count / kept) for rule, count in marked.items()
    }
    components = numbers["components"]
    assert components["largest"] == pytest.approx(np.mean(largest), rel=1e-6)
    assert components["largest_over_median"] == pytest.approx(np.mean(over), rel=1e-6)
    assert components["largest_phi"] == pytest.approx(np.mean(phis), rel=1e-6)
    assert components["massive_dimensions"] == [d for d in np.argsort(-massive, kind="stable")[:5] if massive[d]]
    assert components["sink_dimensions"] == [d for d in np.argsort(-sinks, kind="stable")[:2] if sinks[d]]
    assert components["sink_clips"] == max(sinks) / 3
    np.testing.assert_array_equal(stage.arrays()["dimensions.massive"], massive)


def test_components_of_extreme_tokens():
    """Sizes whose squares overflow, or vanish, have a phi."""
    stage = StageNorms(2.0, OutlierRules(phi=1.2))
    assert stage.add(torch.tensor([[3e30, 0.0], [1e-30, 1e-30]])).outliers["phi"].tolist() == [True, False]
    assert stage.numbers()["components"]["largest_phi"] == pytest.approx(math.sqrt(2))
    assert stage.numbers()["components"]["largest_over_median"] == pytest.approx(3e60)


def test_tokens_that_are_no_grid_have_no_places():
    stage = StageNorms(1.0, OutlierRules())
    stage.add(draw(9, 4))
    numbers = stage.numbers()
    assert numbers["tokens"] == 9
    assert numbers["border_area"] is numbers["neighbour_cosine"] is numbers["texture_spearman"] is None
    assert "map.norm" not in stage.arrays()


@pytest.mark.parametrize("value", [1.0, 0.0, math.nan])
def test_clips_without_anything_to_tell(value):
    """All norms equal: no kurtosis, no outliers, and the robust rule says that it does not apply."""
    stage = StageNorms(2.0, OutlierRules())
    stage.add(torch.full((2, 2, 2, 3), value))
    numbers = stage.numbers()
    assert numbers["excess_kurtosis"] is None
    if value == 1.0:
        assert numbers["outliers"]["robust_z"] | {"share": 0.0, "undefined_clips": 1} == numbers["outliers"]["robust_z"]
        assert numbers["max_over_median"] == pytest.approx(1)
        assert numbers["gini"] == pytest.approx(0, abs=1e-9)
    else:
        assert (numbers["zero"] + numbers["not_finite"], numbers["mean"], numbers["max"]) == (8, None, None)


def test_grids_of_several_sizes_have_no_map():
    """All else is of the clips as they are; a clip of the first size after another brings no map back."""
    stage, sizes = StageNorms(2.0, OutlierRules()), [(2, 2), (3, 2), (2, 2)]
    grids = [draw(2, *size, 3, seed=number) for number, size in enumerate(sizes)]
    for grid in grids[:2]:
        stage.add(grid)
    resumed = StageNorms(2.0, OutlierRules())
    resumed.load(stage.state())
    for one in (stage, resumed):
        one.add(grids[2])
        arrays = one.arrays()
        assert not [name for name in arrays if name.startswith("map.")]
        profile = sum(grid.norm(dim=-1).sum((1, 2)) for grid in grids) / sum(grid[0, ..., 0].numel() for grid in grids)
        np.testing.assert_allclose(arrays["frame.norm"], profile, rtol=1e-5)
        norms = torch.cat([grid.norm(dim=-1).flatten() for grid in grids])
        assert one.numbers()["mean"] == pytest.approx(float(norms.mean()))


def test_memory_does_not_grow_with_the_clips():
    stage = StageNorms(2.0, OutlierRules())
    sizes = []
    for number in range(60):
        stage.add(10 ** draw(3, 2, 2, 1, seed=number) * draw(3, 2, 2, 5, seed=number), np.ones((3, 2, 2)))
        sizes.append(sum(values.nbytes for values in stage.state().values()))
    assert sizes[1] == sizes[-1] < 200_000
