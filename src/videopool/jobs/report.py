"""job=report: a study's table, sweep.csv and figures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from videopool.figures import save_figure, score_against
from videopool.jobs.outcome import COMPLETE, FAILED, Outcome
from videopool.results import ResultsError, add_differences, load_study
from videopool.results.point import MANIFEST, METRICS, read_json

REPORTED = ".report.json"  # what the files of a report were made with
WIDE = 150  # columns, where there is no terminal to fit


def report(config: DictConfig) -> Outcome:
    """Write sweep.csv and figures/ of a study and print its table."""
    study = Path(config.results_dir) / config.study
    files, table = write_report(study, str(config.baseline), tell=True)
    unfinished = table[table.status != "complete"]
    status = COMPLETE if unfinished.empty else FAILED
    return Outcome(status, f"report of {config.study}", f"{len(table)} points; {name_files(files)}", str(study))


def name_files(files: list[str]) -> str:
    """One line on what was written."""
    figures = [Path(name) for name in files[1:]]
    more = f" and {len(figures)} figures in {figures[0].parent}" if figures else ""
    return f"wrote {files[0]}{more}"


def write_report(study: Path, baseline: str, tell: bool) -> tuple[list[str], pd.DataFrame]:
    """sweep.csv and figures of a study.

    Returns:
        The files written, and the table.

    Raises:
        ResultsError: there is no such study, or it has no points.
    """
    if not study.is_dir():
        raise ResultsError(f"there is no study {study}")
    table = load_study(study)
    if table.empty:
        raise ResultsError(f"{study} holds no points")
    headline = _headline(study, table)
    table = add_differences(table, baseline, lambda task: headline is None or task in headline)
    path = study / "sweep.csv"
    part = path.with_suffix(".part")
    try:
        table.drop(columns="folder").to_csv(part, index=False)
        part.replace(path)
        files = [str(path), *_figures(study, table)]
        (study / REPORTED).write_text(json.dumps({"baseline": baseline, "figures": files[1:]}))
    except OSError as error:
        raise ResultsError(f"{study} cannot be written: {error.strerror or error}") from error
    if tell:
        show(table, study.name)
    return files, table


def _headline(study: Path, table: pd.DataFrame) -> set[str] | None:
    """Tasks that count towards the score, from the first point's manifest; None for all."""
    manifest = read_json(study / str(table.point.iloc[0]) / MANIFEST) or {}
    identity = manifest.get("identity")
    tasks = identity.get("headline") if isinstance(identity, dict) else None
    return set(tasks) if tasks else None


def groups_of(table: pd.DataFrame) -> list[str]:
    """Names of the groups of tasks that a study's points were scored on."""
    return [c.removeprefix("score_") for c in table.columns if c.startswith("score_")]


def _figures(study: Path, table: pd.DataFrame) -> list[str]:
    complete = table[(table.status == "complete") & table.score.notna()]
    files: list[str] = []
    for benchmark, rows in complete.groupby("benchmark"):
        slug = str(benchmark).replace("/", "-")
        groups: list[str | None] = [*groups_of(rows)] or [None]
        for group in groups:
            if group is not None and rows[f"score_{group}"].isna().all():
                continue
            for axis in ("frames", "visual_tokens"):
                known = rows[rows[axis].notna()]  # not the visual tokens of a model behind an API
                if known.empty:
                    continue
                figure = score_against(known, axis, group)
                name = "_".join(part for part in ("score", group, "by", axis, slug) if part)
                files += save_figure(figure, study / "figures" / name)
    return files


def written_report(study: Path, baseline: str, folders: Sequence[str]) -> tuple[list[str], pd.DataFrame] | None:
    """The files and table that an earlier write_report left, if nothing has changed since; else None.

    Args:
        folders: of the points that the report must hold.
    """
    path, name = study / "sweep.csv", study / REPORTED
    try:
        told = json.loads(name.read_text())
        table = pd.read_csv(path)
        newest = max(metrics.stat().st_mtime_ns for metrics in study.glob(f"*/{METRICS}"))
        files = [str(path), *told["figures"]]
        whole = all(Path(file).is_file() for file in files) and {Path(f).name for f in folders} <= set(table.point)
        points = sum(1 for _ in study.glob(f"*/{MANIFEST}"))
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    fresh = told["baseline"] == baseline and newest < path.stat().st_mtime_ns and points == len(table)
    return (files, table) if whole and fresh else None


def show(table: pd.DataFrame, title: str) -> None:
    """Print a study's table."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDE
    console.print(rich_table(table, title))


def rich_table(table: pd.DataFrame, title: str) -> Table:
    """A study's table for the terminal."""
    groups = [g for g in groups_of(table) if not _same(table, g)]
    out = Table(title=title)
    for name in (
        "pooling",
        "frames",
        "tokens",
        "score % [95 %]",
        "chance %",
        *(f"{g} tasks % (chance)" for g in groups),
    ):
        out.add_column(name, justify="left" if name == "pooling" else "right")
    for name in ("n", "failed", "GFLOPs", "ms/sample", "minus baseline", "status"):
        out.add_column(name, justify="right")
    many = table.model.nunique() > 1 or table.benchmark.nunique() > 1 or table.stage.nunique() > 1
    for row in table.to_dict("records"):
        name = str(row["pooling"])
        if many:
            name = f"{row['model']} {row['benchmark']} {name} {row['stage']}"
        if table.judge.nunique(dropna=False) > 1:
            name += " (no judge)" if _missing(row["judge"]) else f" ({row['judge']})"
        if not _missing(row["same_map_as"]):
            name += " (=)"
        cells = [name, _number(row["frames"], 0), _number(row["visual_tokens"], 0)]
        cells += [_interval(row["score"], row["ci_low"], row["ci_high"]), _percent(row["chance"])]
        cells += [f"{_percent(row[f'score_{g}'])} ({_percent(row[f'chance_{g}'])})" for g in groups]
        cells += [_number(row["n"], 0), _number(row["n_failed"], 0), _number(row["prefill_gflops"], 2)]
        seconds = row["seconds_per_sample"]
        cells.append(_number(None if seconds is None else 1000 * float(seconds), 1))
        cells.append(_interval(row["difference"], row["difference_low"], row["difference_high"], signed=True))
        cells.append("ok" if row["status"] == "complete" else f"[red]{row['status']}[/red]")
        out.add_row(*cells)
    out.caption = "score: tasks of the headline; intervals clustered by clip; (=): same map as an earlier point"
    return out


def _same(table: pd.DataFrame, group: str) -> bool:
    """Whether a group is the headline, which has its own column."""
    return bool((table.score.fillna(-1) == table[f"score_{group}"].fillna(-1)).all())


def _missing(value: Any) -> bool:
    return value is None or bool(pd.isna(value))


def _percent(value: object) -> str:
    return "-" if _missing(value) else f"{100 * float(str(value)):.1f}"


def _number(value: object, digits: int) -> str:
    return "-" if _missing(value) else f"{float(str(value)):.{digits}f}"


def _interval(value: object, low: object, high: object, signed: bool = False) -> str:
    if _missing(value):
        return "-"
    sign = "+" if signed else ""
    return f"{100 * float(str(value)):{sign}.1f} [{100 * float(str(low)):.1f}, {100 * float(str(high)):.1f}]"
