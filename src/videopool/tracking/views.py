"""A study's W&B workspace and report. Needs wandb-workspaces."""

from typing import Any

import pandas as pd
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from videopool.tracking.study import JOB

POOLING = "point.pooling"  # in the configuration of a point's run
POOLING_COLUMN = POOLING.replace(".", ".value.", 1)
COLUMNS = ("score", "n_failed", "visual_tokens", "prefill_gflops", "seconds_per_sample")
FULL_WIDTH = 24  # of a report, in units of its grid
NORMS = "norm"  # prefix of the names of norm figures


class StudyViews:
    """The workspace and the report of a study, from its table and the names of its figures; nothing is sent.

    `study` is the group of its runs in the project of the entity ("" if unknown).
    """

    def __init__(self, study: str, table: pd.DataFrame, figures: list[str], project: str, entity: str) -> None:
        self.study, self.project, self.entity = study, project, entity
        self.with_alpha = bool(table.lora_alpha.notna().any())
        norms = [name for name in figures if name.startswith(NORMS)]
        self.figures = {"Norms": norms, "Figures": [name for name in figures if name not in norms]}

    def workspace(self) -> ws.Workspace:
        """Sections of panels over all runs of the study."""
        sections = {**self._panels(), **self._galleries()}
        sections["By task"].append(wr.WeavePanelSummaryTable(table_name="predictions"))
        columns = [f"config:{POOLING_COLUMN}", *(f"summary:{name}" for name in COLUMNS)]
        return ws.Workspace(
            entity=self.entity,
            project=self.project,
            name=f"VideoPool: {self.study}",
            sections=[ws.Section(name=title, panels=panels, is_open=True) for title, panels in sections.items()],
            settings=ws.WorkspaceSettings(max_runs=100),
            runset_settings=ws.RunsetSettings(filters=[ws.Metric("Group") == self.study], pinned_columns=columns),
        )

    def report(self) -> wr.Report:
        """The same panels under headings: those of points, then those of the study's own run."""
        blocks: list[Any] = [wr.TableOfContents()]
        points, report = ws.Metric("JobType") != JOB, ws.Metric("JobType") == JOB
        for runs, of_kind, sections in (("points", points, self._panels()), ("report", report, self._galleries())):
            for title, panels in sections.items():
                width = FULL_WIDTH // len(panels)
                for place, panel in enumerate(panels):
                    panel.layout = wr.Layout(x=place * width, y=0, w=width, h=10)
                filters = [ws.Metric("Group") == self.study, of_kind]
                runset = wr.Runset(entity=self.entity, project=self.project, name=runs, filters=filters)
                blocks += [wr.H1(text=title), wr.PanelGrid(runsets=[runset], panels=panels)]
        return wr.Report(
            entity=self.entity,
            project=self.project,
            title=f"VideoPool: {self.study}",
            description="Pooling ablation. Intervals and paired differences are in the study's own report.",
            blocks=blocks,
            width="fluid",
        )

    def _panels(self) -> dict[str, list[Any]]:
        """Panels of points, by heading. Parallel coordinates leave out runs without a value on an axis."""
        lines = wr.LinePlot(
            title="score against frames, by pooling",
            x="frames",
            y=["score"],
            log_x=True,
            title_x="frames",
            title_y="score",
            groupby=wr.Config(POOLING),  # mean and range of runs that share pooling and frames
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            max_runs_to_show=100,
        )
        dots = wr.ScatterPlot(
            title="score against visual tokens",
            x=wr.SummaryMetric("visual_tokens"),
            y=wr.SummaryMetric("score"),
            log_x=True,
            legend_template="${config:" + POOLING_COLUMN + "} ${summary:frames} frames",
        )
        settings = [POOLING, "point.frames", *(["point.lora_alpha"] if self.with_alpha else [])]
        axes = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(name)) for name in settings]
        axes.append(wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric("visual_tokens"), log=True))
        axes.append(wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric("score")))
        return {
            "Score": [lines, dots],
            "Settings": [wr.ParallelCoordinatesPlot(title="settings and score", columns=axes)],
            "By task": [wr.WeavePanelSummaryTable(table_name="scores")],
        }

    def _galleries(self) -> dict[str, list[Any]]:
        """Figures of the study's own run, by heading."""
        return {
            title: [wr.MediaBrowser(title=title, media_keys=[f"figures/{name}" for name in names], num_columns=2)]
            for title, names in self.figures.items()
            if names
        }
