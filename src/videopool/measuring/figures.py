"""Figures of the norms of points: curves with a panel per stage; maps and attention of one point."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from videopool.figures.norms import (
    ALL,
    attention_against_norm,
    birth_layers,
    by_distance,
    crossed_bars,
    fate_bars,
    frame_profiles,
    norm_histograms,
    norm_maps,
)
from videopool.figures.style import formats, save_figure
from videopool.measuring.stages import ENCODER, LLM
from videopool.norms import SavedNorms
from videopool.norms.outliers import GAP, MASSIVE, PHI, ROBUST_Z, TIMES_MEDIAN
from videopool.norms.overlap import EVERY

FOLDER = "figures"
ATTENTION = ("edges", "attention", "tokens")  # the arrays of a curve of attention
DRAWN = (
    TIMES_MEDIAN,
    ROBUST_Z,
)  # rules with curves of their own; those with a fixed threshold can be read off the axis

Curves = dict[str, dict[str, Any]]  # by stage and name


def save_figures(draw: Callable[[], Mapping[str, Figure]], folder: Path, prefix: str = "") -> list[str]:
    """Draw figures and save them under their names, unless VIDEOPOOL_FIGURES=none. Returns the files' names."""
    if not formats():
        return []
    return [file for name, figure in draw().items() for file in save_figure(figure, folder / (prefix + name))]


def point_figures(saved: SavedNorms) -> dict[str, Figure]:
    """The figures of one point by name: those of curve_figures(), and where they were measured map, outlier_map,
    attention, scores, crossed.
    """
    figures = curve_figures({"tokens": saved}, alone=True)
    sizes, words = _sizes([saved]), _rule_words(saved)
    if maps := _arrays(saved, "map.norm"):
        figures["map"] = norm_maps(maps, f"mean L{_short_p(saved)} norm", sizes=sizes)
    outliers = _arrays(saved, f"map.{TIMES_MEDIAN}")
    if outliers := {stage: shares for stage, shares in outliers.items() if np.nansum(shares)}:
        figures["outlier_map"] = norm_maps(outliers, f"{words[TIMES_MEDIAN]}, %", percent=True, sizes=sizes)
    if attention := _against_norm(saved, "attention", "layer "):
        clips = next(iter(saved.numbers["attention"].values()))["clips"]
        figures["attention"] = attention_against_norm(attention, f" ({clips} clips)")
    if scores := _against_norm(saved, "scores", ""):
        clips = next(iter(saved.numbers["scores"].values()))["clips"]
        what = "Attention that a patch draws in the tower, or the norm of its values there"
        figures["scores"] = attention_against_norm(scores, f" ({clips} clips)", what, "score")
    crossed = {
        stage: numbers["with_tower"][TIMES_MEDIAN]
        for stage, numbers in saved.numbers["stages"].items()
        if numbers.get("with_tower", {}).get(TIMES_MEDIAN, {}).get("both") is not None
    }
    if crossed:
        figures["crossed"] = crossed_bars(crossed, words[TIMES_MEDIAN])
    return figures


def _against_norm(saved: SavedNorms, kind: str, word: str) -> dict[str, Any]:
    """Curves against norm of each "attention" or of "scores", named after a word."""
    curves = {name: saved.arrays[f"{kind}.{name}"] for name in saved.numbers.get(kind, {})}
    return {
        f"{word}{name}": tuple(arrays[f"curve.{part}"] for part in ATTENTION)
        for name, arrays in curves.items()
        if "curve.attention" in arrays
    }


def curve_figures(points: Mapping[str, SavedNorms], alone: bool = False) -> dict[str, Figure]:
    """Figures with a panel per stage and a curve per point, by name: histogram, and where they were measured profile,
    redundancy, persistence, births, overlap. With one point `alone`, they mark thresholds and have a curve per rule of
    outliers.
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
    for rule in DRAWN if alone else (TIMES_MEDIAN,):
        for stage, curves in _curves(points, f"distance.{rule}", f"distance.{rule}.by_chance").items():
            pairs.setdefault(stage, {}).update({words[rule]: curves["tokens"]} if alone else curves)
    if again := _by_distance(pairs, percent=True):
        label = f"{'outliers' if alone else words[TIMES_MEDIAN]} again, %"
        chance = {stage: {name: 100 * own[1][1:] for name, own in curves.items()} for stage, curves in pairs.items()}
        figures["persistence"] = by_distance(again, label, chance, poolings, sizes, 10.0)
    if births := _births(points, words, alone):
        layers = {kind: [name.partition(".")[2] or "features" for name in _layers(points, kind)] for kind in births}
        figures["births"] = birth_layers(births, layers, poolings)
    if fates := _fates(points, words, alone):
        figures["overlap"] = fate_bars(fates, "that are outliers" if alone else words[TIMES_MEDIAN])
    return figures


def _fates(points: Mapping[str, SavedNorms], words: Mapping[str, str], alone: bool) -> dict[str, Any]:
    """What became of the outliers, by rule if alone, else by point under one rule; without those that have none."""
    wholes = {name: own[EVERY]["outliers"] for name, point in points.items() if (own := point.numbers.get("overlap"))}
    if alone:
        found = {word: own[rule] for own in wholes.values() for rule, word in words.items()}
    else:
        found = {name: own[TIMES_MEDIAN] for name, own in wholes.items()}
    return {name: own for name, own in found.items() if own["count"]}


def _layers(points: Mapping[str, SavedNorms], kind: str) -> list[str]:
    """The stages of a kind where outliers may be born, in the first point, in order of their layers."""
    return next(iter(points.values())).numbers.get("lineages", {}).get(kind, [])


def _births(points: Mapping[str, SavedNorms], words: Mapping[str, str], alone: bool) -> Curves:
    """Shares by layer of birth, by kind of stage and name: of a rule if alone, else of a point with the same layers."""
    found: Curves = {}
    for kind in (ENCODER, LLM):
        layers = _layers(points, kind)
        for name, point in points.items():
            if not layers or point.numbers.get("lineages", {}).get(kind) != layers:
                continue
            born = [point.numbers["stages"][layer]["born"] for layer in layers]
            for rule in words if alone else (TIMES_MEDIAN,):
                if born[0][rule] is not None:
                    curve = words[rule] if alone else name
                    found.setdefault(kind, {})[curve] = np.array([own[rule] for own in born])
    return found


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
    words = {TIMES_MEDIAN: f"above {rules[TIMES_MEDIAN]:g} medians", ROBUST_Z: f"robust z above {rules[ROBUST_Z]:g}"}
    return words | ({MASSIVE: "massive activations", PHI: f"phi above {rules[PHI]:g}"} if PHI in rules else {})


def _rule_lines(saved: SavedNorms, stage: str) -> dict[str, float | None]:
    """The median and the thresholds of outliers (mean over clips), by name; None where a rule has none."""
    numbers = saved.numbers["stages"][stage]
    words = _rule_words(saved)
    cutoffs = {words[rule]: numbers["outliers"][rule]["cutoff"] for rule in DRAWN}
    return {"median": numbers["quantiles"]["0.5"], **cutoffs, "gap": numbers[GAP]["cutoff"]}
