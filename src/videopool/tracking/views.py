"""What a study's W&B workspace and report show. Needs wandb-workspaces."""

from typing import Any

import pandas as pd
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from videopool.tracking.study import JOB

POOLING = "point.pooling"  # in the configuration of a point's run
COLUMNS = ("score", "n_failed", "visual_tokens", "prefill_gflops", "seconds_per_sample")
FULL_WIDTH = 24  # of a report, in units of its grid
NORMS = "norm"  # begins the names of figures of norms


class StudyViews:
    """The workspace and the report of a study; nothing is sent.

    Args:
        study: its name, which is the group of its runs.
        table: its points, from results.load_study.
        figures: names that its report gave figures.
        project: where its runs are.
        entity: whose project that is; "" if it is not known.
    """

    def __init__(self, study: str, table: pd.DataFrame, figures: list[str], project: str, entity: str) -> None:
        self.study, self.project, self.entity = study, project, entity
        self.with_alpha = bool(table.lora_alpha.notna().any())
        norms = [name for name in figures if name.startswith(NORMS)]
        self.figures = {"Norms": norms, "Figures": [name for name in figures if name not in norms]}

    def workspace(self) -> ws.Workspace:
        """Sections of panels over all runs of the study."""
        sections: dict[str, list[Any]] = {
            "Score": [score_by_frames(), score_by_tokens()],
            "Settings": [settings_against_score(self.with_alpha)],
            "By task": [scores_table(), answers_table()],
            **{title: [gallery(title, names)] for title, names in self.figures.items() if names},
        }
        columns = [f"config:{POOLING.replace('.', '.value.', 1)}", *(f"summary:{name}" for name in COLUMNS)]
        return ws.Workspace(
            entity=self.entity,
            project=self.project,
            name=f"VideoPool: {self.study}",
            sections=[ws.Section(name=title, panels=panels, is_open=True) for title, panels in sections.items()],
            settings=ws.WorkspaceSettings(max_runs=100),
            runset_settings=ws.RunsetSettings(filters=[ws.Metric("Group") == self.study], pinned_columns=columns),
        )

    def report(self) -> wr.Report:
        """The same panels under headings: of points, then of the study's own run."""
        blocks: list[Any] = [wr.TableOfContents()]
        blocks += [wr.H1(text="Score"), self._grid("points", [score_by_frames(), score_by_tokens()])]
        blocks += [wr.H1(text="Settings"), self._grid("points", [settings_against_score(self.with_alpha)])]
        blocks += [wr.H1(text="By task"), self._grid("points", [scores_table()])]
        for title, names in self.figures.items():
            if names:
                blocks += [wr.H1(text=title), self._grid("report", [gallery(title, names)])]
        return wr.Report(
            entity=self.entity,
            project=self.project,
            title=f"VideoPool: {self.study}",
            description="Pooling ablation. Intervals and paired differences are in the study's own report.",
            blocks=blocks,
            width="fluid",
        )

    def _grid(self, runs: str, panels: list[Any]) -> wr.PanelGrid:
        width = FULL_WIDTH // len(panels)
        for place, panel in enumerate(panels):
            panel.layout = wr.Layout(x=place * width, y=0, w=width, h=10)
        of_study = ws.Metric("JobType") == JOB if runs == "report" else ws.Metric("JobType") != JOB
        filters = [ws.Metric("Group") == self.study, of_study]
        runset = wr.Runset(entity=self.entity, project=self.project, name=runs, filters=filters)
        return wr.PanelGrid(runsets=[runset], panels=panels)


def score_by_frames() -> wr.LinePlot:
    """One line a pooling; where several runs share pooling and frames, their mean and range."""
    return wr.LinePlot(
        title="score against frames, by pooling",
        x="frames",
        y=["score"],
        log_x=True,
        title_x="frames",
        title_y="score",
        groupby=wr.Config(POOLING),
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        max_runs_to_show=100,
    )


def score_by_tokens() -> wr.ScatterPlot:
    """One dot a run."""
    return wr.ScatterPlot(
        title="score against visual tokens",
        x=wr.SummaryMetric("visual_tokens"),
        y=wr.SummaryMetric("score"),
        log_x=True,
        legend_template="${config:" + POOLING.replace(".", ".value.", 1) + "} ${summary:frames} frames",
    )


def settings_against_score(with_alpha: bool) -> wr.ParallelCoordinatesPlot:
    """One line a run.

    Args:
        with_alpha: whether there is an axis for the scale of a LoRA; runs without a value on an axis are not drawn.
    """
    settings = ["point.pooling", "point.frames", *(["point.lora_alpha"] if with_alpha else [])]
    columns = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(name)) for name in settings]
    columns.append(wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric("visual_tokens"), log=True))
    columns.append(wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric("score")))
    return wr.ParallelCoordinatesPlot(title="settings and score", columns=columns)


def scores_table() -> wr.WeavePanelSummaryTable:
    """Scores by group and task, with intervals and chance."""
    return wr.WeavePanelSummaryTable(table_name="scores")


def answers_table() -> wr.WeavePanelSummaryTable:
    """Questions, answers and predictions."""
    return wr.WeavePanelSummaryTable(table_name="predictions")


def gallery(title: str, names: list[str]) -> wr.MediaBrowser:
    """Figures of the study's own run."""
    return wr.MediaBrowser(title=title, media_keys=[f"figures/{name}" for name in names], num_columns=2)
