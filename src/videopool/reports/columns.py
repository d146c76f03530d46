"""The table of a study's points: its columns, and the settings in which points differ."""

from pathlib import Path

import pandas as pd

from videopool.reports import cells
from videopool.reports.cells import Cell, Column, Fields, Heading, TextTable, column, missing
from videopool.results.point import FAILURE, read_json

COMPLETE = "complete"
# Columns that identify a point, and their words in a sentence. A constant one is left out of the table.
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
# Comparisons with the baseline: prefix of their columns, end of their headings.
VIEWS = {"": "", "iso_token_": ", iso-token"}
# Columns of numbers: heading, decimals, factor.
NUMBERS = {
    "lora_alpha": ("alpha", 1, 1),
    "seed": ("seed", 0, 1),
    "training_clips": ("training clips", 0, 1),
    "training_images": ("training images", 0, 1),
    "training_steps": ("training steps", 0, 1),
    "frames": ("frames", 0, 1),
    "visual_tokens": ("tokens", 0, 1),
    "n": ("n", 0, 1),
    "n_failed": ("failed", 0, 1),
    "n_unparsed": ("unparsed", 0, 1),
    "n_unscored": ("unscored", 0, 1),
    "answer_words": ("words", 1, 1),
    "prefill_gflops": ("GFLOPs", 2, 1),
    "training_tflops": ("training TFLOPs", 1, 1),
    "seconds_per_sample": ("model ms/sample", 1, 1000),
    "shared_seconds": ("shared s", 1, 1),
}


def groups_of(frame: pd.DataFrame) -> list[str]:
    """Names of the groups of tasks with scores in a study."""
    return [c.removeprefix("score_") for c in frame.columns if c.startswith("score_")]


def other_groups(frame: pd.DataFrame) -> list[str]:
    """Groups besides the headline, which has its own column."""
    scores = frame.score.astype(float).fillna(-1)
    return [g for g in groups_of(frame) if not (scores == frame[f"score_{g}"].astype(float).fillna(-1)).all()]


def varied(frame: pd.DataFrame) -> list[str]:
    """The settings in which points of a study differ. An untrained point says so by its model's name."""
    counted = {name: not name.startswith("train") for name in SETTINGS if name in frame}
    names = [name for name, absent in counted.items() if frame[name].nunique(dropna=not absent) > 1]
    if "trained_pooling" in names and (frame.trained_pooling.isna() | (frame.trained_pooling == frame.pooling)).all():
        names.remove("trained_pooling")  # each under its own
    return names


def setting_words(row: Fields, names: list[str]) -> list[str]:
    """Some settings of a point in words, without missing ones."""
    return [SETTINGS[name].format(row[name]) for name in names if not missing(row[name])]


def point_labels(frame: pd.DataFrame) -> dict[str, str]:
    """A short unique name for each point, by its folder's name."""
    names, labels = varied(frame), {}
    for row in frame.to_dict("records"):
        frames = "" if missing(row["frames"]) else f"{row['frames']:g} frame{'' if row['frames'] == 1 else 's'}"
        labels[str(row["point"])] = ", ".join([str(row["pooling"]), frames, *setting_words(row, names)])
    texts = list(labels.values())
    return {
        point: label if texts.count(label) == 1 else f"{label} ({point.rsplit('-', 1)[-1]})"
        for point, label in labels.items()
    }


def shared_settings(frame: pd.DataFrame) -> str:
    """The settings that all points of a study share, as a line."""
    shared = [name for name in SETTINGS if name in frame and frame[name].nunique(dropna=False) <= 1]
    return ", ".join(setting_words(frame.iloc[0].to_dict(), shared))


def shared_chance(frame: pd.DataFrame) -> str:
    """Chance scores that are the same for all points; others have a column of the table."""
    names = {"chance": "chance", **{f"chance_{group}": f"on {group} tasks" for group in other_groups(frame)}}
    constant = {words: frame[name].dropna() for name, words in names.items() if frame[name].nunique() == 1}
    return ", ".join(f"{words} {cells.percent_text(values.iloc[0])} %" for words, values in constant.items())


def caption(frame: pd.DataFrame, name: str) -> str:
    """The caption of a study's table: benchmark, split, number of samples, kind of intervals."""
    settings, chance = shared_settings(frame), shared_chance(frame)
    counts = sorted({int(n) for n in frame[frame.status == COMPLETE].n.dropna()})
    text = f"{name}{': ' if settings else ''}{settings}."
    if counts:
        text += f" n = {counts[0]}{f' to {counts[-1]}' if len(counts) > 1 else ''} scored samples."
    text += f" {chance[0].upper()}{chance[1:]}." if chance else ""
    intervals = " Best score in bold; intervals: 95 %, clustered by clip, none of fewer than 10 clips."
    return text + (intervals if any(counts) else "")


def points_table(frame: pd.DataFrame, timed: bool = True) -> TextTable:
    """All points of a study, in their order, from a frame of add_differences.

    Columns that hold something in some studies only are shown there. timed: with times, which depend on the machine.
    """
    labels, complete = point_labels(frame), frame[(frame.status == COMPLETE) & frame.score.notna()]
    best = set(complete[complete.score == complete.groupby("benchmark")["score"].transform("max")].point)

    def known(name: str) -> bool:
        return name in frame and bool((frame[name].notna() & (frame[name] != "")).any())

    def counted(name: str) -> bool:
        return known(name) and bool((frame[name].fillna(0).astype(float) > 0).any())

    def score(row: Fields) -> Cell:
        return cells.share_cell(row["score"], row["ci_low"], row["ci_high"], best=row["point"] in best)

    def same_map(row: Fields) -> Cell:
        return cells.plain_cell(labels.get(str(row["same_map_as"]), ""))

    columns: list[tuple[bool, Column]] = [
        (True, column("pooling", cells.plain_cell, "pooling")),
        (bool((frame.status != COMPLETE).any()), (Heading("status", numeric=False), _status)),
        *((True, number(name) if name in NUMBERS else column(name, cells.plain_cell, name)) for name in varied(frame)),
        *((True, number(name)) for name in ("frames", "visual_tokens")),
        (True, (Heading("score %"), score)),
        (frame.chance.nunique() > 1, column("chance %", cells.share_cell, "chance")),
    ]
    for group in other_groups(frame):
        bounds = f"ci_low_{group}", f"ci_high_{group}"
        columns.append((True, column(f"{group} tasks %", cells.share_cell, f"score_{group}", *bounds)))
        chance = column(f"{group} chance %", cells.share_cell, f"chance_{group}")
        columns.append((frame[f"chance_{group}"].nunique() > 1, chance))
    columns += [(True, number(name)) for name in ("n", "n_failed")]
    columns += [(counted(name), number(name)) for name in ("n_unparsed", "n_unscored")]
    columns += [(known("answer_words"), number("answer_words")), (True, number("prefill_gflops"))]
    columns.append((known("training_tflops"), number("training_tflops")))
    columns += [(timed and known(name), number(name)) for name in ("seconds_per_sample", "shared_seconds")]
    for view, end in VIEWS.items():
        compared, holm = known(f"{view}difference"), known(f"{view}p_holm")
        columns += [
            (compared, cells.difference_column(f"minus baseline{end}", f"{view}difference")),
            (compared and holm, column(f"p (Holm){end}", cells.p_cell, f"{view}p_holm")),
            (compared and not holm and known(f"{view}p"), column(f"p{end}", cells.p_cell, f"{view}p")),
            (known(f"{view}differs"), column(f"unequal in{end}", cells.plain_cell, f"{view}differs")),
        ]
    columns.append((known("mixed"), column("attempts differ in", cells.plain_cell, "mixed")))
    columns.append((known("same_map_as"), (Heading("same map as", numeric=False), same_map)))
    return cells.text_table([column for shown, column in columns if shown], frame)


def number(name: str) -> Column:
    """One of NUMBERS."""
    heading, digits, scale = NUMBERS[name]
    return column(heading, cells.number_cell, name, digits=digits, scale=scale)


def _status(row: Fields) -> Cell:
    """The status of a point, with the reason if it is not complete."""
    if row["status"] == COMPLETE:
        return Cell(COMPLETE)
    failure = read_json(Path(row["folder"]) / FAILURE)
    if failure is None:
        reason = f"not finished: {cells.number_cell(row['n']).text} samples so far"
    else:
        reason = str(failure.get("reason") or "no reason was kept")
    return Cell(str(row["status"]), note=reason)
