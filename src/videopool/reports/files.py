"""The files of a study's report."""

import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from omegaconf import DictConfig, ListConfig, OmegaConf

from videopool import __version__
from videopool.config.build import build, jsonable
from videopool.config.errors import ConfigError
from videopool.config.own_code import own_code
from videopool.files import write_text
from videopool.paths import PUBLISHED, shipped
from videopool.reports.cells import read_spreadsheet, spreadsheet
from videopool.reports.columns import VIEWS, check_columns, study_columns
from videopool.reports.conclusion import conclusion
from videopool.reports.page import study_head, study_page
from videopool.reports.samples import SAMPLES, choose_pair
from videopool.reports.tables import latex_tables, markdown_tables, other_tables, published_figures
from videopool.results import compared_study, over_seeds
from videopool.results.errors import writing
from videopool.results.point import FAILURE, MANIFEST, METRICS, read_json
from videopool.results.study import COLUMNS, scored_points
from videopool.runtime.progress import progress

if TYPE_CHECKING:
    from videopool.reports.study_figures import StudyFigure

REPORTED = ".report.json"  # the files of a report, and its inputs
FIGURES = "figures"  # folder of a study


def own_figures(config: DictConfig) -> dict[str, "StudyFigure"]:
    """The user's figures, by their settings and source. Raises ConfigError if `figures` is no list of figures."""
    if not isinstance(config.figures, ListConfig):
        raise ConfigError(f"figures={config.figures}: give a list, as in figures=[{{_target_: my.module.MyFigure}}]")
    figures = {}
    for number, node in enumerate(config.figures):
        key = f"figures[{number}]"
        figure = build(OmegaConf.create({key: node}), key)
        if not all(hasattr(figure, part) for part in ("name", "applies", "draw")):
            raise ConfigError(f"{key}: {type(figure).__name__} is no figure: it needs name, applies and draw")
        figures[json.dumps([jsonable(node), own_code(config, [key])])] = figure
    return figures


def name_files(files: list[str]) -> str:
    """The written files in one line."""
    study = Path(files[0]).parent
    figures = [name for name in files if Path(name).parent != study]
    others = [Path(name).name for name in files if name not in figures]
    count = len({Path(name).stem for name in figures})  # each in several formats
    formats = ", ".join(sorted({Path(name).suffix.lstrip(".").upper() for name in figures}))
    more = f" and {count} figure{'s' * (count > 1)} ({formats}) in {Path(figures[0]).parent}" if figures else ""
    return f"wrote {study / ', '.join(others)}{more}"


def write_report(
    study: Path,
    baseline: str,
    pair: Sequence[str] | None = None,
    samples: int = SAMPLES,
    own_figures: Mapping[str, "StudyFigure"] = {},
    columns: Sequence[str] | None = None,
    so_far: str = "",
    name: str = "",
) -> tuple[list[str], pd.DataFrame]:
    """Write all files of a study's report. Returns their names and the table.

    baseline: as for add_differences. pair, samples: as for choose_pair. columns: of tables, from chosen_columns.
    so_far: how many points of a running sweep it holds; written_report passes such a report over. name: of the study
    whose copy for others this is; they are not told the command. Of two processes that write one report, each file is
    written whole by one of them.

    Raises ResultsError if the study does not exist or has no points, or none with a name of the pair, or if the disk is
    full.
    """
    inputs = _inputs(study, baseline, own_figures, columns, pair, samples)  # before reading
    table = compared_study(study, baseline)
    if columns:
        check_columns(columns, study_columns(table))
    seeds = over_seeds(table, baseline)
    headline = inputs["head"].get("headline", "")
    sentences = [*[so_far] * bool(so_far), *conclusion(table, baseline, seeds, headline)]
    command, name = "" if name else command_line(), name or study.name
    two = choose_pair(table, pair, headline) if samples or pair else None
    published = published_figures(shipped("experiments") / PUBLISHED, list(table.benchmark.dropna().unique()))
    others = other_tables(published, seeds)
    with writing(study), progress("writing the report"):
        earlier = map(Path, (read_json(study / REPORTED) or {}).get("files", []))
        before = {study / name for name in earlier if name.parent == Path(FIGURES)}  # figures of other jobs stay
        (study / REPORTED).unlink(missing_ok=True)  # until all files are there
        from videopool.reports.study_figures import draw_figures  # here: a report that is kept draws nothing

        figures = draw_figures(study, table, study / FIGURES, own_figures.values())
        drawings = {Path(name): caption for name, caption in figures.items() if name.endswith(".svg")}
        parts = (baseline, inputs["head"], sentences, drawings, two, samples, others, columns, command)
        texts = {
            "sweep.csv": spreadsheet(table.drop(columns="folder")),
            "report.html": study_page(table, name, *parts),
            "table.md": markdown_tables(table, name, others, columns, sentences),
            "table.tex": latex_tables(table, name, others, columns),
        }
        if len(seeds):
            texts["seeds.csv"] = spreadsheet(seeds)
        files = [write_text(study / name, text) for name, text in texts.items()] + list(figures)
        written = [str(Path(file).relative_to(study)) for file in files]
        for path in before - {study / file for file in written}:
            path.unlink(missing_ok=True)
        write_text(study / REPORTED, json.dumps({"files": written, **({} if so_far else inputs)}))
    return files, table


def command_line() -> str:
    """The command line of this process, as a shell reads it; "" if it is not the program's."""
    program = Path(sys.argv[0])
    named = program.name == "videopool" or program.parts[-2:] == ("videopool", "__main__.py")
    return shlex.join(["videopool", *sys.argv[1:]]) if named else ""


def _inputs(
    study: Path,
    baseline: str,
    own_figures: Iterable[str] = (),
    columns: Sequence[str] | None = None,
    pair: Sequence[str] | None = None,
    samples: int = SAMPLES,
) -> dict[str, Any]:
    """The inputs of a report. Files of attempts count by modification time and size: clocks may go back."""
    points = scored_points(study)
    files = [folder / kind for folder in points for kind in (MANIFEST, METRICS, FAILURE)]
    states = {file: file.stat() for file in files if file.exists()}
    attempts = {str(file.relative_to(study)): [state.st_mtime_ns, state.st_size] for file, state in states.items()}
    head = study_head(shipped("experiments"), points.values())
    asked = {"columns": columns and list(columns), "pair": pair and list(pair), "samples": samples}
    made = {"version": __version__, "own_figures": list(own_figures), "attempts": attempts}
    return {"baseline": baseline, "head": head, **asked, **made}


def written_report(
    study: Path, baseline: str, folders: Sequence[str], **asked: Any
) -> tuple[list[str], pd.DataFrame] | None:
    """Files and table of an earlier write_report if nothing has changed since and it holds these points; else None.

    asked: the other arguments of write_report.
    """
    report = read_json(study / REPORTED) or {}
    names = report.pop("files", [])
    if report != _inputs(study, baseline, **asked):
        return None
    try:
        table = read_spreadsheet(study / "sweep.csv")
    except (OSError, ValueError):
        return None
    files = [study / name for name in names]
    needed = {*COLUMNS, *(f"{view}p_holm" for view in VIEWS)}  # a table of another version may lack some
    if not all(file.is_file() for file in files) or not needed <= set(table.columns):
        return None
    points = {folder.name for folder in scored_points(study)}
    held = points == set(table.point) >= {Path(folder).name for folder in folders}
    return ([str(file) for file in files], table) if held else None
