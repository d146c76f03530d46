"""The tables of a study: points, tasks, means over seeds, figures from papers; for pages, papers, the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import yaml

from videopool.reports import cells
from videopool.reports.cells import Cell, TextTable, column
from videopool.reports.columns import (
    COMPLETE,
    SETTINGS,
    default_names,
    frames_text,
    other_groups,
    page_names,
    setting_words,
    table_of,
    varied,
)  # fmt: skip
from videopool.reports.latex import environments
from videopool.reports.unfinished import incomplete
from videopool.results.errors import ResultsError
from videopool.results.study import rows_of
from videopool.runtime.tables import Shown
from videopool.runtime.terminal import console

MARKS = {"*": "*: p < 0.05 after Holm's correction", " (=)": "(=): identical to an earlier point"}
INTERVALS = "95 %, clustered by clip, none of fewer than 10 clips"
HINT = " (job.columns=[...] chooses)"
COLUMNS = ("benchmark", "model", "value", "unit", "source", "protocol")  # of published figures
PUBLISHED = "published figures, other protocols"
Others = Mapping[str, tuple[str, TextTable]]  # by kind: title and table
SEEDS = "means over seeds; intervals for other seeds and other clips"


def shared_settings(frame: pd.DataFrame) -> str:
    """The settings that all points of a study share, as a line."""
    shared = [name for name in SETTINGS if name in frame and frame[name].nunique(dropna=False) <= 1]
    return ", ".join(setting_words(frame.iloc[0].to_dict(), shared))


def shared_chance(frame: pd.DataFrame) -> str:
    """Chance scores that are the same for all points; others have a column of the table."""
    names = {"chance": "chance", **{f"chance_{group}": f"on {group} tasks" for group in other_groups(frame)}}
    constant = {words: frame[name].dropna() for name, words in names.items() if frame[name].nunique() == 1}
    return ", ".join(f"{words} {cells.percent_text(values.iloc[0])} %" for words, values in constant.items())


def facts(frame: pd.DataFrame, table: TextTable) -> list[str]:
    """What all points of a study share, and how to read its table, in words for a caption."""
    counts = scored_samples(frame)
    about = [shared_settings(frame), counts and f"n = {counts} scored samples", shared_chance(frame), *legend(table)]
    about.append(f"intervals: {INTERVALS}" if any(cell.interval for row in table.rows for cell in row.cells) else "")
    return list(filter(None, about))


def caption(frame: pd.DataFrame, table: TextTable, name: str) -> str:
    """The caption of a study's table in a page or a paper."""
    frames = [frames_text(frame.frames.iloc[0])] if frame.frames.nunique(dropna=False) == 1 else []
    notes = [heading.note for heading in table.headings if heading.note]
    parts = [*frames, *facts(frame, table), *notes, "differences in percentage points", "best score in bold"]
    return f"{name}: {'; '.join(parts)}."


def scored_samples(frame: pd.DataFrame) -> str:
    """How many samples the points' scores are about, "" without any."""
    counts = sorted({int(n) for n in frame[frame.status == COMPLETE].n.dropna()} - {0})
    return " to ".join(str(count) for count in dict.fromkeys([counts[0], counts[-1]])) if counts else ""


def legend(table: TextTable) -> list[str]:
    """What the marks of a study's table mean, as far as it has them."""
    marks = {cell.mark for row in table.rows for cell in row.cells}
    return [text for mark, text in MARKS.items() if mark in marks]


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
        column("frames", cells.number_cell, "frames"),
        column("seeds", cells.plain_cell, "seeds"),
        column("score (%)", cells.share_cell, "score", "ci_low", "ci_high"),
        column("difference", cells.difference_cell, "difference", "difference_low", "difference_high", "p_holm"),
        column("p (Holm)", cells.p_cell, "p_holm"),
    ]
    return cells.text_table(columns, seeds)


def other_tables(published: pd.DataFrame, seeds: pd.DataFrame) -> Others:
    """Title and table of the means over seeds and of the published figures, as far as there are any."""
    tables = {"seeds": (SEEDS, seeds_table(seeds)), "published": (PUBLISHED, published_table(published))}
    return {kind: (title, table) for kind, (title, table) in tables.items() if table.rows}


def markdown_tables(
    frame: pd.DataFrame,
    name: str,
    others: Others | None = None,
    chosen: Sequence[str] | None = None,
    conclusion: Sequence[str] = (),
) -> str:
    """The content of table.md; chosen: names of columns, by default those of default_names()."""
    points = table_of(frame, chosen or default_names(frame))
    text = f"{cells.escape_markdown(caption(frame, points, name))}\n\n{cells.markdown_table(points)}"
    if reasons := incomplete(frame):
        lines = (f"- {cells.escape_markdown(point)}: {cells.escape_markdown(why)}\n" for point, why in reasons.items())
        text += "\nNot complete:\n\n" + "".join(lines)
    for title, table in (others or {}).values():
        text += f"\n{title.capitalize()}:\n\n{cells.markdown_table(table)}"
    sentences = "".join(f"- {cells.escape_markdown(sentence)}\n" for sentence in conclusion)
    return f"{text}\nConclusion:\n\n{sentences}" if sentences else text


def paper_table(frame: pd.DataFrame, chosen: Sequence[str] | None = None) -> TextTable:
    """The rows of table.tex.

    Without chosen columns, rows stand in groups of equal settings and frames where several poolings share them.
    """
    names, settings = list(chosen or default_names(frame)), varied(frame)
    keys = [*settings, "frames"]
    groups = frame.groupby(keys, dropna=False, sort=False).ngroups
    if chosen is None and len(frame) > 1 == frame.frames.nunique(dropna=False):
        names.remove("frames")  # part of the caption
    if chosen or len(frame) < 2 * groups:
        return table_of(frame, names)
    order = frame.groupby(settings, dropna=False, sort=False).ngroup() if settings else 0
    frame = frame.assign(order=order).sort_values(["order", "frames"], kind="stable")
    table = table_of(frame, [name for name in names if name not in keys])
    if groups == 1:
        return table
    titled = [
        replace(row, title=", ".join([*setting_words(fields, settings), frames_text(fields["frames"])]))
        for row, fields in zip(table.rows, rows_of(frame), strict=True)
    ]
    return TextTable(table.headings, tuple(titled))


def latex_tables(
    frame: pd.DataFrame, name: str, others: Others | None = None, chosen: Sequence[str] | None = None
) -> str:
    """The content of table.tex; chosen: names of columns."""
    table = paper_table(frame, chosen)
    content = environments(table, caption(frame, table, "Pooling of visual tokens"), name)
    for kind, (title, other) in (others or {}).items():
        content += "\n" + environments(other, f"{name}: {title}.", f"{name}-{kind}")
    return content


def published_figures(path: Path, benchmarks: Sequence[str]) -> pd.DataFrame:
    """Published figures on some benchmarks (ids with their split, "msvd_qa/test"), one row each; columns COLUMNS.

    path: a YAML file with a list `published` of benchmark, model, value, source, protocol and, if not per cent, unit.
    Without the file there are no figures. Raises ResultsError without such a list, or for an incomplete entry.
    """
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
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


def show(frame: pd.DataFrame, title: str, chosen: Sequence[str] | None = None) -> None:
    """Print a study's table; chosen: names of columns, by default as many as fit, in their order of worth."""
    console().print(shown(frame, title, chosen))


def shown(frame: pd.DataFrame, title: str, chosen: Sequence[str] | None = None) -> Shown:
    """A study's table for the terminal, with the settings that all points share in its caption."""
    table = table_of(frame, chosen or [name for name in page_names(frame) if name != "status"])
    if chosen is not None:  # the first ones are worth most
        headings = [replace(heading, rank=min(place, 4)) for place, heading in enumerate(table.headings)]
        table = TextTable(tuple(headings), table.rows)
    rows = [replace(row, style="" if row.status == COMPLETE else "red") for row in table.rows]
    return Shown(TextTable(table.headings, tuple(rows)), title, tuple(facts(frame, table)), HINT)
