"""All measured points of a study together: norms.csv, a table, and figures with a curve per point."""

import math
from collections.abc import Mapping, Sequence
from os.path import commonprefix
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from videopool.figures.words import pooling_words
from videopool.files import write_text
from videopool.measuring.figures import FOLDER, curve_figures, save_figures, stages_of
from videopool.measuring.table import attention_frame, norms_frame, overlap_frame, show_norms
from videopool.norms import NormsError, SavedNorms, load_norms
from videopool.reports.cells import spreadsheet
from videopool.reports.files import name_files
from videopool.results import is_complete
from videopool.runtime import log
from videopool.runtime.progress import finish

# Settings that may distinguish points, in the order of a label.
TELLING = ("model", "checkpoint", "lora_alpha", "pooling", "stage", "frames", "benchmark", "split", "p", "rules")


def sum_up_norms(study: Path) -> None:
    """Write norms.csv and figures of a study's points, and print their table. Raises NormsError as load_study_norms."""
    points = load_study_norms(study)
    frame = norms_frame(points)
    finish()
    if not log.quiet():
        names = dict(zip(frame.point.unique(), labels([point.numbers["about"] for point in points]), strict=True))
        rows = frame.assign(label=frame.point.map(names))
        rows = rows.sort_values("stage", key=lambda names: names.map(stages_of(points).index), kind="stable")
        show_norms(rows, f"norms in {study.name}", points[0].numbers["about"]["rules"])
    try:
        others = {"norms_attention.csv": attention_frame(points), "norms_overlap.csv": overlap_frame(points)}
        tables = {"norms.csv": frame, **others}
        paths = [write_text(study / name, spreadsheet(own)) for name, own in tables.items() if len(own)]
        files = [*paths, *save_figures(lambda: study_figures(points), study / FOLDER, "norms_")]
    except OSError as error:
        raise NormsError(f"{study} cannot be written: {error.strerror or error}") from error
    log.say(name_files(files), result=True)


def load_study_norms(study: str | Path) -> list[SavedNorms]:
    """A study's measurements, ordered by their settings, as fewer frames first. Raises NormsError for none."""
    folders = [folder for folder in sorted(Path(study).glob("norms-*")) if is_complete(folder)]
    if not folders:
        raise NormsError(f"{study} holds no finished point of job=norms")
    return sorted((load_norms(folder) for folder in folders), key=lambda point: _order(point.numbers["about"]))


def _order(settings: Mapping[str, Any]) -> list[tuple[float, str]]:
    """Numbers by size, all else by name; None first."""
    # "~" sorts the final checkpoint of a run, `export`, after its exports/step-<n>.
    path = settings["checkpoint"] and f"{settings['checkpoint']}~"
    values = [settings.get(name) if name != "checkpoint" else path for name in TELLING]
    return [
        (float(value), "") if isinstance(value, (int, float)) else (-math.inf, "" if value is None else str(value))
        for value in values
    ]


def labels(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each point (`about` of norms.json) by the settings that it does not share with all others."""
    tails = _tails([point["checkpoint"] for point in points])
    named = [{**point, "checkpoint": tail} for point, tail in zip(points, tails, strict=True)]
    differing = [key for key in TELLING if len({str(point[key]) for point in named}) > 1]
    if "checkpoint" in differing and "model" in differing and len(set(tails)) == len(named):
        differing.remove("model")  # the base's name followed by the checkpoint's
    rules = _rules([point["rules"] for point in points])
    texts = [
        ", ".join(own if key == "rules" else _word(key, point[key]) for key in differing if point[key] is not None)
        or str(point["pooling"])
        for point, own in zip(named, rules, strict=True)
    ]
    return [text if texts.count(text) == 1 else f"{text} ({place + 1})" for place, text in enumerate(texts)]


def _word(key: str, value: Any) -> str:
    if key in ("lora_alpha", "p"):
        return f"{key.removeprefix('lora_')} {f'{value:g}' if isinstance(value, float) else value}"  # p may be "inf"
    return f"{value} frames" if key == "frames" else str(value)


def _rules(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rules of each point that are not those of all others, in words; a rule may be younger than a point."""
    names = dict.fromkeys(name for rules in points for name in rules)
    differing = [name for name in names if len({str(rules.get(name)) for rules in points}) > 1]
    return [
        ", ".join(f"{name.replace('_', ' ')} {rules[name]}" for name in differing if name in rules) or "fewer rules"
        for rules in points
    ]


def _tails(paths: Sequence[str | None]) -> list[str]:
    """Paths without the leading and trailing parts that all share; "base" for None."""
    parts = [Path(path).parts if path else () for path in paths]
    known = [own for own in parts if own]
    head, tail = (len(commonprefix(each)) for each in (known, [own[::-1] for own in known]))  # noqa: RUF071  # of tuples
    return ["/".join(own[head : len(own) - tail]) or own[-1] if own else "base" for own in parts]


def study_figures(points: Sequence[SavedNorms]) -> dict[str, Figure]:
    """The figures of curve_figures(), with the points' labels, interventions in words."""
    about = [point.numbers["about"] for point in points]
    poolings = [str(own["pooling"]) for own in about]
    pairs = zip(labels(about), poolings, strict=True)
    names = [label.replace(pooling, pooling_words(pooling), 1) for label, pooling in pairs]
    return curve_figures(dict(zip(names, points, strict=True)))
