"""All measured points of a study beside each other: norms.csv, a table, and figures with a curve a point."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from videopool.figures.norms import ALL, by_distance, frame_profiles, norm_histograms
from videopool.files import write_text
from videopool.measuring.figures import FOLDER, known, rule_words, save_figures, short
from videopool.measuring.table import show_rows
from videopool.norms import NormsError, SavedNorms, load_norms
from videopool.norms.outliers import TIMES_MEDIAN
from videopool.reports.files import name_files
from videopool.reports.spreadsheet import spreadsheet
from videopool.results import is_complete

# What may tell points apart, in the order of a label.
TELLING = ("model", "checkpoint", "lora_alpha", "pooling", "stage", "frames", "benchmark", "split", "p", "rules")


def sum_up_norms(study: Path) -> None:
    """Write norms.csv and figures of a study's measured points, and print their table.

    Raises:
        NormsError: there is none, or a file cannot be written.
    """
    points = load_study_norms(study)
    names = labels([point.numbers["about"] for point in points])
    rows = [
        ([stage, name], point.numbers["stages"][stage])
        for stage in _stages(points)
        for name, point in zip(names, points, strict=True)
        if stage in point.numbers["stages"]
    ]
    show_rows(f"norms in {study.name}", ["stage", "point"], rows, points[0].numbers["about"]["rules"])
    try:
        path = write_text(study / "norms.csv", spreadsheet(norms_frame(points)))
        files = [path, *save_figures(study_figures(points), study / FOLDER, "norms_")]
    except OSError as error:
        raise NormsError(f"{study} cannot be written: {error.strerror or error}") from error
    print(name_files(files))


def _stages(points: Iterable[SavedNorms]) -> list[str]:
    """Names of all stages that were measured, in the order of their first appearance."""
    return list(dict.fromkeys(stage for point in points for stage in point.numbers["stages"]))


def load_study_norms(study: str | Path) -> list[SavedNorms]:
    """The finished measurements of a study, ordered by what tells them apart: fewer frames first, for example.

    Raises:
        NormsError: there is none, or one is damaged.
    """
    folders = [folder for folder in sorted(Path(study).glob("norms-*")) if is_complete(folder)]
    if not folders:
        raise NormsError(f"{study} holds no finished point of job=norms")
    return sorted((load_norms(folder) for folder in folders), key=lambda point: _order(point.numbers["about"]))


def _order(about: Mapping[str, Any]) -> list[tuple[float, str]]:
    """Numbers by their size, all else by its name; nothing before something."""
    # What a run ends with, `export`, behind its exports/step-<n>.
    values = [about.get(name) if name != "checkpoint" or not about.get(name) else f"{about[name]}~" for name in TELLING]
    return [
        (float(value), "") if isinstance(value, (int, float)) else (-math.inf, "" if value is None else str(value))
        for value in values
    ]


def norms_frame(points: Sequence[SavedNorms]) -> pd.DataFrame:
    """A row a point and stage; numbers of norms.json, with names joined by "."."""
    rows = []
    for point in points:
        about = {k: v for k, v in point.numbers["about"].items() if k not in ("stages", "rules", "stage")}
        for stage, numbers in point.numbers["stages"].items():
            pooled_at = point.numbers["about"]["stage"]
            head = {"point": point.folder.name, **about, "pooling_stage": pooled_at, "stage": stage}
            rows.append({**head, **_flat(numbers)})
    return pd.DataFrame(rows)


def _flat(numbers: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in numbers.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def labels(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each point that says what it does not share with all others.

    Args:
        points: what norms.json says about them.
    """
    told = [dict(point) for point in points]
    for point, name in zip(told, _tails([point["checkpoint"] for point in points]), strict=True):
        point["checkpoint"] = name
    differing = [key for key in TELLING if len({str(point[key]) for point in told}) > 1]
    if "checkpoint" in differing and "model" in differing and len({p["checkpoint"] for p in told}) == len(told):
        differing.remove("model")  # which is the base with the checkpoint's name behind it
    named = [
        ", ".join(_word(key, point[key]) for key in differing if point[key] is not None) or str(point["pooling"])
        for point in told
    ]
    return [name if named.count(name) == 1 else f"{name} ({place + 1})" for place, name in enumerate(named)]


def _word(key: str, value: Any) -> str:
    if key in ("lora_alpha", "p"):
        told = f"{value:g}" if isinstance(value, float) else value  # p may be "inf"
        return f"{key.removeprefix('lora_')} {told}"
    return f"{value} frames" if key == "frames" else str(value)


def _tails(paths: Sequence[str | None]) -> list[str]:
    """What tells paths apart, without the parts that all have in common; "base" for None."""
    parts = [Path(path).parts for path in paths if path is not None]
    # Not strict: paths differ in depth, and only levels that all have can be common to all.
    head = next((n for n, level in enumerate(zip(*parts, strict=False)) if len(set(level)) > 1), None)
    if head is None:
        return ["base" if path is None else Path(path).name for path in paths]
    tail = next((n for n, level in enumerate(zip(*map(reversed, parts), strict=False)) if len(set(level)) > 1), 0)
    return ["base" if p is None else "/".join(Path(p).parts[head : len(Path(p).parts) - tail]) for p in paths]


def study_figures(points: Sequence[SavedNorms]) -> dict[str, Figure]:
    """Figures with a panel a stage and a curve a point, by their names: histogram; profile, redundancy, persistence.

    All but the first are left out where nothing was measured that they could show.

    Args:
        points: from load_study_norms, at least one.
    """
    named = dict(zip(labels([point.numbers["about"] for point in points]), points, strict=True))

    def curves(take: Callable[[dict[str, np.ndarray]], Any], needed: str) -> dict[str, dict[str, Any]]:
        found = {}
        for stage in _stages(points):
            have = {n: p.arrays[stage] for n, p in named.items() if needed in p.arrays.get(stage, {})}
            if have:
                found[stage] = _merged({name: take(arrays) for name, arrays in have.items()}, len(points))
        return found

    histograms = curves(lambda a: (a["histogram.counts"], a["histogram.edges"]), "histogram.counts")
    figures = {"histogram": norm_histograms(histograms, short(points[0].numbers["about"]["p"]))}
    profiles = curves(lambda a: a["frame.norm"], "frame.norm")
    if profiles:
        figures["profile"] = frame_profiles(profiles)
        cosines = curves(lambda a: a["distance.cosine"], "distance.cosine")
        figures["redundancy"] = by_distance(cosines, "cosine at equal positions")
        names = [f"distance.{TIMES_MEDIAN}{tail}" for tail in ("", ".by_chance")]
        pairs = curves(lambda a: tuple(100 * a[name] for name in names), "frame.norm")
        again, chance = (
            {stage: {name: pair[place] for name, pair in found.items()} for stage, found in pairs.items()}
            for place in (0, 1)
        )
        if again := known(again):
            figures["persistence"] = by_distance(again, f"{rule_words(points[0])[TIMES_MEDIAN]} again, %", chance)
    return figures


def _merged(curves: dict[str, Any], total: int) -> dict[str, Any]:
    """One curve where all points have the same, as before the pooling; else all of them."""
    first, *others = curves.values()
    same = all(
        all(np.array_equal(a, b, equal_nan=True) for a, b in zip(_parts(first), _parts(other), strict=True))
        for other in others
    )
    return {ALL: first} if others and same and len(curves) == total else curves


def _parts(curve: Any) -> tuple[np.ndarray, ...]:
    return curve if isinstance(curve, tuple) else (curve,)
