"""job=report: a study's table, sweep.csv, figures, page, and tables for papers."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig
from rich.table import Table

from videopool.files import write_text
from videopool.jobs.build import jsonable, number
from videopool.jobs.errors import ConfigError
from videopool.jobs.outcome import COMPLETE, FAILED, Outcome
from videopool.jobs.terminal import console, plain
from videopool.paths import PUBLISHED, shipped
from videopool.reports import (
    SAMPLES,
    groups_of,
    latex_tables,
    markdown_tables,
    other_groups,
    study_page,
    study_question,
)
from videopool.reports.cells import interval_text, missing, number_cell, number_text, percent_text
from videopool.reports.points import SETTINGS, SHARED_TIME, TIME, VIEWS, varied
from videopool.reports.spreadsheet import read_spreadsheet, spreadsheet
from videopool.results import ResultsError, add_pooled_shapes, compared_study, fingerprint, over_seeds, without_seed
from videopool.results.point import FAILURE, MANIFEST, METRICS, TRAINING_LOG, read_json, read_training_log
from videopool.results.published import published_figures
from videopool.results.study import COLUMNS, scored_points

REPORTED = ".report.json"  # what the files of a report are, and what they were made with
FIGURES = "figures"  # folder of a study
LEVEL = 0.05  # of a difference that is marked
MOST_LINES = 10  # in a plot; more are ranked instead
FEW = 2  # settings that may tell recipes of one pooling apart


def report(config: DictConfig) -> Outcome:
    """Write sweep.csv, figures/, report.html, table.md and table.tex of a study and print its table.

    Raises:
        ConfigError: job.pair is not two names, or job.samples no number.
        ResultsError: as write_report.
    """
    pair, samples = jsonable(config.job.pair), number(config, "job.samples", 0, whole=True)
    if pair is not None and not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(n, str) for n in pair)):
        raise ConfigError(f"job.pair={pair!r}: name two points, as in job.pair=[a,b], or say null")
    study = Path(config.results_dir) / config.study
    files, table = write_report(study, str(config.baseline), pair, samples)
    show(table, study.name)
    unfinished = table[table.status != "complete"]
    status = COMPLETE if unfinished.empty else FAILED
    return Outcome(status, f"report of {config.study}", f"{len(table)} points; {name_files(files)}", str(study))


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
    try:
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
    except OSError as error:
        raise ResultsError(f"{study} cannot be written: {error.strerror or error}") from error
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


def recipes(study: Path, runs: Iterable[str]) -> dict[str, str]:
    """By training run, a name that runs share which differ in their seed alone.

    Recipes of one pooling are told apart by the few settings in which they differ, else by their fingerprints.
    """
    found: dict[str, tuple[str, str]] = {}
    settings: dict[str, dict[str, dict[str, Any]]] = {}  # by name and fingerprint
    for run in runs:
        identity = (read_json(study / run / MANIFEST) or {}).get("identity")
        common = without_seed(identity) if isinstance(identity, dict) else {"run": run}
        name = re.sub(r"-s\d+-[0-9a-f]{8}$", "", run)
        found[run] = name, fingerprint(common)
        settings.setdefault(name, {})[fingerprint(common)] = _flat(common)
    own = {name: _told_apart(alike) for name, alike in settings.items()}
    return {run: f"{name}{own[name][common]}" for run, (name, common) in found.items()}


def _told_apart(recipes: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What to say of each of several recipes, beside what they have in common."""
    keys = dict.fromkeys(key for recipe in recipes.values() for key in recipe)
    unlike = [key for key in keys if len({str(recipe.get(key)) for recipe in recipes.values()}) > 1]
    if not 0 < len(unlike) <= FEW:
        return {common: "" if len(recipes) == 1 else f" {common[:4]}" for common in recipes}
    return {
        # What is null, or as usual and therefore not in a recipe, goes without saying.
        common: "".join(f", {key.rpartition('.')[2]} {recipe[key]}" for key in unlike if recipe.get(key) is not None)
        for common, recipe in recipes.items()
    }


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings as one mapping, with dots in its keys."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return found


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


def show(table: pd.DataFrame, title: str) -> None:
    """Print a study's table."""
    console().print(rich_table(table, title))


def rich_table(table: pd.DataFrame, title: str) -> Table:
    """A study's table for the terminal."""
    groups = other_groups(table)
    out = Table(title=plain(title, "table.title"))
    for name in (
        "pooling",
        "frames",
        "tokens",
        "score % [95 %]",
        "chance %",
        *(f"{g} tasks % (chance)" for g in groups),
    ):
        out.add_column(plain(name), justify="left" if name == "pooling" else "right")
    views = [view for view in VIEWS if table[f"{view}difference"].notna().any()]
    said = bool(table.answer_words.notna().any())
    compared = [f"minus baseline{VIEWS[view]}" for view in views]
    for name in ("n", "failed", *["words"] * said, "GFLOPs", TIME, SHARED_TIME, *compared, "status"):
        out.add_column(name, justify="right")
    # The model's name says its alpha.
    told = [name for name in varied(table) if name not in ("judge", *(["lora_alpha"] * (table.model.nunique() > 1)))]
    for row in table.to_dict("records"):
        settings = [SETTINGS[key].format(row[key]) for key in told if not missing(row[key])]
        name = ", ".join([str(row["pooling"]), *settings])
        if table.judge.nunique(dropna=False) > 1:
            name += " (no judge)" if missing(row["judge"]) else f" ({row['judge']})"
        if not missing(row["same_map_as"]):
            name += " (=)"
        cells = [name, number_text(row["frames"], 0), number_text(row["visual_tokens"], 0)]
        cells += [_with_interval(row["score"], row["ci_low"], row["ci_high"]), percent_text(row["chance"])]
        cells += [f"{percent_text(row[f'score_{g}'])} ({percent_text(row[f'chance_{g}'])})" for g in groups]
        cells += [number_text(row["n"], 0), number_text(row["n_failed"], 0)]
        cells += [number_text(row["answer_words"], 1)] * said + [number_text(row["prefill_gflops"], 2)]
        cells += [number_cell(row["seconds_per_sample"], 1, scale=1000).text, number_text(row["shared_seconds"], 1)]
        for view in views:
            star = "*" if not missing(row[f"{view}p_holm"]) and float(row[f"{view}p_holm"]) < LEVEL else ""
            value, low, high = (row[f"{view}difference{tail}"] for tail in ("", "_low", "_high"))
            cells.append(_with_interval(value, low, high, signed=True) + star)
        done = "ok" if missing(row["mixed"]) else "ok, mixed"
        status = plain(done) if row["status"] == "complete" else plain(row["status"], "red")
        out.add_row(*map(plain, cells), status)
    out.caption = (
        "score: tasks of the headline; intervals clustered by clip, none of fewer than 10; (=): same map as an earlier "
        "point; *: p < 0.05 after Holm's correction; shared: reading clips and the vision tower, for later points too"
        + ("; mixed: attempts at the point differ (run.json)" if table.mixed.notna().any() else "")
    )
    return out


def _with_interval(value: object, low: object, high: object, signed: bool = False) -> str:
    return f"{percent_text(value, signed)} {interval_text(low, high)}".strip()
