"""The files of a study's report."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from videopool.files import write_text
from videopool.paths import PUBLISHED, shipped
from videopool.reports import SAMPLES, groups_of, latex_tables, markdown_tables, study_page, study_question
from videopool.reports.points import VIEWS
from videopool.reports.recipes import recipes
from videopool.reports.spreadsheet import read_spreadsheet, spreadsheet
from videopool.results import add_pooled_shapes, compared_study, over_seeds
from videopool.results.errors import writing
from videopool.results.point import FAILURE, MANIFEST, METRICS, TRAINING_LOG, read_training_log
from videopool.results.published import published_figures
from videopool.results.study import COLUMNS, scored_points

REPORTED = ".report.json"  # what the files of a report are, and what they were made with


FIGURES = "figures"  # folder of a study


MOST_LINES = 10  # in a plot; more are ranked instead


def name_files(files: list[str]) -> str:
    """One line on what was written."""
    study = Path(files[0]).parent
    figures = [name for name in files if Path(name).parent != study]
    others = [Path(name).name for name in files if name not in figures]
    more = f" and {len(figures)} figures in {Path(figures[0]).parent}" if figures else ""
    return f"wrote {study / ', '.join(others)}{more}"


def write_report(
    study: Path, baseline: str, pair: Sequence[str] | None = None, samples: int = SAMPLES
) -> tuple[list[str], pd.DataFrame]:
    """All files of a study's report.

    Args:
        study: its folder.
        baseline: a pooling or a point, as add_differences takes it.
        pair: names of two points whose answers the page compares; None leaves the choice to it.
        samples: how many samples the page shows of the two.

    Two processes may write one report: each file is that of one of them, whole.

    Returns:
        The files written, and the table.

    Raises:
        ResultsError: there is no such study, or it has no points, or none that the pair names, or no room on disk.
    """
    attempts = _attempts(study)  # before anything is read: what changes meanwhile makes the report stale
    table = compared_study(study, baseline)
    seeds = over_seeds(table, baseline)
    experiments = shipped("experiments")
    question = study_question(experiments, table)
    published = published_figures(experiments / PUBLISHED, list(table.benchmark.dropna().unique()))
    with writing(study):
        before = _earlier_figures(study)
        (study / REPORTED).unlink(missing_ok=True)  # until all files are there
        figures = _figures(study, table)
        drawings = [Path(name) for name in figures if name.endswith(".svg")]
        texts = {
            "sweep.csv": spreadsheet(table.drop(columns="folder")),
            "report.html": study_page(table, study.name, question, drawings, pair, samples, published, seeds),
            "table.md": markdown_tables(table, study.name, published, seeds),
            "table.tex": latex_tables(table, study.name, published, seeds),
        }
        if len(seeds):
            texts["seeds.csv"] = spreadsheet(seeds)
        files = [write_text(study / name, text) for name, text in texts.items()] + figures
        names = [str(Path(file).relative_to(study)) for file in files]
        for path in before - {study / name for name in names}:
            path.unlink(missing_ok=True)
        told = {"baseline": baseline, "files": names, "attempts": attempts}
        write_text(study / REPORTED, json.dumps(told))
    return files, table


def _earlier_figures(study: Path) -> set[Path]:
    """Figures that the report before this one wrote; those of other jobs stay."""
    try:
        names = json.loads((study / REPORTED).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {study / FIGURES / Path(name).name for name in names if Path(name).parent == Path(FIGURES)}


def _attempts(study: Path) -> dict[str, list[int]]:
    """Time of change and size of each file that an attempt at a point leaves, by its name in the study."""
    kinds = (MANIFEST, METRICS, FAILURE)
    files = [folder / kind for folder in scored_points(study) for kind in kinds]
    states = {file: file.stat() for file in files if file.exists()}
    return {str(file.relative_to(study)): [state.st_mtime_ns, state.st_size] for file, state in states.items()}


def _figures(study: Path, table: pd.DataFrame) -> list[str]:
    # Here, since a report that is kept draws nothing.
    from videopool.figures import (
        ranked,
        save_figure,
        score_against,
        score_by_shape,
        shape_panels,
        training_curves,
    )
    from videopool.figures.scores import AXES, OWN_AXES, line_names

    complete = table[(table.status == "complete") & table.score.notna()]
    files: list[str] = []
    for benchmark, rows in complete.groupby("benchmark"):
        slug = str(benchmark).replace("/", "-")
        groups: list[str | None] = [*groups_of(rows)] or [None]
        for group in groups:
            if group is not None and rows[f"score_{group}"].isna().all():
                continue
            axes = ["frames", "visual_tokens"]
            if any(rows[name].nunique() > 1 for name in OWN_AXES):
                axes = [name for name in AXES if rows[name].nunique() > 1]
            if len(set(line_names(rows, axes[-1]))) > MOST_LINES:
                figure = ranked(rows, group)
                files += save_figure(figure, study / FIGURES / _name("score", group, "ranked", slug))
                axes = []
            for axis in axes:
                # Not the visual tokens of a model behind an API, nor what has no score in this group.
                known = rows[rows[axis].notna() & rows[f"score_{group}" if group else "score"].notna()]
                if known.empty:
                    continue
                figure = score_against(known, axis, group)
                files += save_figure(figure, study / FIGURES / _name("score", group, "by", axis, slug))
            scored = rows[rows[f"score_{group}" if group else "score"].notna()]
            if panels := shape_panels(add_pooled_shapes(scored)):
                figure = score_by_shape(panels, group)
                files += save_figure(figure, study / FIGURES / _name("score", group, "by_shape", slug))
    if logs := training_logs(study):
        files += save_figure(training_curves(logs, recipes(study, logs)), study / FIGURES / "training")
    return files


def training_logs(study: Path) -> dict[str, pd.DataFrame]:
    """The logs of a study's training runs that took a step, by the run's name."""
    folders = [path.parent for path in sorted(study.glob(f"*/{TRAINING_LOG}"))]
    logs = {folder.name: pd.DataFrame(read_training_log(folder)) for folder in folders}
    return {name: log for name, log in logs.items() if "ema" in log}


def _name(*parts: str | None) -> str:
    return "_".join(part for part in parts if part)


def written_report(study: Path, baseline: str, folders: Sequence[str]) -> tuple[list[str], pd.DataFrame] | None:
    """The files and table that an earlier write_report left, if nothing has changed since; else None.

    Args:
        folders: of the points that the report must hold.
    """
    path, name = study / "sweep.csv", study / REPORTED
    try:
        told = json.loads(name.read_text())
        table = read_spreadsheet(path)
        files = [str(study / file) for file in told["files"]]
        points = {folder.name for folder in scored_points(study)}
        held = points == set(table.point) >= {Path(folder).name for folder in folders}
        whole = held and all(Path(file).is_file() for file in files)
        # Not which is newer: clocks are set back. Equal states are the same files.
        fresh = told["baseline"] == baseline and told["attempts"] == _attempts(study)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    # One that another version wrote may lack columns.
    whole = whole and {*COLUMNS, *(f"{view}p_holm" for view in VIEWS)} <= set(table.columns)
    return (files, table) if whole and fresh else None
