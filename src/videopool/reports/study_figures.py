"""The figures of a study's report, each with when it applies.

Another one is an object with `name`, `applies` and `draw`: in FIGURES, or named by the key `figures`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pandas as pd
from matplotlib.figure import Figure

from videopool.figures import ranked, save_figure, score_against, score_by_shape, shape_panels, training_curves
from videopool.figures.scores import AXES, OWN_AXES, line_names
from videopool.reports.points import groups_of
from videopool.reports.recipes import recipes
from videopool.results import ResultsError, add_pooled_shapes
from videopool.results.point import TRAINING_LOG, read_training_log

MOST_LINES = 10  # in a plot; more are ranked instead


@dataclass(frozen=True)
class View:
    """What a figure is drawn from.

    Attributes:
        study: folder of the study.
        rows: complete points, as results.load_study has them; with a benchmark, those that have a score in the group.
        benchmark: of the rows; None for the whole study.
        group: of tasks; None for the headline.
    """

    study: Path
    rows: pd.DataFrame
    benchmark: str | None = None
    group: str | None = None

    def file(self, name: str) -> str:
        """The name of a figure's file, without its suffix."""
        parts = [name] if self.benchmark is None else ["score", self.group, name, self.benchmark.replace("/", "-")]
        return "_".join(part for part in parts if part)


class StudyFigure(Protocol):
    """A figure of a study, asked about each view: of the study, and of each benchmark and group of tasks."""

    @property
    def name(self) -> str:
        """Begins the name of its file."""

    def applies(self, view: View) -> bool:
        """Whether there is something to draw."""

    def draw(self, view: View) -> Figure:
        """The figure of a view that it applies to."""


@dataclass(frozen=True)
class _Figure:
    name: str
    applies: Callable[[View], bool]
    draw: Callable[[View], Figure]


def _by(axis: str) -> _Figure:
    return _Figure(
        f"by_{axis}",
        lambda view: axis in _axes(view) and bool(view.rows[axis].notna().any()),
        # Not the visual tokens of a model behind an API.
        lambda view: score_against(view.rows[view.rows[axis].notna()], axis, view.group),
    )


def _axes(view: View) -> list[str]:
    """What the scores of a benchmark are drawn against; nothing where there would be too many lines."""
    rows = view.rows
    if view.benchmark is None:
        return []
    axes = ["frames", "visual_tokens"]
    if any(rows[name].nunique() > 1 for name in OWN_AXES):
        axes = [name for name in AXES if rows[name].nunique() > 1]
    return axes if len(set(line_names(rows, axes[-1]))) <= MOST_LINES else []


def _logs(study: Path) -> dict[str, pd.DataFrame]:
    """The logs of a study's training runs that took a step, by the run's name."""
    folders = [path.parent for path in sorted(study.glob(f"*/{TRAINING_LOG}"))]
    logs = {folder.name: pd.DataFrame(read_training_log(folder)) for folder in folders}
    return {name: log for name, log in logs.items() if "ema" in log}


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
        lambda view: training_curves(_logs(view.study), recipes(view.study, _logs(view.study))),
    ),
)


def views(study: Path, table: pd.DataFrame) -> Iterator[View]:
    """The views of a study: of each benchmark and group of tasks, then of the whole."""
    complete = table[(table.status == "complete") & table.score.notna()]
    for benchmark, rows in complete.groupby("benchmark"):
        groups: list[str | None] = [*groups_of(rows)]
        for group in groups or [None]:
            scored = rows[rows[f"score_{group}" if group else "score"].notna()]
            if not scored.empty:
                yield View(study, scored, str(benchmark), group)
    yield View(study, complete)


def draw_figures(study: Path, table: pd.DataFrame, folder: Path, own: Iterable[StudyFigure] = ()) -> list[str]:
    """Draw all figures that apply to a study.

    Args:
        study: its folder.
        table: from results.compared_study.
        folder: of the figures.
        own: the user's figures.

    Returns:
        The files written.

    Raises:
        ResultsError: a figure of the user's fails.
    """
    files: list[str] = []
    for view in views(study, table):
        for figure in (*FIGURES, *own):
            try:
                drawn = figure.draw(view) if figure.applies(view) else None
            except Exception as error:
                if figure in FIGURES:
                    raise
                raise ResultsError(f"figures: {figure.name}: {type(error).__name__}: {error}") from error
            if drawn is not None:
                files += save_figure(drawn, folder / view.file(figure.name))
    return files
