"""Interventions against plain loops in float64, and their contract."""

import math

import numpy as np
import pytest
import torch

from videopool.config.build import build
from videopool.pooling import (
    Adaptive,
    Average,
    Chain,
    ClipNorm,
    DropOutliers,
    FrameCls,
    InjectOutliers,
    Intervention,
    NoPooling,
    PoolingContext,
    PoolingShapeError,
    RescaleNorm,
    ShuffleSpace,
    ShuffleTime,
    checked,
    map_signature,
)

GRIDS = [(1, 1, 1), (1, 5, 7), (3, 4, 6), (6, 1, 5), (2, 7, 3)]
EXACT = {"rtol": 1e-12, "atol": 1e-12}
MODES = ["scale", "direction", "both"]
PLACEMENTS = ["random", "same", "border", "centre"]


def random_grid(size, batch=2, dim=4, seed=0):
    """Norms from 0.1 to 10 times those of a normal draw."""
    generator = np.random.default_rng(seed)
    scale = 10 ** generator.uniform(-1, 1, (batch, *size, 1))
    return torch.from_numpy(generator.standard_normal((batch, *size, dim)) * scale)


def norms_of(grid):
    return (grid**2).sum(-1).sqrt()


def each_token(grid, change):
    """Tokens changed one by one: change(clip's array, place, token) -> token."""
    array = grid.numpy()
    out = array.copy()
    for clip in range(len(array)):
        for place in np.ndindex(array.shape[1:4]):
            out[clip][place] = change(array[clip], place, array[clip][place])
    return torch.from_numpy(out)


@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_clip_norm_equals_its_definition(size):
    grid = random_grid(size)
    for limit in (0.5, 2, 1e3):

        def cut(clip, place, token, limit=limit):
            return token * min(1, limit / math.sqrt((token**2).sum()))

        torch.testing.assert_close(ClipNorm(limit).pool(grid), each_token(grid, cut), **EXACT)
    assert torch.equal(ClipNorm(1e3).pool(grid), grid)
    for quantile in (0, 0.3, 0.9, 1):

        def cut_at(clip, place, token, quantile=quantile):
            limit = np.quantile(np.sqrt((clip**2).sum(-1)), quantile)
            return token * min(1, limit / math.sqrt((token**2).sum()))

        torch.testing.assert_close(ClipNorm(quantile=quantile).pool(grid), each_token(grid, cut_at), **EXACT)
    assert torch.equal(ClipNorm(quantile=1).pool(grid), grid)
    more = torch.cat([grid, torch.full_like(grid[:, :1], torch.nan)], dim=1)  # counts for nothing
    torch.testing.assert_close(ClipNorm(quantile=0.3).pool(more)[:, :-1], ClipNorm(quantile=0.3).pool(grid), **EXACT)


@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_rescale_norm_equals_its_definition(size):
    grid = random_grid(size)

    def to_mean(clip, place, token):
        norms = [math.sqrt((clip[where] ** 2).sum()) for where in np.ndindex(clip.shape[:3])]
        return token * (sum(norms) / len(norms)) / math.sqrt((token**2).sum())

    torch.testing.assert_close(RescaleNorm().pool(grid), each_token(grid, to_mean), **EXACT)
    rescaled = RescaleNorm(3).pool(grid)
    torch.testing.assert_close(norms_of(rescaled), torch.full(grid.shape[:-1], 3.0, dtype=torch.float64), **EXACT)
    torch.testing.assert_close(rescaled / 3, grid / norms_of(grid).unsqueeze(-1), **EXACT)  # directions stay
    torch.testing.assert_close(RescaleNorm(3).pool(7 * grid), rescaled, **EXACT)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_inject_outliers_equals_its_definition(size, mode, placement):
    grid, pooling = random_grid(size), InjectOutliers(0.3, 7, mode, placement, seed=5)
    chosen, direction = pooling.places(*size).numpy(), pooling.direction(4).numpy()
    assert math.isclose((direction**2).sum(), 1)
    if placement == "random":
        assert chosen.sum() == math.floor(0.3 * chosen.size + 0.5)
    else:
        assert (chosen.sum((1, 2)) == math.floor(0.3 * size[1] * size[2] + 0.5)).all()
        assert (chosen == chosen[:1]).all()

    def change(clip, place, token):
        if not chosen[place]:
            return token
        norm = math.sqrt((token**2).sum()) * (1 if mode == "direction" else 7)
        return norm * (token / math.sqrt((token**2).sum()) if mode == "scale" else direction)

    torch.testing.assert_close(pooling.pool(grid), each_token(grid, change), **EXACT)
    assert pooling.windows(*size) == {"outliers": int(chosen.sum())}


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 5), (4, 6), (7, 3), (1, 8)])
def test_outliers_lie_at_the_border_or_in_the_centre(height, width):
    for placement in ("border", "centre"):
        for fraction in (0.1, 0.37, 0.8, 1):
            chosen = InjectOutliers(fraction, placement=placement).places(2, height, width)[0].numpy()
            far = np.array(
                [
                    [
                        min(y, x, height - 1 - y, width - 1 - x)
                        if placement == "border"
                        else (y - (height - 1) / 2) ** 2 + (x - (width - 1) / 2) ** 2
                        for x in range(width)
                    ]
                    for y in range(height)
                ]
            )
            if 0 < chosen.sum() < chosen.size:
                assert far[chosen].max() <= far[~chosen].min()
    corners = sum(InjectOutliers(0.06, placement="border", seed=s).places(1, 4, 4)[0].int() for s in range(200))
    assert (corners[0] > 0).all()  # equally near places are drawn from
    assert corners[1:3, 1:3].sum() == 0


def test_norm_and_direction_are_apart():
    grid = random_grid((4, 5, 5))
    scale, direction, both = (InjectOutliers(0.2, 10, mode, seed=1).pool(grid) for mode in MODES)
    chosen = InjectOutliers(0.2, seed=1).places(4, 5, 5)
    torch.testing.assert_close(norms_of(direction), norms_of(grid), **EXACT)
    torch.testing.assert_close(norms_of(both), norms_of(scale), **EXACT)
    torch.testing.assert_close(norms_of(scale)[:, chosen], 10 * norms_of(grid)[:, chosen], **EXACT)
    torch.testing.assert_close(RescaleNorm(1).pool(scale), RescaleNorm(1).pool(grid), **EXACT)
    torch.testing.assert_close(RescaleNorm(1).pool(both), RescaleNorm(1).pool(direction), **EXACT)
    shared = RescaleNorm(1).pool(direction)[:, chosen]
    torch.testing.assert_close(shared, shared[:1, :1].expand_as(shared), **EXACT)  # one direction for all
    for made in (scale, direction, both):
        assert torch.equal(made[:, ~chosen], grid[:, ~chosen])
    torch.testing.assert_close(InjectOutliers(0.2, 1, seed=1).pool(grid), grid, **EXACT)
    assert torch.equal(InjectOutliers(0).pool(grid), grid)
    assert not torch.equal(InjectOutliers(0.2, seed=1).places(4, 5, 5), InjectOutliers(0.2, seed=2).places(4, 5, 5))


def dropped_by_loops(grid, threshold, replacement):
    array = grid.numpy()
    out = array.copy()
    _, frames, height, width, _ = array.shape
    for clip, made in zip(array, out, strict=True):
        norms = np.sqrt((clip**2).sum(-1))
        finite = norms[np.isfinite(norms)]
        if not finite.size:
            continue
        valid = np.isfinite(norms) & (np.nan_to_num(norms, posinf=0) <= threshold * np.median(finite))
        for t in range(frames):
            for y in range(height):
                for x in range(width):
                    if valid[t, y, x]:
                        continue
                    near = [
                        clip[t, b, c]
                        for b in range(max(0, y - 1), min(height, y + 2))
                        for c in range(max(0, x - 1), min(width, x + 2))
                        if valid[t, b, c]
                    ]
                    if replacement == "frame" or not near:
                        near = list(clip[t][valid[t]]) or list(clip[valid])
                    made[t, y, x] = np.mean(near, axis=0)
    return torch.from_numpy(out)


@pytest.mark.parametrize("replacement", ["neighbours", "frame"])
@pytest.mark.parametrize("threshold", [1, 1.5, 3, 100])
@pytest.mark.parametrize("size", [*GRIDS, (4, 9, 9)], ids=str)
def test_drop_outliers_equals_its_definition(size, threshold, replacement):
    grid = random_grid(size)
    expected = dropped_by_loops(grid, threshold, replacement)
    torch.testing.assert_close(DropOutliers(threshold, replacement).pool(grid), expected, **EXACT)
    whole = random_grid((4, 5, 5), seed=2)
    whole[:, 1] *= 1e4  # a frame of outliers
    whole[:, 2, 1:4, 1:4] *= 1e4  # an outlier of which all around it are outliers
    expected = dropped_by_loops(whole, threshold, replacement)
    torch.testing.assert_close(DropOutliers(threshold, replacement).pool(whole), expected, **EXACT)


@pytest.mark.parametrize("replacement", ["neighbours", "frame"])
def test_drop_outliers_takes_out_what_is_no_number(replacement):
    grid = random_grid((3, 4, 4))
    grid[0, 1, 2, 2, 0] = torch.nan
    grid[0, 2, 0, 0, 1] = torch.inf
    pooling = DropOutliers(3, replacement)
    dropped = pooling.pool(grid)
    assert dropped.isfinite().all()
    torch.testing.assert_close(dropped, dropped_by_loops(grid, 3, replacement), **EXACT)
    nothing = torch.full((1, 2, 2, 2, 3), torch.inf)
    assert torch.equal(pooling.pool(nothing), nothing)
    assert torch.equal(pooling.pool(torch.zeros(1, 2, 2, 2, 3)), torch.zeros(1, 2, 2, 2, 3))


@pytest.mark.parametrize("replacement", ["neighbours", "frame"])
def test_what_else_may_be_dropped(replacement):
    """As many random ordinary tokens of each frame, or all ordinary ones, each replaced by what is left around it."""
    grid = 1 + torch.rand(2, 3, 5, 5, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    grid[:, 0, 1, 2:4] *= 30
    grid[:, 2, 4, 0] *= 30
    grid[1, 1] *= 1e4  # a frame without ordinary tokens
    grid[0, 0, 0, 0, 1] = torch.nan
    large = DropOutliers().outliers(grid)
    assert large[0].flatten(1).sum(1).tolist() == [3, 0, 1]
    for which, counts in (("random", [[2, 0, 1], [2, 0, 1]]), ("others", [[22, 25, 24], [23, 0, 24]])):
        pooling = DropOutliers(3, replacement, which, seed=1)
        dropped, made = pooling.dropped(grid), pooling.pool(grid)
        assert dropped.flatten(2).sum(2).tolist() == counts
        assert not (dropped & large).any()
        assert torch.equal(made[~dropped].nan_to_num(99), grid[~dropped].nan_to_num(99))
        assert torch.equal(dropped, DropOutliers(3, replacement, which, seed=1).dropped(grid))
        for clip, t, y, x in dropped.nonzero().tolist():
            there = (~dropped & grid.norm(dim=-1).isfinite())[clip]
            near = [(t, b, c) for b in range(max(0, y - 1), min(5, y + 2)) for c in range(max(0, x - 1), min(5, x + 2))]
            near = [place for place in near if there[place]] if replacement == "neighbours" else []
            frame = [place for place in [(t, b, c) for b in range(5) for c in range(5)] if there[place]]
            chosen = near or frame or [tuple(place) for place in there.nonzero().tolist()]
            expected = sum(grid[clip][place] for place in chosen) / len(chosen)
            torch.testing.assert_close(made[clip, t, y, x], expected, **EXACT)
    other = DropOutliers(3, replacement, "random", seed=2).dropped(grid)
    assert not torch.equal(other, DropOutliers(3, replacement, "random", seed=1).dropped(grid))
    quiet = torch.ones(1, 2, 3, 3, 2)
    assert torch.equal(DropOutliers(which="others").pool(quiet), quiet)


def test_dropping_undoes_injecting():
    grid = torch.ones(2, 3, 6, 6, 4, dtype=torch.float64)
    injected = InjectOutliers(0.1, 50, "both").pool(grid)
    assert not torch.equal(injected, grid)
    torch.testing.assert_close(DropOutliers().pool(injected), grid, **EXACT)
    torch.testing.assert_close(norms_of(ClipNorm(quantile=0.5).pool(injected)), norms_of(grid), **EXACT)


@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_shuffling_is_one_permutation(size):
    frames, height, width = size
    grid = random_grid(size)
    for seed in range(5):
        order = ShuffleTime(seed).windows(*size)["order"]
        assert sorted(order) == list(range(frames))
        assert order != list(range(frames)) or frames == 1
        expected = np.stack([grid[:, t].numpy() for t in order], axis=1)
        np.testing.assert_array_equal(ShuffleTime(seed).pool(grid).numpy(), expected)
        places = ShuffleSpace(seed).windows(*size)["order"]
        assert sorted(places) == list(range(height * width))
        assert places != sorted(places) or height * width == 1
        shuffled = ShuffleSpace(seed).pool(grid)
        for place, source in enumerate(places):
            moved, came = shuffled[:, :, place // width, place % width], grid[:, :, source // width, source % width]
            assert torch.equal(moved, came)
    torch.testing.assert_close(Average("time")(ShuffleTime().pool(grid)), Average("time")(grid), **EXACT)
    torch.testing.assert_close(Average("space")(ShuffleSpace().pool(grid)), Average("space")(grid), **EXACT)


def test_shuffles_differ_by_seed():
    assert len({str(ShuffleTime(s).windows(6, 1, 1)) for s in range(50)}) > 40
    assert [ShuffleTime(s).windows(2, 1, 1)["order"] for s in range(9)] == [[1, 0]] * 9
    counts = [sum(ShuffleTime(s).windows(3, 1, 1)["order"][0] == first for s in range(500)) for first in range(3)]
    assert 60 < counts[0] < 140  # of five orders one begins with the first frame
    assert min(counts[1:]) > 150


EACH = [
    ClipNorm(1.5),
    ClipNorm(quantile=0.7),
    RescaleNorm(),
    RescaleNorm(2),
    InjectOutliers(0.2),
    InjectOutliers(0.2, 5, "direction", "same"),
    InjectOutliers(0.2, 5, "both", "border"),
    DropOutliers(1.5),
    DropOutliers(1.5, "frame"),
    DropOutliers(1.5, "frame", "random", 3),
    DropOutliers(1.2, which="others"),
    ShuffleTime(1),
    ShuffleSpace(1),
]
ABSOLUTE = ("clip norm 1.5", "rescale norm 2")


@pytest.mark.parametrize("pooling", EACH, ids=lambda p: p.label)
def test_properties(pooling):
    grid = random_grid((5, 4, 6), seed=3)
    given = grid.clone()
    assert isinstance(pooling, Intervention)
    assert pooling.out_shape(5, 4, 6) == (5, 4, 6)
    changed = pooling.pool(grid)
    assert torch.equal(grid, given)  # the grid itself is left alone
    assert not torch.equal(changed, grid)
    assert torch.equal(checked(pooling, grid), changed.flatten(1, 3))
    assert torch.equal(pooling.pool(grid), changed)
    torch.testing.assert_close(torch.cat([pooling.pool(grid[:1]), pooling.pool(grid[1:])]), changed, **EXACT)
    if pooling.label not in ABSOLUTE:
        torch.testing.assert_close(pooling.pool(2.5 * grid), 2.5 * changed)  # scale goes through
    half = pooling.pool(grid.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), pooling.pool(grid.bfloat16().double()), rtol=0.01, atol=0.01)
    small = random_grid((3, 3, 2), batch=1, dim=2).requires_grad_()
    assert torch.autograd.gradcheck(pooling.pool, (small,))
    before = Chain([pooling, Adaptive((2, 2, 3))])
    torch.testing.assert_close(before(grid), Adaptive((2, 2, 3))(changed), **EXACT)
    assert before.num_tokens(5, 4, 6) == 12


@pytest.mark.parametrize("pooling", EACH, ids=lambda p: p.label)
def test_zeros_and_what_is_no_number(pooling):
    zeros = torch.zeros(1, 3, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    changed = pooling.pool(zeros)
    assert torch.equal(changed, zeros)  # no direction, so no norm can be given
    changed.sum().backward()
    assert zeros.grad.isfinite().all()
    grid = random_grid((3, 3, 4), dim=2)
    grid[0, 1, 1, 1, 0] = torch.nan
    grid[0, 0, 0, 0] = 0
    changed = pooling.pool(grid)
    assert changed[1].isfinite().all()
    whole = changed[0].isfinite().all(-1)
    assert whole.sum() == 36 - (getattr(pooling, "which", "") != "outliers")  # it stays with its token
    if getattr(pooling, "which", "outliers") == "outliers":  # others may take out the token of zeros
        assert norms_of(changed[0])[whole].min() == 0


def test_interventions_leave_the_context_alone():
    cls = torch.arange(3.0).view(1, 3, 1).expand(1, 3, 2)
    tokens = FrameCls(ShuffleTime())(torch.zeros(1, 3, 1, 1, 2), PoolingContext(cls=cls))
    assert torch.equal(tokens[:, ::2], cls)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClipNorm(), "say one of pooling.max_norm and pooling.quantile"),
        (lambda: ClipNorm(1, 0.5), "say one of pooling.max_norm and pooling.quantile"),
        (lambda: ClipNorm(0), "pooling.max_norm must be a number of more than 0, got 0"),
        (lambda: ClipNorm(math.inf), "pooling.max_norm must be a number"),
        (lambda: ClipNorm(quantile=1.1), "pooling.quantile must be a number of at least 0 and at most 1, got 1.1"),
        (lambda: RescaleNorm(0), "pooling.norm must be a number of more than 0"),
        (lambda: RescaleNorm("mean"), "pooling.norm must be a number of more than 0, got 'mean'"),
        (lambda: InjectOutliers(1.5), "pooling.fraction must be a number of at least 0 and at most 1"),
        (lambda: InjectOutliers(factor=-1), "pooling.factor must be a number of at least 0"),
        (lambda: InjectOutliers(mode="norm"), "pooling.mode='norm': choose one of scale, direction, both"),
        (lambda: InjectOutliers(placement="top"), "pooling.placement='top': choose one of random, same, border, cent"),
        (lambda: InjectOutliers(seed=-3), "pooling.seed must be an integer of at least 0, got -3"),
        (lambda: DropOutliers(0.9), "pooling.threshold must be a number of at least 1, got 0.9"),
        (lambda: DropOutliers(which="all"), "pooling.which='all': choose one of outliers, random, others"),
        (lambda: DropOutliers(3, "zero"), "pooling.replacement='zero': choose one of neighbours, frame"),
        (lambda: ShuffleTime(None), "pooling.seed must be an integer of at least 0, got None"),
        (lambda: ShuffleSpace(True), "pooling.seed must be an integer of at least 0, got True"),
    ],
)
def test_bad_parameters_are_refused(make, message):
    with pytest.raises(PoolingShapeError, match=message):
        make()


def test_labels_and_signatures_tell_them_apart():
    labels = [p.label for p in [*EACH, InjectOutliers(0.2, seed=1), InjectOutliers(0.2, 5, "both", "centre")]]
    assert len(set(labels)) == len(labels)
    assert ClipNorm(30).label == "clip norm 30"
    assert ClipNorm(quantile=0.98).label == "clip norm q0.98"
    assert RescaleNorm().label == "rescale norm mean"
    assert InjectOutliers().label == "inject outliers 0.02 scale x10 random seed 0"
    assert InjectOutliers(0.1, 5, "direction", "border", 2).label == "inject outliers 0.1 direction border seed 2"
    assert DropOutliers().label == "drop outliers 3 neighbours"
    assert DropOutliers(2, "frame", "random", 7).label == "drop random as outliers seed 7 2 frame"
    assert DropOutliers(which="others").label == "drop all but outliers 3 neighbours"
    assert ShuffleTime(4).label == "shuffle time seed 4"
    size = (4, 4, 6)
    none = map_signature(NoPooling(), *size)
    # What changes nothing on the grid of the signature is no duplicate: it changes others.
    quiet = [ClipNorm(50), ClipNorm(60), DropOutliers(4), DropOutliers(5), DropOutliers(4, "frame")]
    quiet += [DropOutliers(4, which="others"), *(DropOutliers(4, which="random", seed=seed) for seed in range(2))]
    found = [map_signature(pooling, *size) for pooling in (*quiet, *EACH)]
    found += [map_signature(Chain([pooling]), *size) for pooling in (ClipNorm(70), DropOutliers(6))]
    assert len({str(signature) for signature in [none, *found]}) == len(found) + 1
    assert [signature[: len(none)] for signature in found[:8]] == [none] * 8
    assert map_signature(InjectOutliers(0), *size) == none
    assert map_signature(ClipNorm(quantile=1), *size) == none
    direction = [map_signature(InjectOutliers(0.2, factor, "direction"), *size) for factor in (2, 3)]
    assert direction[0] == direction[1]


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        ("clip_norm", "clip norm q0.98"),
        ("clip_norm pooling.max_norm=20 pooling.quantile=null", "clip norm 20"),
        ("rescale_norm", "rescale norm mean"),
        ("rescale_norm pooling.norm=1", "rescale norm 1"),
        ("inject_outliers", "inject outliers 0.02 scale x10 random seed 0"),
        ("inject_outliers pooling.mode=both pooling.placement=centre", "inject outliers 0.02 both x10 centre seed 0"),
        ("drop_outliers", "drop outliers 3 neighbours"),
        ("shuffle_time", "shuffle time seed 0"),
        ("shuffle_space pooling.seed=3", "shuffle space seed 3"),
    ],
)
def test_configurations_build(hydra_conf, overrides, label):
    pooling = build(hydra_conf(*f"pooling={overrides}".split()), "pooling", without=("stage",))
    assert isinstance(pooling, Intervention)
    assert pooling.label == label
    assert pooling.num_tokens(16, 24, 24) == 16 * 576


def test_interventions_stand_in_a_chain(hydra_conf):
    steps = (
        "[{_target_: videopool.pooling.InjectOutliers, mode: both}, "
        "{_target_: videopool.pooling.ClipNorm, quantile: 0.9}, {_target_: videopool.pooling.Adaptive}]"
    )
    pooling = build(hydra_conf("pooling=chain", f"pooling.steps={steps}"), "pooling", without=("stage",))
    assert pooling.num_tokens(16, 24, 24) == 2304
    assert pooling.label == "inject outliers 0.02 both x10 random seed 0 + clip norm q0.9 + adaptive 16x12x12"
    assert pooling.windows(16, 24, 24)["steps"][0] == {"step": pooling.chain[0].label, "outliers": 184}
