"""Robust, weighted, sampled, merged and learned poolings against plain loops in float64, and their contract."""

import importlib
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from scipy import special, stats

from videopool.config.build import build
from videopool.models.errors import ModelError
from videopool.models.stages import check_needs
from videopool.paths import shipped
from videopool.pooling import (
    Adaptive,
    AttentionResampler,
    Chain,
    GeneralisedMean,
    GridPyramid,
    Median,
    NoPooling,
    NormWeighted,
    Pooling,
    PoolingContext,
    PoolingContractError,
    PoolingShapeError,
    Strided,
    Subsample,
    TextGuided,
    TokenMerging,
    TrimmedMean,
    checked,
    map_signature,
)

ROOT = Path(__file__).parents[2]
GRIDS = [(1, 1, 1), (1, 5, 3), (3, 4, 7), (5, 1, 6), (2, 24, 5)]
SHAPES = [(1, 1, 1), (2, 3, 3), (16, 16, 2), (None, 3, 4), (3, None, 2), (100, 2, 100)]
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def random_grid(size, batch=2, dim=3, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((batch, *size, dim)))


def random_text(grid, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((grid.shape[0], grid.shape[-1])))


def by_loops(arrays, shape, reduce):
    """Each output cell from the tokens [B, K, C] of its window, of one array or of several."""
    size = arrays[0].shape[1:4]
    out = [s if a is None else min(a, s) for a, s in zip(shape, size, strict=True)]
    cells = []
    for t in range(out[0]):
        for y in range(out[1]):
            for x in range(out[2]):
                read = [
                    (a, b, c)
                    for a in range(math.floor(t * size[0] / out[0]), math.ceil((t + 1) * size[0] / out[0]))
                    for b in range(math.floor(y * size[1] / out[1]), math.ceil((y + 1) * size[1] / out[1]))
                    for c in range(math.floor(x * size[2] / out[2]), math.ceil((x + 1) * size[2] / out[2]))
                ]
                cells.append(reduce(*(np.stack([array[:, a, b, c] for a, b, c in read], axis=1) for array in arrays)))
    return torch.from_numpy(np.stack(cells, axis=1))


def weighted(tokens, scores):
    """[B, K, D] averaged by the softmax of [B, K]."""
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return (tokens * (weights / weights.sum(1, keepdims=True))[..., None]).sum(1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_median_and_trimmed_mean_equal_their_definition(size, shape):
    grid = random_grid(size)
    median = by_loops([grid.numpy()], shape, lambda tokens: np.median(tokens, axis=1))
    torch.testing.assert_close(checked(Median(shape), grid), median, **EXACT)
    for trim in (0, 0.1, 0.25, 0.4, 0.499):
        expected = by_loops([grid.numpy()], shape, lambda tokens, cut=trim: stats.trim_mean(tokens, cut, axis=1))
        torch.testing.assert_close(checked(TrimmedMean(shape, trim), grid), expected, **EXACT)


@pytest.mark.parametrize("p", [0.5, 1, 2, 3, 10])
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_generalised_mean_equals_its_definition(size, shape, p):
    grid = random_grid(size)

    def clamped(tokens):
        return (np.maximum(tokens, 1e-6) ** p).mean(1) ** (1 / p)

    def signed(tokens):
        mean = (np.sign(tokens) * np.abs(tokens) ** p).mean(1)
        return np.sign(mean) * np.abs(mean) ** (1 / p)

    for negative, reduce in (("clamp", clamped), ("sign", signed)):
        tokens = checked(GeneralisedMean(shape, p, negative), grid)
        torch.testing.assert_close(tokens, by_loops([grid.numpy()], shape, reduce), **EXACT)


@pytest.mark.parametrize(("temperature", "p"), [(1, 2), (0.05, 2), (3, 1), (1, 4.5)])
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_norm_weighted_equals_its_definition(size, shape, temperature, p):
    grid = random_grid(size, dim=4)

    def reduce(tokens):
        return weighted(tokens, ((np.abs(tokens) ** p).sum(-1) / 4) ** (1 / p) / temperature)

    tokens = checked(NormWeighted(shape, temperature=temperature, p=p), grid)
    torch.testing.assert_close(tokens, by_loops([grid.numpy()], shape, reduce), **EXACT)


def test_norm_weighted_by_stride_loses_the_remainder():
    grid, pooling = random_grid((3, 5, 7)), NormWeighted(stride=2)
    cut = grid[:, :, :4, :6]
    torch.testing.assert_close(checked(pooling, grid), NormWeighted((None, 2, 3))(cut), **EXACT)
    assert pooling.windows(3, 5, 7) == {"height": [(0, 2), (2, 4)], "width": [(0, 2), (2, 4), (4, 6)]}
    assert pooling.num_tokens(64, 27, 27) == 64 * 13 * 13
    for call in (lambda: pooling(grid[:, :, :1]), lambda: pooling.num_tokens(1, 1, 5)):
        with pytest.raises(PoolingShapeError, match=r"pooling.stride=2 is larger than the patch grid"):
            call()


@pytest.mark.parametrize(("scale", "temperature"), [(100, 0.01), (5, 0.2), (0, 1)])
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_text_guided_equals_its_definition(size, shape, scale, temperature):
    grid = random_grid(size)
    text, array = random_text(grid), grid.numpy()
    shares = np.zeros(array.shape[:4])
    for b in range(2):
        for place in np.ndindex(*size):
            token, prompt = array[(b, *place)], text[b].numpy()
            shares[(b, *place)] = np.exp(scale * token @ prompt / np.sqrt((token**2).sum() * (prompt**2).sum()))
        shares[b] /= shares[b].sum()
    expected = by_loops([array, shares], shape, lambda tokens, share: weighted(tokens, share / temperature))
    tokens = checked(TextGuided(shape, scale, temperature), grid, PoolingContext(text=text))
    torch.testing.assert_close(tokens, expected, rtol=1e-8, atol=1e-9)


def test_text_guided_prefers_what_is_like_the_prompt():
    grid = torch.eye(4, dtype=torch.float64).view(1, 1, 2, 2, 4)
    context = PoolingContext(text=2 * grid[0, 0, 1, :1].clone())
    torch.testing.assert_close(TextGuided((1, 1, 1))(grid, context), grid[:, 0, 1, :1], rtol=0, atol=1e-6)
    pooling = TextGuided()
    assert pooling.needs == Chain([pooling]).needs == {"text"}
    for context in (None, PoolingContext(), PoolingContext(text=torch.ones(2, 4)), PoolingContext(text=torch.ones(4))):
        with pytest.raises(PoolingContractError, match=r"TextGuided needs text of \(1, 4\)"):
            pooling(grid, context)

    class Tower:
        cls, by_clip = True, False

    check_needs(pooling, Tower(), "mini", "projector")
    with pytest.raises(ModelError, match=r"say pooling\.stage=projector, not encoder"):
        check_needs(pooling, Tower(), "mini", "encoder")
    with pytest.raises(ModelError, match="cannot be trained under"):
        check_needs(pooling, Tower(), "mini", "projector", one_question=False)


@pytest.mark.parametrize("size", [*GRIDS, (16, 24, 24)], ids=str)
def test_oracles(size):
    """Maps that must coincide."""
    grid = random_grid(size, batch=1)
    context = PoolingContext(text=random_text(grid))
    positive, none = grid.abs() + 0.1, NoPooling()(grid)
    shapes = [(16, 12, 12), (2, 3, 3), (None, 16, 16)]
    for shape in shapes:
        mean = Adaptive(shape)(grid)
        for pooling in (
            TrimmedMean(shape, 0),
            GeneralisedMean(shape, 1, "sign"),
            NormWeighted(shape, temperature=None),
            NormWeighted(shape, temperature=1e12),
            TextGuided(shape, temperature=None),
            TextGuided(shape, scale=0),
        ):
            torch.testing.assert_close(pooling(grid, context), mean, **EXACT)
        torch.testing.assert_close(GeneralisedMean(shape, 1)(positive), Adaptive(shape)(positive), **EXACT)
        torch.testing.assert_close(
            GeneralisedMean(shape, 3000)(positive), Adaptive(shape, "max")(positive), rtol=4e-3, atol=0
        )
        hottest = NormWeighted(shape, temperature=1e-9)(grid)
        assert (hottest[0, :, None] == none[0]).all(-1).any(1).all()  # one token of the grid each
    for pooling in (
        Subsample(10**6),
        Subsample(none.shape[1], "lowest_norm"),
        TokenMerging(r=0, steps=3),
        TokenMerging(target=10**6),
        TokenMerging(target=none.shape[1], within="clip"),
        GridPyramid((1, 1), (1, 1)),
        GridPyramid((4,), (1000,)),
    ):
        assert torch.equal(pooling(grid), none), pooling.label
    for pooling in (Median(size), TrimmedMean(size, 0.4), NormWeighted(size), NormWeighted(stride=1)):
        torch.testing.assert_close(pooling(grid), none, **EXACT)
    if size == (16, 24, 24):
        strided = Strided(2)(grid)
        torch.testing.assert_close(Adaptive((16, 12, 12))(grid), strided, **EXACT)
        torch.testing.assert_close(NormWeighted(stride=2, temperature=None)(grid), strided, **EXACT)
    if size[1] * size[2] > 1:
        halves = TokenMerging(target=1)(grid)  # all of a frame is one token in the end: its mean
        torch.testing.assert_close(halves, Adaptive((None, 1, 1))(grid), **EXACT)


@pytest.mark.parametrize("mode", ["lowest_norm", "highest_norm"])
@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_subsample_by_norm_equals_its_definition(size, mode):
    grid = random_grid(size)
    tokens = grid.flatten(1, 3).numpy()
    count = tokens.shape[1]
    for kept in {1, 2, count // 2 or 1, count}:
        expected = []
        for clip in tokens:
            order = sorted(range(count), key=lambda i, clip=clip: np.sqrt((clip[i] ** 2).sum()))
            order = order[::-1] if mode == "highest_norm" else order
            expected.append(clip[sorted(order[:kept])])
        found = checked(Subsample(kept, mode), grid)
        np.testing.assert_array_equal(found.numpy(), np.stack(expected)[:, :count])
    equal = torch.eye(500)[None, None, None]
    assert torch.equal(Subsample(9, mode)(equal)[0], equal[0, 0, 0, :9])  # the earlier ones


def test_subsample_uniform_is_the_published_rule():
    for count in [*range(1, 40), 576, 28800, 36864]:
        for kept in {1, 2, 3, 7, min(count, 2880), count} - {k for k in (2, 3, 7) if k > count}:
            published = torch.linspace(0, count - 1, steps=kept, dtype=torch.float64).round().long().tolist()
            assert Subsample(kept).places(count) == published
    assert Subsample(2880).num_tokens(50, 24, 24) == 2880
    assert Subsample(2880).num_tokens(2, 24, 24) == 1152
    assert Subsample(3).windows(1, 1, 5) == {"kept": [0, 2, 4]}
    assert Subsample(3, "lowest_norm").windows(1, 1, 5) == {}


def test_subsample_random_is_drawn_for_the_size():
    grid = random_grid((3, 4, 5))
    pooling = Subsample(11, "random", seed=3)
    places = pooling.places(60)
    assert places == sorted(set(places))
    assert len(places) == 11
    assert torch.equal(checked(pooling, grid), grid.flatten(1, 3)[:, places])
    assert pooling.places(60) == Subsample(11, "random", 3).places(60) != Subsample(11, "random", 4).places(60)
    counts = np.bincount(np.concatenate([Subsample(3, "random", s).places(6) for s in range(2000)]))
    assert abs(counts / 1000 - 1).max() < 0.1


def merged_by_loops(tokens, schedule):
    """Lists of (mean, size) merged pair by pair."""
    groups = [(token, 1) for token in tokens]
    for count in schedule:
        best = []
        for i in range(0, len(groups), 2):
            cosines = [
                groups[i][0] @ groups[j][0] / (np.linalg.norm(groups[i][0]) * np.linalg.norm(groups[j][0]))
                for j in range(1, len(groups), 2)
            ]
            best.append((max(cosines, default=-9), i, 2 * int(np.argmax(cosines)) + 1 if cosines else 0))
        gone = sorted(best, key=lambda pair: -pair[0])[:count]
        for _, source, target in gone:
            (value, size), (other, others) = groups[source], groups[target]
            groups[target] = ((value * size + other * others) / (size + others), size + others)
        groups = [group for i, group in enumerate(groups) if i not in {source for _, source, _ in gone}]
    return np.stack([value for value, _ in groups])


MERGES = [
    {"target": 5},
    {"target": 1},
    {"r": 3, "steps": 2},
    {"r": 2, "target": 7},
    {"steps": 2},
    {"target": 4, "within": "clip"},
    {"r": 5, "steps": 3, "within": "clip"},
]


@pytest.mark.parametrize("settings", MERGES, ids=str)
@pytest.mark.parametrize("size", GRIDS[:-1], ids=str)
def test_token_merging_equals_its_definition(size, settings):
    grid, pooling = random_grid(size, dim=4), TokenMerging(**settings)
    frames = size[0] if pooling.within == "frame" else 1
    groups = grid.flatten(1, 3).unflatten(1, (frames, -1)).numpy()
    schedule = pooling.schedule(groups.shape[2])
    expected = np.stack([np.concatenate([merged_by_loops(part, schedule) for part in clip]) for clip in groups])
    torch.testing.assert_close(checked(pooling, grid), torch.from_numpy(expected), **EXACT)
    assert pooling.windows(*size) == {"merged_at_each_step": schedule}


def test_token_merging_schedules():
    assert TokenMerging(144).schedule(576) == [288, 144]
    assert TokenMerging(100).schedule(576) == [288, 144, 44]
    assert TokenMerging(r=16, steps=3).schedule(40) == [16, 12, 6]
    assert TokenMerging(1).schedule(1) == TokenMerging(r=0, steps=5).schedule(9) == []
    assert TokenMerging(144).num_tokens(64, 24, 24) == 64 * 144
    assert TokenMerging(2304, within="clip").num_tokens(64, 24, 24) == 2304


def test_token_merging_keeps_order_and_zeros():
    directions = torch.eye(3, dtype=torch.float64)
    tokens = torch.stack([directions[0], directions[1], 3 * directions[1], 0 * directions[0], directions[2]])
    grid = tokens.view(1, 1, 1, 5, 3)
    merged = TokenMerging(r=1, steps=1)(grid)[0]  # only two are alike: the third goes into the second
    torch.testing.assert_close(merged, torch.stack([tokens[0], 2 * directions[1], tokens[3], tokens[4]]))
    zeros = TokenMerging(2)(torch.zeros(1, 2, 3, 3, 2))
    assert torch.equal(zeros, torch.zeros(1, 4, 2))
    grid[0, 0, 0, 4] = torch.nan
    kept = TokenMerging(r=1, steps=1)(grid)[0]
    assert kept[:3].isfinite().all()  # what is not a number is merged last
    assert kept[3].isnan().all()


def test_token_merging_in_pieces_is_the_same(monkeypatch):
    grid = random_grid((2, 5, 7))
    whole = TokenMerging(6, within="clip")(grid)
    monkeypatch.setattr("videopool.pooling.token_merging.AT_ONCE", 150)
    torch.testing.assert_close(TokenMerging(6, within="clip")(grid), whole, **EXACT)


def pyramid_by_loops(array, levels):
    frames = [array[:, t].copy() for t in range(array.shape[1])]
    batch, height, width, dim = frames[0].shape
    for count, step in levels:
        seen = len(frames) // step
        indices = torch.linspace(0, len(frames), steps=seen + 1, dtype=torch.float64)[1:] - 1
        indices = indices.round().long().tolist()
        before = [frame.copy() for frame in frames]
        rows, cols = {1: (1, 1), 2: (2, 1), 3: (3, 1), 4: (2, 2), 5: (5, 1), 6: (3, 2), 8: (4, 2), 9: (3, 3)}[count]
        small = (math.ceil(height / rows), math.ceil(width / cols))
        for start in range(0, seen - count + 1, count):
            canvas = np.zeros((batch, rows * small[0], cols * small[1], dim))
            for place, index in enumerate(indices[start : start + count]):
                top, left = place // cols * small[0], place % cols * small[1]
                for y in range(small[0]):
                    for x in range(small[1]):
                        window = before[index][
                            :,
                            math.floor(y * height / small[0]) : math.ceil((y + 1) * height / small[0]),
                            math.floor(x * width / small[1]) : math.ceil((x + 1) * width / small[1]),
                        ]
                        canvas[:, top + y, left + x] = window.mean((1, 2))
            frames[indices[start + count - 1]] = canvas[:, :height, :width]
    return torch.from_numpy(np.stack(frames, axis=1))


LEVELS = [[(4, 2), (4, 4), (4, 8)], [(4, 1)], [(2, 1), (6, 2)], [(3, 2)], [(9, 1), (1, 3)], [(5, 1), (8, 1)]]


@pytest.mark.parametrize("levels", LEVELS, ids=str)
@pytest.mark.parametrize("size", [(1, 1, 1), (5, 3, 5), (16, 6, 4), (33, 2, 7)], ids=str)
def test_grid_pyramid_equals_its_definition(size, levels):
    grid, pooling = random_grid(size), GridPyramid(*zip(*levels, strict=True))
    given = grid.clone()
    torch.testing.assert_close(pooling.pool(grid), pyramid_by_loops(grid.numpy(), levels), **EXACT)
    assert torch.equal(grid, given)
    assert checked(pooling, grid).shape[1] == np.prod(size)


def test_grid_pyramid_as_published():
    first, second, third = GridPyramid().groups(64)
    assert first == [[i, i + 2, i + 4, i + 6] for i in range(1, 64, 8)]
    assert second == [[i, i + 4, i + 8, i + 12] for i in range(3, 64, 16)]
    assert third == [[7, 15, 23, 31], [39, 47, 55, 63]]
    for frames in range(1, 200):
        for step in (1, 2, 4, 8):
            seen = frames // step
            published = (torch.linspace(0, frames, steps=seen + 1)[1:] - 1).round().long().tolist()  # in float32
            chosen = [group[0] for group in GridPyramid((1,), (step,)).groups(frames)[0]]
            halves = [seen > 0 and 2 * k * frames % (2 * seen) == seen for k in range(1, seen + 1)]
            for ours, theirs, half in zip(chosen, published, halves, strict=True):
                assert ours == theirs or (half and abs(ours - theirs) == 1)
                assert not half or ours % 2 == 0
    chain = Chain([GridPyramid(), NormWeighted(stride=2)])
    assert chain.num_tokens(64, 24, 24) == 64 * 144
    assert chain.windows(16, 4, 4)["steps"][0]["tiled"][0] == [[1, 3, 5, 7], [9, 11, 13, 15]]


def resampled_by_loops(grid, pooling):
    """numpy, from the parameters by name."""
    weights = {name: value.detach().double().numpy() for name, value in pooling.named_parameters()}

    def layer_norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return normed * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    frames, known = grid.shape[1], weights["frames"]
    times = []
    for t in range(frames):
        at = min(max((t + 0.5) * len(known) / frames - 0.5, 0), len(known) - 1)
        low = int(at)
        times.append((1 - (at - low)) * known[low] + (at - low) * known[min(low + 1, len(known) - 1)])
    found = []
    for clip in grid.double().numpy():
        tokens = np.concatenate([(clip[t] + times[t]).reshape(-1, clip.shape[-1]) for t in range(frames)])
        x = weights["queries"]
        for i in range(pooling.depth):
            name, heads = f"layers.{i}", pooling.layers[i].heads
            normed = layer_norm(x, f"{name}.norm_queries")
            read = np.concatenate([layer_norm(tokens, f"{name}.norm_tokens"), normed])
            query = normed @ weights[f"{name}.to_query.weight"].T
            keys, values = np.split(read @ weights[f"{name}.to_key_value.weight"].T, 2, axis=1)
            size = query.shape[1] // heads
            out = []
            for h in range(heads):
                part = slice(h * size, (h + 1) * size)
                scores = query[:, part] @ keys[:, part].T / math.sqrt(size)
                out.append(special.softmax(scores, axis=1) @ values[:, part])
            x = x + np.concatenate(out, axis=1) @ weights[f"{name}.to_out.weight"].T
            hidden = layer_norm(x, f"{name}.feed_forward.0") @ weights[f"{name}.feed_forward.1.weight"].T
            hidden = hidden * (1 + special.erf(hidden / math.sqrt(2))) / 2
            x = x + hidden @ weights[f"{name}.feed_forward.3.weight"].T
        found.append(layer_norm(x, "norm"))
    return torch.from_numpy(np.stack(found))


@pytest.mark.parametrize("size", [(1, 1, 1), (4, 2, 3), (3, 5, 1), (9, 2, 2)], ids=str)
def test_attention_resampler_equals_its_definition(size):
    grid = random_grid(size, dim=6)
    pooling = AttentionResampler(5, dim=6, depth=2, heads=3, head_dim=2, frames=4, seed=7).double()
    with torch.no_grad():
        for value in pooling.parameters():  # larger than at first, so that all parts count
            value.mul_(1.3).add_(0.2 * torch.arange(value.shape[-1]))
    torch.testing.assert_close(checked(pooling, grid), resampled_by_loops(grid, pooling), **EXACT)


def test_attention_resampler_is_learned_and_seeded():
    first, same, other = (AttentionResampler(4, dim=8, heads=2, head_dim=4, seed=s) for s in (1, 1, 2))
    torch.manual_seed(5)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.queries, other.queries)
    assert first.num_tokens(64, 24, 24) == 4
    names = dict(first.named_parameters())
    assert {"queries", "frames", "norm.weight", "layers.1.feed_forward.3.weight"} <= names.keys()
    assert all(value.requires_grad for value in names.values())
    grid = random_grid((3, 2, 2), dim=8).float()
    (first(grid)[..., 0] ** 2).sum().backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in names.values())
    other.load_state_dict(first.state_dict())
    assert torch.equal(other(grid), first(grid))
    assert first(grid.double()).dtype == torch.float64  # computed in the parameters' precision
    with pytest.raises(PoolingShapeError, match=r"pooling.dim=8, but the grid has 3 .*say pooling.dim=3"):
        first(random_grid((1, 2, 2)))
    signatures = [map_signature(AttentionResampler(4, 8, heads=2, head_dim=4, seed=s), 2, 3, 3) for s in (1, 1, 2)]
    assert signatures[0] == signatures[1] != signatures[2]
    assert len(signatures[0]) == 7


EACH = [
    Median((2, 3, 2)),
    TrimmedMean((2, 3, 2), 0.2),
    GeneralisedMean((2, 3, 2)),
    GeneralisedMean((2, 3, 2), 3, "sign"),
    NormWeighted((2, 3, 2)),
    NormWeighted(stride=2, temperature=0.5, p=1),
    TextGuided((2, 3, 2)),
    TextGuided((2, 3, 2), 10, 0.1),
    Subsample(7),
    Subsample(7, "random"),
    Subsample(7, "lowest_norm"),
    Subsample(7, "highest_norm"),
    TokenMerging(6),
    TokenMerging(6, within="clip"),
    TokenMerging(r=3, steps=2),
    GridPyramid((2, 4), (1, 1)),
    AttentionResampler(4, dim=3, heads=2, head_dim=4),
]
UNSCALED = (AttentionResampler, GeneralisedMean, NormWeighted)


@pytest.mark.parametrize("pooling", EACH, ids=lambda p: p.label)
def test_properties(pooling):
    grid = random_grid((5, 4, 6), seed=3)
    text = random_text(grid)
    context = PoolingContext(text=text)
    tokens = checked(pooling, grid, context)
    precision = {"rtol": 1e-4, "atol": 1e-5} if isinstance(pooling, AttentionResampler) else {}
    alone = [pooling(grid[i : i + 1], PoolingContext(text=text[i : i + 1])) for i in range(2)]
    torch.testing.assert_close(torch.cat(alone), tokens, **precision)  # no mixing in a batch
    assert torch.equal(pooling(grid, context), tokens)  # nothing is drawn anew
    if not isinstance(pooling, UNSCALED):
        torch.testing.assert_close(pooling(2.5 * grid, context), 2.5 * tokens)  # scale goes through
    if not isinstance(pooling, AttentionResampler):
        mixed = PoolingContext(text=text[:, [2, 0, 1]])
        torch.testing.assert_close(pooling(grid[..., [2, 0, 1]], mixed), tokens[..., [2, 0, 1]])
    single = pooling(grid.float(), PoolingContext(text=text.float()))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), tokens, rtol=1e-4, atol=1e-4)
    half = pooling(grid.bfloat16(), PoolingContext(text=text.bfloat16()))
    assert half.dtype == torch.bfloat16
    rounded = pooling(grid.bfloat16().double(), PoolingContext(text=text.bfloat16().double()))
    torch.testing.assert_close(half.double(), rounded, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("pooling", EACH, ids=lambda p: p.label)
def test_gradients(pooling):
    small = random_grid((3, 3, 4), batch=1).requires_grad_()
    context = PoolingContext(text=random_text(small.detach()).requires_grad_())
    pooling = AttentionResampler(2, 3, 1, 1, 2).double() if isinstance(pooling, AttentionResampler) else pooling
    assert torch.autograd.gradcheck(lambda grid: pooling(grid, context), (small,))


@pytest.mark.parametrize("pooling", EACH, ids=lambda p: p.label)
def test_zeros_and_what_is_no_number(pooling):
    grid = torch.zeros(1, 3, 4, 4, 3, dtype=torch.float64, requires_grad=True)
    context = PoolingContext(text=torch.zeros(1, 3, dtype=torch.float64))
    tokens = pooling(grid, context)
    assert tokens.isfinite().all()
    tokens.sum().backward()
    assert grid.grad.isfinite().all()
    if not isinstance(pooling, AttentionResampler):
        assert (tokens.abs() <= 1e-6 + 1e-12).all()
    broken = random_grid((3, 4, 4), batch=2)
    broken[0, 1, 2, 1] = torch.nan
    context = PoolingContext(text=random_text(broken))
    tokens = pooling(broken, context)
    assert tokens[1].isfinite().all()  # the other clip is untouched
    kept = isinstance(pooling, Subsample) and pooling.mode in ("uniform", "random", "lowest_norm")
    assert tokens[0].isnan().any() or kept  # never hidden, unless it was left out


def test_robust_means_ignore_an_outlier():
    grid = torch.ones(1, 2, 3, 3, 2)
    grid[0, 0, 1, 1] = 1e6
    for pooling in (Median((1, 1, 1)), TrimmedMean((1, 1, 1), 0.1)):
        assert torch.equal(pooling(grid), torch.ones(1, 1, 2))
        shuffled = grid.flatten(1, 3)[:, torch.randperm(18)].view(grid.shape)
        assert torch.equal(pooling(shuffled), torch.ones(1, 1, 2))  # a window knows no order
    assert Adaptive((1, 1, 1))(grid).max() > 1e4


def test_large_powers_stay_finite():
    grid = 1000 * random_grid((2, 4, 4)).float()
    for negative in ("clamp", "sign"):
        assert GeneralisedMean((1, 2, 2), 50, negative)(grid).isfinite().all()


def test_merging_within_frames_moves_with_the_frames():
    grid, order = random_grid((5, 4, 3)), torch.tensor([3, 0, 4, 1, 2])
    tokens = TokenMerging(5)(grid).unflatten(1, (5, 5))
    torch.testing.assert_close(TokenMerging(5)(grid[:, order]).unflatten(1, (5, 5)), tokens[:, order])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Median((0, 1, 1)), "pooling.shape must be three positive integers"),
        (lambda: TrimmedMean((1, 1)), "pooling.shape must be three positive integers"),
        (lambda: TrimmedMean(trim=0.5), "pooling.trim=0.5 leaves nothing"),
        (lambda: TrimmedMean(trim=-0.1), "pooling.trim must be a number of at least 0 and at most 0.5, got -0.1"),
        (lambda: TrimmedMean(trim="a"), "pooling.trim must be a number"),
        (lambda: GeneralisedMean(p=0), "pooling.p must be a number of more than 0, got 0"),
        (lambda: GeneralisedMean(p=math.inf), "pooling.p must be a number of more than 0, got inf"),
        (lambda: GeneralisedMean(p=True), "pooling.p must be a number"),
        (lambda: GeneralisedMean(negative="abs"), "pooling.negative='abs': choose one of clamp, sign"),
        (lambda: NormWeighted(), "say one of pooling.shape and pooling.stride"),
        (lambda: NormWeighted((1, 1, 1), 2), "say one of pooling.shape and pooling.stride"),
        (lambda: NormWeighted(stride=0), "pooling.stride must be a positive integer, got 0"),
        (lambda: NormWeighted(stride=2, temperature=0), "pooling.temperature must be a number of more than 0, got 0"),
        (lambda: NormWeighted(stride=2, p=0.5), "pooling.p must be a number of at least 1, got 0.5"),
        (lambda: TextGuided(temperature=-1), "pooling.temperature must be a number of more than 0"),
        (lambda: TextGuided(scale=-1), "pooling.scale must be a number of at least 0"),
        (lambda: TextGuided(scale=math.nan), "pooling.scale must be a number"),
        (lambda: GridPyramid((4, 4), (2,)), "pooling.frames and pooling.steps must have one number for each level"),
        (lambda: GridPyramid((), ()), "pooling.frames must be a list of at least one positive integer"),
        (lambda: GridPyramid(4, (2,)), "pooling.frames must be a list of at least one positive integer, got 4"),
        (lambda: GridPyramid((4,), (0,)), "pooling.steps must be a positive integer, got 0"),
        (lambda: Subsample(0), "pooling.tokens must be a positive integer, got 0"),
        (lambda: Subsample(5, "first"), "pooling.mode='first': choose one of uniform, random"),
        (lambda: Subsample(5, seed=-1), "pooling.seed must be an integer of at least 0, got -1"),
        (lambda: Subsample(5, seed=1.0), "pooling.seed must be an integer of at least 0"),
        (lambda: TokenMerging(), "say pooling.target or pooling.steps"),
        (lambda: TokenMerging(r=3), "say pooling.target or pooling.steps"),
        (lambda: TokenMerging(4, r=0), "pooling.r=0 never comes to pooling.target=4"),
        (lambda: TokenMerging(0), "pooling.target must be a positive integer"),
        (lambda: TokenMerging(4, r=-1), "pooling.r must be an integer of at least 0"),
        (lambda: TokenMerging(4, within="row"), "pooling.within='row': choose one of frame, clip"),
        (lambda: AttentionResampler(0), "pooling.queries must be a positive integer"),
        (lambda: AttentionResampler(dim=None), "pooling.dim must be a positive integer, got None"),
        (lambda: AttentionResampler(heads=0), "pooling.heads must be a positive integer"),
        (lambda: AttentionResampler(seed="a"), "pooling.seed must be an integer"),
    ],
)
def test_bad_parameters_are_refused(make, message):
    with pytest.raises(PoolingShapeError, match=message):
        make()


def test_labels_and_signatures_tell_them_apart():
    labels = [pooling.label for pooling in [*EACH, Median(), NormWeighted(stride=2), TokenMerging(2304)]]
    assert len(set(labels)) == len(labels)
    assert Median().label == "median 16x12x12"
    assert TrimmedMean((None, 6, 6)).label == "trimmed mean 0.25 Tx6x6"
    assert GeneralisedMean(negative="sign").label == "generalised mean 3 sign 16x12x12"
    assert NormWeighted(stride=2).label == "norm weighted t1 stride 2"
    assert NormWeighted((1, 2, 3), temperature=None, p=1).label == "norm weighted tinf p1 1x2x3"
    assert TextGuided().label == "text guided t0.01 16x8x8"
    assert Subsample(9, "random", 2).label == "subsample 9 random seed 2"
    assert TokenMerging(144).label == "token merging to 144"
    assert TokenMerging(r=8, steps=4, within="clip").label == "token merging r 8 steps 4 clip"
    assert GridPyramid().label == "grid pyramid 4/2 4/4 4/8"
    assert AttentionResampler(dim=8).label == "attention resampler 64 depth 2"
    size = (5, 4, 6)
    signatures = {str(map_signature(pooling, *size)) for pooling in EACH}
    assert len(signatures) == len(EACH)
    mean = map_signature(Adaptive((2, 3, 2)), *size)
    assert map_signature(GeneralisedMean((2, 3, 2), 1, "sign"), *size) == mean
    assert map_signature(TrimmedMean((2, 3, 2), 0), *size) == mean
    assert map_signature(NormWeighted((2, 3, 2), temperature=None), *size) == mean
    assert map_signature(TokenMerging(10**6), *size) == map_signature(NoPooling(), *size)
    # on features without a sign both are the same
    assert map_signature(GeneralisedMean((2, 3, 2)), *size) != map_signature(
        GeneralisedMean((2, 3, 2), 3, "sign"), *size
    )


@pytest.mark.parametrize(
    ("overrides", "frames", "tokens", "label"),
    [
        ("median", 16, 2304, "median 16x12x12"),
        ("trimmed_mean pooling.trim=0", 16, 2304, "trimmed mean 0 16x12x12"),
        ("generalised_mean pooling.p=5", 16, 2304, "generalised mean 5 16x12x12"),
        ("norm_weighted", 64, 64 * 144, "norm weighted t1 stride 2"),
        ("norm_weighted pooling.stride=null pooling.shape=[4,6,6]", 64, 144, "norm weighted t1 4x6x6"),
        ("norm_weighted pooling.temperature=null", 1, 144, "norm weighted tinf stride 2"),
        ("grid_pyramid", 64, 64 * 576, "grid pyramid 4/2 4/4 4/8"),
        ("st_gridpool", 64, 64 * 144, "grid pyramid 4/2 4/4 4/8 + norm weighted t1 stride 2"),
        ("text_guided", 32, 1024, "text guided t0.01 16x8x8"),
        ("subsample", 50, 2880, "subsample 2880 uniform"),
        ("token_merging", 16, 2304, "token merging to 144"),
        ("attention_resampler pooling.dim=64", 16, 64, "attention resampler 64 depth 2"),
    ],
)
def test_configurations_build(hydra_conf, overrides, frames, tokens, label):
    config = hydra_conf(*f"pooling={overrides}".split())
    pooling = build(config, "pooling", without=("stage",))
    assert pooling.num_tokens(frames, 24, 24) == tokens
    assert pooling.label == label
    assert config.pooling.stage in ("projector", "encoder")


def page():
    return (ROOT / "docs" / "poolings.md").read_text()


def test_the_page_lists_what_there_is_and_every_file_says_what_it_is():
    table = page().split("## The catalogue")[1].split("\n\n")[0]
    listed = set(re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in table.splitlines()[3:])))
    configured = {path.stem: path.read_text() for path in (shipped("conf") / "pooling").glob("*.yaml")}
    assert listed <= configured.keys()
    assert all(text.startswith("# ") for text in configured.values())
    for row in table.splitlines()[3:]:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        name = re.findall(r"`(\w+)`", cells[0])[0]
        assert f"stage: {cells[4]}" in configured[name], name


def test_a_pooling_of_ones_own(tmp_path, monkeypatch):
    """The page's module and the page's test of it, from outside the package."""
    for block in re.findall(r"```python\n(.*?)```", page(), flags=re.DOTALL):
        (tmp_path / block.split("\n")[0].removeprefix("# ")).write_text(block)
    assert {path.name for path in tmp_path.iterdir()} == {"nearest.py", "test_nearest.py"}
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        pooling = instantiate({"_target_": "nearest.Nearest"})
        assert isinstance(pooling, Pooling)
        assert pooling.num_tokens(5, 24, 24) == 5
        assert pooling.needs == {"cls"}
        grid = random_grid((5, 3, 4))
        cls = random_grid((5, 1, 1), seed=1)[:, :, 0, 0]
        assert checked(pooling, grid, PoolingContext(cls=cls)).shape == (2, 5, 3)
        assert map_signature(pooling, 5, 3, 4)[0] == 5
        importlib.import_module("test_nearest").test_nearest()
    finally:
        for name in ("nearest", "test_nearest"):
            sys.modules.pop(name, None)
