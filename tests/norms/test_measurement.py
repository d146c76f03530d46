"""Measurements that are saved and gone on with; attention against norm."""

import numpy as np
import pytest
import scipy.stats
import torch
from test_norm_statistics import CLIPS, made

from videopool.norms import AttentionNorms, ClipNorms, Measurement, NormsError, OutlierRules, load_norms
from videopool.norms.saved import PARTIAL, MeasuredSoFar, load_partial, save_partial

RULES = ("times_median", "robust_z")


def empty(stages=("encoder", "pooled")):
    return Measurement(stages, [2], 2.0, OutlierRules(times_median=2.0))


def add(measured, clip):
    grid, texture = clip
    measured.stages["encoder"].add(grid, texture)
    seen = measured.stages["pooled"].add(grid.flatten(0, 2))
    attention = torch.rand(len(seen.norms), generator=torch.Generator().manual_seed(1)).numpy()
    measured.attention[2].add(attention / 2 / attention.sum(), seen, np.nan_to_num(seen.norms) ** 0.5)


def test_a_measurement_goes_on_as_if_it_had_not_stopped(tmp_path):
    clips = list(made(CLIPS["grids"] * 3))
    whole = empty()
    for clip in clips:
        add(whole, clip)
    for number, clip in enumerate(clips):  # each clip by a new process, as it were
        part = empty()
        progress = load_partial(tmp_path, part)
        assert set(progress.done) == {str(n) for n in range(number)}
        add(part, clip)
        save_partial(tmp_path, part, MeasuredSoFar(progress.done | {str(number): ""}, {"broken": "no such file"}))
    part = empty()
    load_partial(tmp_path, part)
    assert part.numbers() == whole.numbers()
    for name, values in whole.arrays().items():
        np.testing.assert_array_equal(part.arrays()[name], values)


def test_damaged_or_foreign_parts_are_refused(tmp_path):
    save_partial(tmp_path, empty(), MeasuredSoFar())
    with pytest.raises(NormsError, match="force=true"):
        load_partial(tmp_path, empty(("projector",)))
    (tmp_path / PARTIAL).write_bytes(b"nonsense")
    with pytest.raises(NormsError, match="force=true"):
        load_partial(tmp_path, empty())
    with pytest.raises(NormsError, match=r"no whole norms\.json"):
        load_norms(tmp_path)


def test_attention_against_plain_loops():
    rng = np.random.default_rng(2)
    part, shares, ratios, correlations, entering, gets, are = AttentionNorms(RULES), [], [], [], [], [], []
    for size in (30, 12, 1):
        norms, attention, inside = rng.lognormal(0, 1, size), rng.random(size) / 40, rng.random(size)
        outliers = {"times_median": norms > 2, "robust_z": np.zeros(size, bool)}
        part.add(attention, ClipNorms(norms, np.ones(size, bool), outliers), inside)
        shares.append(sum(attention))
        ratios.append(
            max(attention) / sorted(attention)[size // 2]
            if size % 2
            else max(attention) / np.mean(sorted(attention)[size // 2 - 1 : size // 2 + 1])
        )
        if size > 1:
            correlations.append(scipy.stats.spearmanr(norms, attention).statistic)
            entering.append(scipy.stats.spearmanr(inside, attention).statistic)
        if (norms > 2).any():
            gets.append(sum(a for a, n in zip(attention, norms, strict=True) if n > 2) / sum(attention))
            are.append((norms > 2).mean())
    numbers = part.numbers()
    assert numbers["visual_share"] == pytest.approx(np.mean(shares))
    assert numbers["max_over_median"] == pytest.approx(np.mean(ratios))
    assert numbers["spearman"] == pytest.approx(np.mean(correlations))
    assert numbers["spearman_entering"] == pytest.approx(np.mean(entering))
    assert numbers["outliers"]["times_median"] == {
        "clips": len(gets),
        "attention": pytest.approx(np.mean(gets)),
        "tokens": pytest.approx(np.mean(are)),
    }
    assert numbers["outliers"]["robust_z"]["attention"] is None
    assert part.arrays()["curve.tokens"].sum() == 43
    # Equal attention is an equal share at every norm.
    even = AttentionNorms(RULES)
    none = {rule: np.zeros(9, bool) for rule in outliers}
    even.add(np.full(9, 0.05), ClipNorms(rng.random(9) + 0.1, np.ones(9, bool), none), np.ones(9))
    curve = even.arrays()["curve.attention"]
    np.testing.assert_allclose(curve[np.isfinite(curve)], 1)


def test_scores_of_frames_against_plain_loops():
    """Each frame sums to 1 with what precedes its patches; the largest is compared with its own frame's median."""
    rng, part = np.random.default_rng(4), AttentionNorms(RULES)
    shares, ratios, gets = [], [], []
    for frames, patches in ((3, 7), (1, 4), (5, 1)):
        scores = rng.random((frames, patches)) / patches
        norms = rng.lognormal(0, 1, (frames, patches))
        outliers = {"times_median": norms > 1.5, "robust_z": norms > 99}
        part.add(scores, ClipNorms(norms, np.ones_like(norms, bool), outliers))
        shares.append(np.mean([sum(row) for row in scores]))
        ratios.append(np.mean([max(row) / np.median(row) for row in scores]))
        if (norms > 1.5).any():
            gets.append(sum(s for s, n in zip(scores.flat, norms.flat, strict=True) if n > 1.5) / scores.sum())
    numbers = part.numbers()
    assert numbers["visual_share"] == pytest.approx(np.mean(shares))
    assert numbers["max_over_median"] == pytest.approx(np.mean(ratios))
    assert numbers["outliers"]["times_median"]["attention"] == pytest.approx(np.mean(gets))
    assert numbers["spearman_entering"] is None


def test_attention_that_is_not_finite_is_counted_and_left_out():
    rng, parts = np.random.default_rng(3), (AttentionNorms(RULES), AttentionNorms(RULES))
    for place in range(3):
        norms, attention = rng.lognormal(0, 1, 20), rng.random(20) / 40
        read = ClipNorms(norms, np.ones(20, bool), dict.fromkeys(("times_median", "robust_z"), norms > 2))
        for part in parts:
            if part is parts[1] or place != 1:  # a NaN in one token is in the attention of all
                part.add(attention * (np.nan if place == 1 else 1), read, norms)
    without, counted = (part.numbers() for part in parts)
    assert counted.pop("not_finite_clips") == 1 + without.pop("not_finite_clips")
    assert counted.pop("clips") == 1 + without.pop("clips")
    assert counted == without
    np.testing.assert_array_equal(parts[0].arrays()["curve.attention"], parts[1].arrays()["curve.attention"])


def test_tokens_with_places_have_the_maps_of_their_grid():
    """In any order those of the whole grid; of some tokens, means over the clips that have one at a place."""
    rng, size = np.random.default_rng(5), (3, 2, 4)
    whole, shuffled, some = (empty().stages["encoder"] for _ in range(3))
    norms, counts = np.zeros(8), np.zeros(8)
    for _ in range(4):
        grid = torch.from_numpy(rng.standard_normal((*size, 6)))
        order, tokens = rng.permutation(24), grid.flatten(0, 2)
        whole.add(grid)
        shuffled.add(tokens[order], placed=(order, size))
        kept = order[:7]
        some.add(torch.cat([tokens[kept], tokens[:1]]), placed=(np.append(kept, -1), size))  # one has no place
        np.add.at(norms, kept % 8, torch.linalg.vector_norm(tokens[kept], dim=-1).numpy())
        np.add.at(counts, kept % 8, 1)
    for name in ("map.norm", "map.times_median", "frame.norm"):
        np.testing.assert_allclose(shuffled.arrays()[name], whole.arrays()[name])
    assert "distance.cosine" in whole.arrays().keys() - shuffled.arrays().keys()
    expected = np.where(counts > 0, norms / np.maximum(counts, 1), np.nan)
    np.testing.assert_allclose(some.arrays()["map.norm"].ravel(), expected)
    assert some.numbers()["tokens"] == 4 * 8
