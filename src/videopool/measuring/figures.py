"""Figures of the norms of points: curves with a panel per stage; maps and attention of one point."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from videopool.figures.norms import ALL, attention_against_norm, by_distance, frame_profiles, norm_histograms, norm_maps
from videopool.figures.style import save_figure
from videopool.norms import SavedNorms
from videopool.norms.outliers import GAP, IN_CLIP, ROBUST_Z, TIMES_MEDIAN

FOLDER = "figures"
ATTENTION = ("edges", "attention", "tokens")  # the arrays of a curve of attention

Curves = dict[str, dict[str, Any]]  # by stage and name


def save_figures(figures: Mapping[str, Figure], folder: Path, prefix: str = "") -> list[str]:
    """Save figures under their names. Returns the files' names."""
    return [file for name, figure in figures.items() for file in save_figure(figure, folder / (prefix + name))]


def point_figures(saved: SavedNorms) -> dict[str, Figure]:
    """The figures of one point by name: those of curve_figures(), and map, outlier_map, attention where measured."""
    figures = curve_figures({"tokens": saved}, alone=True)
    sizes, words = _sizes([saved]), _rule_words(saved)
    if maps := _arrays(saved, "map.norm"):
        figures["map"] = norm_maps(maps, f"mean L{_short_p(saved)} norm", sizes=sizes)
    outliers = _arrays(saved, f"map.{TIMES_MEDIAN}")
    if outliers := {stage: shares for stage, shares in outliers.items() if np.nansum(shares)}:
        figures["outlier_map"] = norm_maps(outliers, f"{words[TIMES_MEDIAN]}, %", percent=True, sizes=sizes)
    attention: dict[str, Any] = {
        name.replace("attention.", "layer "): tuple(saved.arrays[name][f"curve.{part}"] for part in ATTENTION)
        for name in _arrays(saved, "curve.attention")
    }
    if attention:
        clips = next(iter(saved.numbers["attention"].values()))["clips"]
        figures["attention"] = attention_against_norm(attention, f" ({clips} clips)")
    return figures


def curve_figures(points: Mapping[str, SavedNorms], alone: bool = False) -> dict[str, Figure]:
    """Figures with a panel per stage and a curve per point, by name: histogram, and where they were measured profile,
    redundancy, persistence. With one point `alone`, they mark thresholds and have a curve per rule of outliers.
    """
    first = next(iter(points.values()))
    words, sizes = _rule_words(first), _sizes(points.values())
    poolings = {name: str(point.numbers["about"]["pooling"]) for name, point in points.items()}
    lines = {stage: _rule_lines(first, stage) for stage in first.numbers["stages"]} if alone else None
    histograms = _curves(points, "histogram.counts", "histogram.edges")
    figures = {"histogram": norm_histograms(histograms, _short_p(first), lines, poolings, sizes)}
    if profiles := _curves(points, "frame.norm"):
        profiles = {stage: {name: own[0] for name, own in curves.items()} for stage, curves in profiles.items()}
        figures["profile"] = frame_profiles(profiles, poolings, sizes)
    if cosines := _by_distance(_curves(points, "distance.cosine")):
        figures["redundancy"] = by_distance(cosines, "cosine at equal positions", None, poolings, sizes)
    pairs: Curves = {}
    for rule in IN_CLIP if alone else (TIMES_MEDIAN,):
        for stage, curves in _curves(points, f"distance.{rule}", f"distance.{rule}.by_chance").items():
            pairs.setdefault(stage, {}).update({words[rule]: curves["tokens"]} if alone else curves)
    if again := _by_distance(pairs, percent=True):
        label = f"{'outliers' if alone else words[TIMES_MEDIAN]} again, %"
        chance = {stage: {name: 100 * own[1][1:] for name, own in curves.items()} for stage, curves in pairs.items()}
        figures["persistence"] = by_distance(again, label, chance, poolings, sizes, 10.0)
    return figures


def _arrays(saved: SavedNorms, key: str) -> dict[str, Any]:
    """An array of each stage that has it."""
    return {stage: arrays[key] for stage, arrays in saved.arrays.items() if key in arrays}


def _sizes(points: Iterable[SavedNorms]) -> dict[str, str]:
    """Numbers of tokens and clips of each stage, in words."""
    found: dict[str, str] = {}
    for stage in stages_of(points := list(points)):
        own = [point.numbers["stages"][stage] for point in points if stage in point.numbers["stages"]]
        ends = [sorted({f(each[name] for each in own) for f in (min, max)}) for name in ("tokens", "clips")]
        tokens, clips = (" to ".join(f"{number:,}" for number in numbers) for numbers in ends)
        found[stage] = f"{tokens} tokens, {clips}\u00a0clips"
    return found


def stages_of(points: Iterable[SavedNorms]) -> list[str]:
    """Names of all measured stages, in the order of their first appearance."""
    return list(dict.fromkeys(stage for point in points for stage in point.numbers["stages"]))


def _curves(points: Mapping[str, SavedNorms], *keys: str) -> Curves:
    """Arrays of each point, as a tuple; one curve for all if all points have the same, as before the pooling."""
    panels: Curves = {}
    for stage in stages_of(points.values()):
        arrays = {name: point.arrays.get(stage, {}) for name, point in points.items()}
        curves = {name: tuple(own[key] for key in keys) for name, own in arrays.items() if keys[0] in own}
        first, *others = curves.values() or [()]
        same = all(np.array_equal(a, b, equal_nan=True) for other in others for a, b in zip(first, other, strict=True))
        if others and same and len(curves) == len(points):
            curves = {ALL: first}
        if curves:
            panels[stage] = curves
    return panels


def _by_distance(curves: Curves, percent: bool = False) -> Curves:
    """The first array of each curve, from distance 1 on, where it has a number."""
    scale = 100 if percent else 1
    known = {
        stage: {name: scale * arrays[0][1:] for name, arrays in own.items() if np.isfinite(arrays[0][1:]).any()}
        for stage, own in curves.items()
    }
    return {stage: own for stage, own in known.items() if own}


def _short_p(saved: SavedNorms) -> str:
    """The p of the norm without a fraction of zero."""
    return f"{float(saved.numbers['about']['p']):g}"


def _rule_words(saved: SavedNorms) -> dict[str, str]:
    """Names of the rules in figures."""
    rules = saved.numbers["about"]["rules"]
    return {TIMES_MEDIAN: f"above {rules[TIMES_MEDIAN]:g} medians", ROBUST_Z: f"robust z above {rules[ROBUST_Z]:g}"}


def _rule_lines(saved: SavedNorms, stage: str) -> dict[str, float | None]:
    """The median and the thresholds of outliers (mean over clips), by name; None where a rule has none."""
    numbers = saved.numbers["stages"][stage]
    cutoffs = {words: numbers["outliers"][rule]["cutoff"] for rule, words in _rule_words(saved).items()}
    return {"median": numbers["quantiles"]["0.5"], **cutoffs, "gap": numbers[GAP]["cutoff"]}
