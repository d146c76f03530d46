"""The tables of a study: points, tasks, means over seeds, figures from papers; for pages, papers, the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich.table import Table

from videopool.reports import cells
from videopool.reports.cells import Cell, Column, Fields, Heading, TextTable, column, missing
from videopool.reports.unfinished import why_incomplete
from videopool.results.errors import ResultsError
from videopool.runtime.terminal import console, plain

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
    "setting": "{}",
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
COLUMNS = ("benchmark", "model", "value", "unit", "source", "protocol")  # of published figures
LEVEL = 0.05  # of a difference that the terminal marks
PUBLISHED = "published figures, other protocols"
SEEDS = "means over seeds; intervals for other seeds and other clips"


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
    """All points of a study, from add_differences, with the columns that it fills; timed: with times of the machine."""
    scores = frame.score.astype(float).where(frame.status == COMPLETE)
    best = scores == scores.groupby(frame.benchmark).transform("max")
    frame = frame.assign(best=best, twin=frame.same_map_as.map(point_labels(frame)))

    def known(name: str) -> bool:
        return name in frame and bool((frame[name].notna() & (frame[name] != "")).any())

    def counted(name: str) -> bool:
        return known(name) and bool((frame[name].fillna(0).astype(float) > 0).any())

    columns: list[tuple[bool, Column]] = [
        (True, column("pooling", cells.plain_cell, "pooling")),
        (bool((frame.status != COMPLETE).any()), (Heading("status", numeric=False), _status)),
        *((True, number(name) if name in NUMBERS else column(name, cells.plain_cell, name)) for name in varied(frame)),
        *((True, number(name)) for name in ("frames", "visual_tokens")),
        (True, column("score %", cells.share_cell, "score", "ci_low", "ci_high", "best")),
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
    columns.append((known("same_map_as"), column("same map as", cells.plain_cell, "twin")))
    return cells.text_table([column for shown, column in columns if shown], frame)


def number(name: str) -> Column:
    """One of NUMBERS."""
    heading, digits, scale = NUMBERS[name]
    return column(heading, cells.number_cell, name, digits=digits, scale=scale)


def _status(row: Fields) -> Cell:
    """The status of a point, with the reason if it is not complete."""
    return Cell(str(row["status"]), note="" if row["status"] == COMPLETE else why_incomplete(row))


def published_table(published: pd.DataFrame) -> TextTable:
    """Published figures with the decimals of their source (published_figures); not comparable to the decimal."""

    def as_published(value: float) -> Cell:
        return cells.number_cell(value, max(1, len(str(value).partition(".")[2])))

    columns = [column(name, as_published if name == "value" else cells.plain_cell, name) for name in COLUMNS]
    return cells.text_table(columns, published)


def seeds_table(seeds: pd.DataFrame) -> TextTable:
    """Configurations under several seeds, from over_seeds; settings that all share are left out."""
    columns = [column(name.replace("_", " "), cells.plain_cell, name) for name in ("pooling", *varied(seeds))]
    columns += [
        number("frames"),
        column("seeds", cells.plain_cell, "seeds"),
        column("score %", cells.share_cell, "score", "ci_low", "ci_high"),
        cells.difference_column("minus baseline", "difference"),
        column("p (Holm)", cells.p_cell, "p_holm"),
    ]
    return cells.text_table(columns, seeds)


def other_tables(published: pd.DataFrame | None, seeds: pd.DataFrame | None) -> dict[str, tuple[str, TextTable]]:
    """Title and table of the means over seeds and of the published figures, as far as there are any."""
    tables = {}
    if seeds is not None and len(seeds):
        tables["seeds"] = SEEDS, seeds_table(seeds)
    if published is not None and len(published):
        tables["published"] = PUBLISHED, published_table(published)
    return tables


def markdown_tables(
    frame: pd.DataFrame, name: str, published: pd.DataFrame | None = None, seeds: pd.DataFrame | None = None
) -> str:
    """The content of table.md."""
    points = points_table(frame, timed=False)
    text = f"{cells.escape_markdown(caption(frame, name))}\n\n{cells.markdown_table(points)}"
    notes = [(row.point, cell.note) for row in points.rows for cell in row.cells if cell.note]
    if notes:
        lines = (f"- {cells.escape_markdown(point)}: {cells.escape_markdown(note)}\n" for point, note in notes)
        text += "\nNot complete:\n\n" + "".join(lines)
    for title, table in other_tables(published, seeds).values():
        text += f"\n{title.capitalize()}:\n\n{cells.markdown_table(table)}"
    return text


def latex_tables(
    frame: pd.DataFrame, name: str, published: pd.DataFrame | None = None, seeds: pd.DataFrame | None = None
) -> str:
    """The content of table.tex."""
    text = cells.latex_table(points_table(frame, timed=False), caption(frame, name), name)
    for kind, (title, table) in other_tables(published, seeds).items():
        title = f"{name}: {title}" if kind == "seeds" else title.capitalize()
        text += "\n" + cells.latex_table(table, f"{title}.", f"{name}-{kind}")
    return text


def published_figures(path: Path, benchmarks: Sequence[str]) -> pd.DataFrame:
    """Published figures on some benchmarks (ids with their split, "msvd_qa/test"), one row each; columns COLUMNS.

    path: a YAML file with a list `published` of benchmark, model, value, source, protocol and, if not per cent, unit.
    Without the file there are no figures. Raises ResultsError without such a list, or for an incomplete entry.
    """
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ResultsError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    entries = content.get("published") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ResultsError(f"{path}: a list called published is expected")
    for place, entry in enumerate(entries):
        lacking = [name for name in COLUMNS if name != "unit" and (not isinstance(entry, dict) or name not in entry)]
        if lacking or isinstance(entry["value"], bool) or not isinstance(entry["value"], (int, float)):
            raise ResultsError(f"{path}, entry {place}: needs {', '.join(lacking) or 'a number as its value'}")
    table = pd.DataFrame([{"unit": "%", **entry} for entry in entries], columns=list(COLUMNS))
    return table[table.benchmark.isin(list(benchmarks))].reset_index(drop=True)


def show(table: pd.DataFrame, title: str) -> None:
    """Print a study's table."""
    console().print(rich_table(table, title))


def rich_table(table: pd.DataFrame, title: str) -> Table:
    """A study's table for the terminal."""
    judges = table.judge.nunique(dropna=False) > 1
    alphas = ["lora_alpha"] if table.model.nunique() > 1 else []  # part of the models' names
    settings = [name for name in varied(table) if name not in ("judge", *alphas)]
    words = ["answer_words"] if table.answer_words.notna().any() else []
    columns = [
        *map(number, ("frames", "visual_tokens")),
        column("score % [95 %]", cells.share_cell, "score", "ci_low", "ci_high"),
        column("chance %", cells.share_cell, "chance"),
        *(column(f"{g} tasks % (chance)", _with_chance, f"score_{g}", f"chance_{g}") for g in other_groups(table)),
        *map(number, ("n", "n_failed", *words, "prefill_gflops", "seconds_per_sample", "shared_seconds")),
    ]
    parts = ("difference", "difference_low", "difference_high", "p_holm")
    for view, end in VIEWS.items():
        if table[f"{view}difference"].notna().any():
            columns.append(column(f"minus baseline{end}", _starred, *(f"{view}{part}" for part in parts)))
    out = Table(title=plain(title, "table.title"))
    for heading in ("pooling", *(heading.text for heading, _ in columns), "status"):
        out.add_column(plain(heading), justify="left" if heading == "pooling" else "right")
    for row in table.to_dict("records"):
        name = ", ".join([str(row["pooling"]), *setting_words(row, settings)])
        if judges:
            name += " (no judge)" if missing(row["judge"]) else f" ({row['judge']})"
        name += "" if missing(row["same_map_as"]) else " (=)"
        values = [f"{cell.text} {cell.interval}".strip() for cell in (make(row) for _, make in columns)]
        done = "ok" if missing(row["mixed"]) else "ok, mixed"
        status = plain(done) if row["status"] == COMPLETE else plain(row["status"], "red")
        out.add_row(*map(plain, (name, *values)), status)
    out.caption = (
        "score: tasks of the headline; intervals clustered by clip, none of fewer than 10; (=): same map as an earlier "
        "point; *: p < 0.05 after Holm's correction; shared: reading clips and the vision tower, for later points too"
        + ("; mixed: attempts at the point differ (run.json)" if table.mixed.notna().any() else "")
    )
    return out


def _with_chance(score: float | None, chance: float | None) -> Cell:
    return Cell(f"{cells.percent_text(score)} ({cells.percent_text(chance)})")


def _starred(value: Any, low: Any, high: Any, p: Any) -> Cell:
    cell = cells.share_cell(value, low, high, signed=True)
    return Cell(f"{cell.text} {cell.interval}".strip() + ("*" if not missing(p) and p < LEVEL else ""))
