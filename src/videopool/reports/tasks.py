"""How each point did on each kind of question."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from videopool.reports.cells import Cell, Heading, Row, TextTable, number_cell, share_cell
from videopool.reports.points import COMPLETE, point_labels
from videopool.results.point import METRICS, read_json

Tasks = Mapping[str, Mapping[str, Any]]


def task_tables(frame: pd.DataFrame) -> dict[str, TextTable]:
    """A table of points x tasks for each benchmark with more than one task, by the benchmark's name.

    Its first two rows say what a guess scores and on how many samples a task stands, from the benchmark's first
    complete point.
    """
    labels = point_labels(frame)
    tables: dict[str, TextTable] = {}
    for benchmark, rows in frame[frame.status == COMPLETE].groupby("benchmark", sort=False):
        found = {str(row.point): _tasks(str(row.folder)) for row in rows.itertuples()}
        names = sorted(set().union(*found.values()))
        if len(names) < 2:
            continue
        headings = (Heading("point", numeric=False), *(Heading(name) for name in names))
        first = next(iter(found.values()))
        chance = [Cell("chance"), *(share_cell(_of(first, name, "chance")) for name in names)]
        samples = [Cell("samples"), *(number_cell(_of(first, name, "n"), 0) for name in names)]
        body = [
            Row((Cell(labels[point]), *(_score(tasks, name) for name in names)), point, COMPLETE)
            for point, tasks in found.items()
        ]
        tables[str(benchmark)] = TextTable(headings, (Row(tuple(chance)), Row(tuple(samples)), *body))
    return tables


def _tasks(folder: str) -> Tasks:
    tasks = (read_json(Path(folder) / METRICS) or {}).get("tasks")
    return tasks if isinstance(tasks, dict) else {}


def _of(tasks: Tasks, name: str, field: str) -> Any:
    return tasks.get(name, {}).get(field)


def _score(tasks: Tasks, name: str) -> Cell:
    return share_cell(*(_of(tasks, name, field) for field in ("score", "ci_low", "ci_high")))
