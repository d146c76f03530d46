"""Figures of one point's norms, from what it saved."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from videopool.figures.norms import attention_against_norm, by_distance, frame_profiles, norm_histograms, norm_maps
from videopool.figures.style import save_figure
from videopool.norms import SavedNorms, load_norms
from videopool.norms.outliers import GAP, IN_CLIP, ROBUST_Z, TIMES_MEDIAN

FOLDER = "figures"
AGAIN = "outliers again, %"


def draw_point(folder: Path) -> list[str]:
    """Draw all figures of a point into its folder. Returns their names."""
    return save_figures(point_figures(load_norms(folder)), folder / FOLDER)


def save_figures(figures: Mapping[str, Figure], folder: Path, prefix: str = "") -> list[str]:
    """Save figures under their names. Returns the files' names."""
    return [file for name, figure in figures.items() for file in save_figure(figure, folder / (prefix + name))]


def point_figures(saved: SavedNorms) -> dict[str, Figure]:
    """The figures of one point by name: histogram; map, outlier_map, profile, redundancy, persistence; attention.

    All but the first are left out where nothing was measured that they could show.
    """
    stages = {name: saved.arrays[name] for name in saved.numbers["stages"]}
    p, rules = saved.numbers["about"]["p"], saved.numbers["about"]["rules"]
    histograms = {
        name: {"tokens": (arrays["histogram.counts"], arrays["histogram.edges"])} for name, arrays in stages.items()
    }
    lines = {name: rule_lines(saved, name) for name in stages}
    figures = {"histogram": norm_histograms(histograms, short(p), lines)}
    grids = {name: arrays for name, arrays in stages.items() if "map.norm" in arrays}
    if grids:
        figures["map"] = norm_maps({n: a["map.norm"] for n, a in grids.items()}, f"mean L{short(p)} norm")
        outliers = {n: a[f"map.{TIMES_MEDIAN}"] for n, a in grids.items() if np.nansum(a[f"map.{TIMES_MEDIAN}"])}
        if outliers:
            label = f"above {rules[TIMES_MEDIAN]:g} medians, %"
            figures["outlier_map"] = norm_maps(outliers, label, percent=True)
        figures["profile"] = frame_profiles({name: {"tokens": a["frame.norm"]} for name, a in grids.items()})
    pairs = {name: arrays for name, arrays in grids.items() if len(arrays["distance.cosine"]) > 1}
    if pairs:
        cosines = {name: {"tokens": arrays["distance.cosine"]} for name, arrays in pairs.items()}
        figures["redundancy"] = by_distance(cosines, "cosine at equal positions")
        words = rule_words(saved)
        again, chance = (
            {n: {words[rule]: 100 * a[f"distance.{rule}{tail}"] for rule in IN_CLIP} for n, a in pairs.items()}
            for tail in ("", ".by_chance")
        )
        if again := known(again):
            figures["persistence"] = by_distance(again, AGAIN, chance)
    looks = {
        name.replace("attention.", "layer "): (a["curve.edges"], a["curve.attention"], a["curve.tokens"])
        for name, a in saved.arrays.items()
        if "curve.attention" in a
    }
    if looks:
        figures["attention"] = attention_against_norm(looks)
    return figures


def short(p: str) -> str:
    """The p of a norm without a fraction of zero."""
    return f"{float(p):g}"


def known(stages: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
    """The curves by distance that say something, without stages that have none."""
    found = {
        stage: {name: values for name, values in curves.items() if np.isfinite(values[1:]).any()}
        for stage, curves in stages.items()
    }
    return {stage: curves for stage, curves in found.items() if curves}


def rule_words(saved: SavedNorms) -> dict[str, str]:
    """What a figure calls the rules."""
    rules = saved.numbers["about"]["rules"]
    return {TIMES_MEDIAN: f"above {rules[TIMES_MEDIAN]:g} medians", ROBUST_Z: f"robust z above {rules[ROBUST_Z]:g}"}


def rule_lines(saved: SavedNorms, stage: str) -> dict[str, float]:
    """Median, and from where on norms are outliers (mean over clips), by what they are called."""
    numbers = saved.numbers["stages"][stage]
    found = {"median": numbers["quantiles"]["0.5"]}
    found |= {words: numbers["outliers"][rule]["cutoff"] for rule, words in rule_words(saved).items()}
    found["gap"] = numbers[GAP]["cutoff"]
    return {words: place for words, place in found.items() if place is not None}
