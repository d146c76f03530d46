"""The figures of a study's report, each with the condition for drawing it.

Another one is an object with `name`, `applies` and `draw`: in FIGURES, or named by the key `figures`.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from matplotlib.figure import Figure

from videopool.figures import formats, ranked, save_figure, score_against, score_by_shape, shape_panels, training_curves
from videopool.figures.scores import AXES, OWN_AXES, line_names
from videopool.reports.columns import groups_of
from videopool.results import ResultsError, add_pooled_shapes, fingerprint, without_seed
from videopool.results.point import TRAINING_LOG, manifest_part, read_training_log

MOST_LINES = 10  # in a plot; more are ranked instead
FEW = 2  # settings that may tell recipes of one pooling apart


@dataclass(frozen=True)
class View:
    """The data of a figure: complete points from results.load_study or, of one benchmark, those with a score."""

    study: Path
    rows: pd.DataFrame
    benchmark: str | None = None  # None: the whole study
    group: str | None = None  # of tasks; None: the headline

    def file(self, name: str) -> str:
        """The name of a figure's file, without its suffix."""
        parts = [name] if self.benchmark is None else ["score", self.group, name, self.benchmark.replace("/", "-")]
        return "_".join(part for part in parts if part)


class StudyFigure(Protocol):
    """A figure of a study, or of each benchmark and group of tasks; `name` begins the name of its file.

    Its caption on the report's page is the label of the drawn figure (`set_label`), else its own `caption`, if any.
    """

    @property
    def name(self) -> str: ...

    def applies(self, view: View) -> bool: ...  # whether there is something to draw

    def draw(self, view: View) -> Figure: ...  # of a view that it applies to


@dataclass(frozen=True)
class _Figure:
    name: str
    applies: Callable[[View], bool]
    draw: Callable[[View], Figure]


def _by(axis: str) -> _Figure:
    return _Figure(  # visual tokens of a model behind an API are not known
        f"by_{axis}",
        lambda view: axis in _axes(view) and bool(view.rows[axis].notna().any()),
        lambda view: score_against(view.rows.dropna(subset=axis), axis, view.group),
    )


def _axes(view: View) -> list[str]:
    """The axes for the scores of a benchmark; none if there would be too many lines."""
    if view.benchmark is None:
        return []
    own = [name for name in OWN_AXES if view.rows[name].nunique() > 1]
    axes = [name for name in AXES if view.rows[name].nunique() > 1] if own else ["frames", "visual_tokens"]
    return axes if len(set(line_names(view.rows, axes[-1]))) <= MOST_LINES else []


def _logs(study: Path) -> dict[str, pd.DataFrame]:
    """The logs of a study's training runs with at least one step, by the run's name."""
    folders = [path.parent for path in sorted(study.glob(f"*/{TRAINING_LOG}"))]
    logs = {folder.name: pd.DataFrame(read_training_log(folder)) for folder in folders}
    return {name: log for name, log in logs.items() if "ema" in log}


def _runs(study: Path) -> tuple[dict[str, pd.DataFrame], dict[str, str], dict[str, str]]:
    """By the name of a training run: its log, its recipe, and its pooling."""
    logs = _logs(study)
    poolings = {run: str(manifest_part(study / run, "training").get("pooling", run)) for run in logs}
    return logs, recipes(study, logs), poolings


def recipes(study: Path, runs: Iterable[str]) -> dict[str, str]:
    """Each run's recipe, the same for all seeds; those of one pooling differ by few settings, else by fingerprints."""
    own: dict[str, tuple[str, str]] = {}  # by run: name and fingerprint
    settings: dict[str, dict[str, dict[Any, Any]]] = {}  # by name and fingerprint; keys with dots
    for run in runs:
        common = without_seed(manifest_part(study / run, "identity")) or {"run": run}
        own[run] = re.sub(r"-s\d+-[0-9a-f]{8}$", "", run), fingerprint(common)
        settings.setdefault(own[run][0], {})[own[run][1]] = pd.json_normalize(common).to_dict("records")[0]
    words = {name: _differences(alike) for name, alike in settings.items()}
    return {run: f"{name}{words[name][digits]}" for run, (name, digits) in own.items()}


def _differences(recipes: dict[str, dict[Any, Any]]) -> dict[str, str]:
    """The settings of each of several recipes that others do not share."""
    keys = dict.fromkeys(key for recipe in recipes.values() for key in recipe)
    unlike = [key for key in keys if len({str(recipe.get(key)) for recipe in recipes.values()}) > 1]
    if not 0 < len(unlike) <= FEW:
        return {digits: "" if len(recipes) == 1 else f" {digits[:4]}" for digits in recipes}
    return {
        # None and defaults, which are not in a recipe, go without saying.
        digits: "".join(f", {key.rpartition('.')[2]} {recipe[key]}" for key in unlike if recipe.get(key) is not None)
        for digits, recipe in recipes.items()
    }


FIGURES: tuple[StudyFigure, ...] = (
    _Figure(
        "ranked",
        lambda view: view.benchmark is not None and not _axes(view),
        lambda view: ranked(view.rows, view.group),
    ),
    *map(_by, AXES),
    _Figure(
        "by_shape",
        lambda view: view.benchmark is not None and bool(shape_panels(add_pooled_shapes(view.rows))),
        lambda view: score_by_shape(shape_panels(add_pooled_shapes(view.rows)), view.group),
    ),
    _Figure(
        "training",
        lambda view: view.benchmark is None and bool(_logs(view.study)),
        lambda view: training_curves(*_runs(view.study)),
    ),
)


def views(study: Path, table: pd.DataFrame) -> Iterator[View]:
    """The views of a study: each benchmark and group of tasks, then the whole study."""
    complete = table[(table.status == "complete") & table.score.notna()]
    for benchmark, rows in complete.groupby("benchmark"):
        groups: list[str | None] = [*groups_of(rows)]
        for group in groups or [None]:
            scored = rows[rows[f"score_{group}" if group else "score"].notna()]
            if not scored.empty:
                yield View(study, scored, str(benchmark), group)
    yield View(study, complete)


def draw_figures(study: Path, table: pd.DataFrame, folder: Path, own: Iterable[StudyFigure] = ()) -> dict[str, str]:
    """Draw a study's figures (table: compared_study), unless VIDEOPOOL_FIGURES=none. Returns their captions by file.

    Raises ResultsError if one of `own` fails.
    """
    files: dict[str, str] = {}
    for view in views(study, table) if formats() else ():
        for figure in (*FIGURES, *own):
            try:
                drawn = figure.draw(view) if figure.applies(view) else None
            except Exception as error:
                if figure in FIGURES:
                    raise
                raise ResultsError(f"figures: {figure.name}: {type(error).__name__}: {error}") from error
            if drawn is not None:
                caption = str(drawn.get_label() or getattr(figure, "caption", ""))
                files |= dict.fromkeys(save_figure(drawn, folder / view.file(figure.name)), caption)
    return files
