"""A study's table and figures in a W&B run of their own, beside the runs of its points."""

from pathlib import Path

from omegaconf import DictConfig

from videopool.reports.cells import read_spreadsheet
from videopool.tracking.run import telling, wandb_run

JOB = "report"


def log_study(config: DictConfig, study: Path) -> None:
    """Log sweep.csv and the figures that a report has just written into the study's folder."""
    table = read_spreadsheet(study / "sweep.csv")
    figures = sorted((study / "figures").glob("*.png"))
    content = {"study": str(config.study), "baseline": str(config.baseline), "points": list(table.point)}
    with wandb_run(config, study, JOB, f"report of {config.study}", content) as run:
        if run is None:
            return
        with telling("log the study's table and figures"):
            import wandb

            rows = table.astype(object).where(table.notna(), None)
            sweep = wandb.Table(columns=list(rows.columns), data=rows.to_numpy().tolist(), allow_mixed_types=True)
            images = {f"figures/{path.stem}": wandb.Image(str(path)) for path in figures}
            run.log({"points": len(table), "sweep": sweep, **images})
