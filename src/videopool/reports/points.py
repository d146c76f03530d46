"""The table of a study's points: which columns, and what they say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from videopool.reports.cells import (
    Cell,
    Heading,
    Row,
    TextTable,
    as_number,
    missing,
    number_cell,
    p_cell,
    percent_text,
    plain_cell,
    share_cell,
)
from videopool.results.point import FAILURE, read_json

COMPLETE = "complete"
# Columns that say which point it is, and how each is named in a sentence. One that never changes is left out.
SETTINGS = {
    "model": "model {}",
    "benchmark": "benchmark {}",
    "split": "split {}",
    "stage": "stage {}",
    "lora_alpha": "alpha {:g}",
    "judge": "judge {}",
    "prompt": "prompt {}",
    "seed": "seed {:g}",
    "trained_pooling": "trained under {}",
    "training_clips": "{:g} training clips",
    "training_images": "{:g} training images",
    "training_steps": "{:g} training steps",
}
# Comparisons with the baseline, by how their columns begin, and what their headings say.
VIEWS = {"": "", "iso_token_": ", iso-token"}
TIME, SHARED_TIME = "model ms/sample", "shared s"  # headings of the columns that depend on the machine

Fields = dict[str, Any]
Column = tuple[Heading, Callable[[Fields], Cell]]


def groups_of(frame: pd.DataFrame) -> list[str]:
    """Names of the groups of tasks that a study's points were scored on."""
    return [c.removeprefix("score_") for c in frame.columns if c.startswith("score_")]


def other_groups(frame: pd.DataFrame) -> list[str]:
    """Those groups that are not the headline, which has its own column."""
    scores = frame.score.astype(float).fillna(-1)
    return [g for g in groups_of(frame) if not (scores == frame[f"score_{g}"].astype(float).fillna(-1)).all()]


def varied(frame: pd.DataFrame) -> list[str]:
    """The settings in which points of a study differ. That a point was not trained at all, its model's name says."""
    counted = {name: not name.startswith("train") for name in SETTINGS if name in frame}
    found = [name for name, absent in counted.items() if frame[name].nunique(dropna=not absent) > 1]
    if "trained_pooling" in found and (frame.trained_pooling.isna() | (frame.trained_pooling == frame.pooling)).all():
        found.remove("trained_pooling")  # each under its own
    return found


def point_labels(frame: pd.DataFrame) -> dict[str, str]:
    """A short name for each point, by its folder's name; no two are equal."""
    labels: dict[str, str] = {}
    for row in _fields(frame):
        parts = [str(row["pooling"]), _frames(row["frames"])]
        parts += [SETTINGS[name].format(row[name]) for name in varied(frame) if not missing(row[name])]
        labels[str(row["point"])] = ", ".join(parts)
    told = list(labels.values())
    return {
        point: label if told.count(label) == 1 else f"{label} ({point.rsplit('-', 1)[-1]})"
        for point, label in labels.items()
    }


def _frames(value: object) -> str:
    number = as_number(value)
    return "" if number is None else f"{number:g} frame{'' if number == 1 else 's'}"


def shared_settings(frame: pd.DataFrame) -> str:
    """What all points of a study have in common, as a line."""
    shared = [name for name in SETTINGS if name in frame and frame[name].nunique(dropna=False) <= 1]
    values = {name: frame[name].iloc[0] for name in shared}
    return ", ".join(SETTINGS[name].format(value) for name, value in values.items() if not missing(value))


def shared_chance(frame: pd.DataFrame) -> str:
    """What a guess scores, where that is the same for all points; the table has a column where it is not."""
    names = {"chance": "chance", **{f"chance_{group}": f"on {group} tasks" for group in other_groups(frame)}}
    constant = {told: frame[name].dropna() for name, told in names.items() if frame[name].nunique() == 1}
    return ", ".join(f"{told} {percent_text(values.iloc[0])} %" for told, values in constant.items())


def failure_reason(folder: str | Path, recorded: object) -> str:
    """Why a point is not complete."""
    failure = read_json(Path(folder) / FAILURE)
    if failure is not None:
        return str(failure.get("reason") or "no reason was kept")
    return f"not finished: {number_cell(recorded, 0).text} samples so far"


def points_table(frame: pd.DataFrame) -> TextTable:
    """All points of a study, in their order.

    Args:
        frame: from load_study and add_differences. Columns that only some studies have are shown where they are
            and say something.
    """
    columns = _columns(frame)
    rows = [
        Row(tuple(cell(row) for _, cell in columns), str(row["point"]), str(row["status"])) for row in _fields(frame)
    ]
    return TextTable(tuple(heading for heading, _ in columns), tuple(rows))


def _columns(frame: pd.DataFrame) -> list[Column]:
    labels, best = point_labels(frame), _best(frame)

    def told(name: str) -> bool:
        return name in frame and bool((frame[name].notna() & (frame[name] != "")).any())

    def counted(name: str) -> bool:
        return told(name) and bool((frame[name].fillna(0).astype(float) > 0).any())

    columns = [_text("pooling")]
    columns += [(Heading("status", numeric=False), _status)] if (frame.status != COMPLETE).any() else []
    numbers = {"lora_alpha": _number("lora_alpha", "alpha", 1), "seed": _number("seed", "seed")}
    for name in ("training_clips", "training_images", "training_steps"):
        numbers[name] = _number(name, name.replace("_", " "))
    columns += [numbers.get(name) or _text(name) for name in varied(frame)]
    columns += [_number("frames", "frames"), _number("visual_tokens", "tokens"), _score(best)]
    columns += [_share("chance %", "chance")] if frame.chance.nunique() > 1 else []
    for group in other_groups(frame):
        columns.append(_share(f"{group} tasks %", f"score_{group}", f"ci_low_{group}", f"ci_high_{group}"))
        columns += [_share(f"{group} chance %", f"chance_{group}")] if frame[f"chance_{group}"].nunique() > 1 else []
    columns += [_number("n", "n"), _number("n_failed", "failed")]
    columns += [_number(name, name.removeprefix("n_")) for name in ("n_unparsed", "n_unscored") if counted(name)]
    columns += [_number("answer_words", "words", 1)] if told("answer_words") else []
    columns.append(_number("prefill_gflops", "GFLOPs", 2))
    columns += [_number("training_tflops", "training TFLOPs", 1)] if told("training_tflops") else []
    columns += [_number("seconds_per_sample", TIME, 1, scale=1000)] if told("seconds_per_sample") else []
    columns += [_number("shared_seconds", SHARED_TIME, 1)] if told("shared_seconds") else []
    for view, said in VIEWS.items():
        if told(f"{view}difference"):
            names = (f"{view}difference", f"{view}difference_low", f"{view}difference_high")
            columns.append(_share(f"minus baseline{said}", *names, signed=True))
            for name, words in (("p_holm", "p (Holm)"), ("p", "p")):
                if told(f"{view}{name}"):
                    columns.append(_p(f"{view}{name}", f"{words}{said}"))
                    break
        columns += [_text(f"{view}differs", f"unequal in{said}")] if told(f"{view}differs") else []
    columns += [_text("mixed", "attempts differ in")] if told("mixed") else []
    if told("same_map_as"):
        heading = Heading("same map as", numeric=False)
        columns.append((heading, lambda row: plain_cell(labels.get(str(row["same_map_as"]), ""))))
    return columns


def _text(name: str, heading: str = "") -> Column:
    return Heading(heading or name, numeric=False), lambda row: plain_cell(row[name])


def _number(name: str, heading: str, digits: int = 0, scale: float = 1.0) -> Column:
    return Heading(heading), lambda row: number_cell(row[name], digits, scale)


def _p(name: str, heading: str) -> Column:
    return Heading(heading), lambda row: p_cell(row[name])


def _share(heading: str, value: str, low: str = "", high: str = "", signed: bool = False) -> Column:
    return Heading(heading), lambda row: share_cell(row[value], row.get(low), row.get(high), signed)


def _score(best: set[str]) -> Column:
    def cell(row: Fields) -> Cell:
        return share_cell(row["score"], row["ci_low"], row["ci_high"], best=row["point"] in best)

    return Heading("score %"), cell


def _status(row: Fields) -> Cell:
    if row["status"] == COMPLETE:
        return Cell("complete")
    return Cell(str(row["status"]), note=failure_reason(row["folder"], row["n"]))


def _best(frame: pd.DataFrame) -> set[str]:
    """Points whose score no other of the same benchmark exceeds."""
    complete = frame[(frame.status == COMPLETE) & frame.score.notna()]
    top = complete.groupby("benchmark")["score"].transform("max")
    return set(complete[complete.score == top].point)


def _fields(frame: pd.DataFrame) -> list[Fields]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
