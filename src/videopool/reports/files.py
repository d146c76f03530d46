"""The files of a study's report."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from omegaconf import DictConfig, ListConfig, OmegaConf

from videopool.config.build import build, jsonable
from videopool.config.errors import ConfigError
from videopool.config.own_code import own_code
from videopool.files import write_text
from videopool.paths import PUBLISHED, shipped
from videopool.reports import SAMPLES, latex_tables, markdown_tables, study_page, study_question
from videopool.reports.points import VIEWS
from videopool.reports.spreadsheet import read_spreadsheet, spreadsheet
from videopool.results import compared_study, over_seeds
from videopool.results.errors import writing
from videopool.results.point import FAILURE, MANIFEST, METRICS
from videopool.results.published import published_figures
from videopool.results.study import COLUMNS, scored_points

if TYPE_CHECKING:
    from videopool.reports.study_figures import StudyFigure

REPORTED = ".report.json"  # what the files of a report are, and what they were made with


FIGURES = "figures"  # folder of a study


def own_figures(config: DictConfig) -> dict[str, "StudyFigure"]:
    """The user's figures, by what tells them apart: their settings and source.

    Raises:
        ConfigError: the key `figures` is no list of them.
    """
    if not isinstance(config.figures, ListConfig):
        raise ConfigError(f"figures={config.figures}: give a list, as in figures=[{{_target_: my.module.MyFigure}}]")
    found = {}
    for number, node in enumerate(config.figures):
        key = f"figures[{number}]"
        figure = build(OmegaConf.create({key: node}), key)
        if not all(hasattr(figure, part) for part in ("name", "applies", "draw")):
            raise ConfigError(f"{key}: {type(figure).__name__} is no figure: it needs name, applies and draw")
        found[json.dumps([jsonable(node), own_code(config, [key])])] = figure
    return found


def name_files(files: list[str]) -> str:
    """One line on what was written."""
    study = Path(files[0]).parent
    figures = [name for name in files if Path(name).parent != study]
    others = [Path(name).name for name in files if name not in figures]
    more = f" and {len(figures)} figures in {Path(figures[0]).parent}" if figures else ""
    return f"wrote {study / ', '.join(others)}{more}"


def write_report(
    study: Path,
    baseline: str,
    pair: Sequence[str] | None = None,
    samples: int = SAMPLES,
    own_figures: Mapping[str, "StudyFigure"] | None = None,
) -> tuple[list[str], pd.DataFrame]:
    """All files of a study's report.

    Args:
        study: its folder.
        baseline: a pooling or a point, as add_differences takes it.
        pair: names of two points whose answers the page compares; None leaves the choice to it.
        samples: how many samples the page shows of the two.
        own_figures: the user's figures, by what tells them apart.

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
        from videopool.reports.study_figures import draw_figures  # here: a report that is kept draws nothing

        figures = draw_figures(study, table, study / FIGURES, (own_figures or {}).values())
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
        told |= {"own_figures": list(own_figures)} if own_figures else {}
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


def written_report(
    study: Path, baseline: str, folders: Sequence[str], own_figures: Iterable[str] = ()
) -> tuple[list[str], pd.DataFrame] | None:
    """The files and table that an earlier write_report left, if nothing has changed since; else None.

    Args:
        folders: of the points that the report must hold.
        own_figures: what tells the user's figures apart.
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
        fresh = fresh and told.get("own_figures", []) == list(own_figures)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    # One that another version wrote may lack columns.
    whole = whole and {*COLUMNS, *(f"{view}p_holm" for view in VIEWS)} <= set(table.columns)
    return (files, table) if whole and fresh else None
