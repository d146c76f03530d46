"""A study's tables besides its points, figures from papers among them; and all tables as table.md and table.tex."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml

from videopool.reports import cells
from videopool.reports.cells import Cell, Heading, Row, TextTable, column, escape_markdown, latex_table, markdown_table
from videopool.reports.columns import COMPLETE, caption, number, point_labels, points_table, varied
from videopool.results.errors import ResultsError
from videopool.results.point import METRICS, part_of, read_json

COLUMNS = ("benchmark", "model", "value", "unit", "source", "protocol")  # of published figures
PUBLISHED = "published figures, other protocols"
SEEDS = "means over seeds; intervals for other seeds and other clips"


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


def task_tables(frame: pd.DataFrame) -> dict[str, TextTable]:
    """A table of points x tasks for each benchmark with several tasks, by the benchmark's name.

    The first two rows are chance and the number of samples of each task, from the benchmark's first complete point.
    """
    labels = point_labels(frame)
    tables: dict[str, TextTable] = {}
    for benchmark, rows in frame[frame.status == COMPLETE].groupby("benchmark", sort=False):
        points = {str(r.point): part_of(read_json(Path(r.folder) / METRICS) or {}, "tasks") for r in rows.itertuples()}
        names = sorted(set().union(*points.values()))
        if len(names) < 2:
            continue
        first = next(iter(points.values()))
        body = [
            Row((Cell("chance"), *(cells.share_cell(part_of(first, name).get("chance")) for name in names))),
            Row((Cell("samples"), *(cells.number_cell(part_of(first, name).get("n")) for name in names))),
        ]
        for point, tasks in points.items():
            own = [part_of(tasks, name) for name in names]
            scores = [cells.share_cell(task.get("score"), task.get("ci_low"), task.get("ci_high")) for task in own]
            body.append(Row((Cell(labels[point]), *scores), point, COMPLETE))
        headings = (Heading("point", numeric=False), *map(Heading, names))
        tables[str(benchmark)] = TextTable(headings, tuple(body))
    return tables


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
    text = f"{escape_markdown(caption(frame, name))}\n\n{markdown_table(points)}"
    notes = [(row.point, cell.note) for row in points.rows for cell in row.cells if cell.note]
    if notes:
        lines = (f"- {escape_markdown(point)}: {escape_markdown(note)}\n" for point, note in notes)
        text += "\nNot complete:\n\n" + "".join(lines)
    for title, table in other_tables(published, seeds).values():
        text += f"\n{title.capitalize()}:\n\n{markdown_table(table)}"
    return text


def latex_tables(
    frame: pd.DataFrame, name: str, published: pd.DataFrame | None = None, seeds: pd.DataFrame | None = None
) -> str:
    """The content of table.tex."""
    text = latex_table(points_table(frame, timed=False), caption(frame, name), name)
    for kind, (title, table) in other_tables(published, seeds).items():
        title = f"{name}: {title}" if kind == "seeds" else title.capitalize()
        text += "\n" + latex_table(table, f"{title}.", f"{name}-{kind}")
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
