"""job=evaluate: one point, from configuration to metrics."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from videopool.evaluation.run import evaluate_point, point_of
from videopool.notes import note
from videopool.points.point import Point
from videopool.runtime import log
from videopool.runtime.outcome import Outcome
from videopool.runtime.progress import finish


def run(config: DictConfig) -> Outcome:
    """Run one point, or resume it, or find it finished."""
    torch.manual_seed(int(config.seed))
    return evaluate_point(prepare(config))


def prepare(config: DictConfig) -> Point:
    """The point, not run. Raises UserError if the configuration alone tells that it, or its report, cannot be made."""
    if config.figures or not OmegaConf.is_list(config.figures) or config.job.get("columns") is not None:
        _shown(config)
    return point_of(config)


def _shown(config: DictConfig) -> dict[str, Any]:
    """A report's own figures and chosen columns."""
    from videopool.reports.columns import chosen_columns  # takes seconds to import
    from videopool.reports.files import own_figures

    return {"own_figures": own_figures(config), "columns": chosen_columns(config)}


def tell(config: DictConfig, outcome: Outcome) -> None:
    """Print a point's scores by group and task, and its seconds by kind of work."""
    folder = Path(outcome.folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    for name, row in [*metrics["groups"].items(), *metrics["tasks"].items()]:
        if row["score"] is not None and name:
            score, low, high = (100 * (row[key] or 0) for key in ("score", "ci_low", "ci_high"))
            interval = "" if row["ci_low"] is None else f"[{low:.1f}, {high:.1f}]"
            chance = "" if row["chance"] is None else f"  chance {100 * row['chance']:.1f}"
            print(f"        {name:<22}{score:5.1f} {interval:<14} n={row['n']}{chance}")
    spent = " | ".join(f"{kind} {seconds:.1f}" for kind, seconds in metrics["seconds"].items())
    peak = metrics.get("device_peak_bytes", metrics["peak_memory_bytes"]) / 1e9
    memory = f"; peak memory {peak:.2f} GB" if log.verbose() else ""
    print(f"        seconds: {spent}{memory}")
    print(f"        files: {folder}")


def sum_up(config: DictConfig, outcomes: Sequence[dict[str, Any]]) -> None:
    """Write the study's report, unless it is up to date; print its table."""
    from videopool.reports.comparison import unknown_baseline
    from videopool.reports.files import name_files, write_report, written_report
    from videopool.reports.tables import show
    from videopool.tracking.study import log_study

    study, baseline = Path(config.results_dir) / config.study, str(config.baseline)
    folders = [str(outcome["folder"]) for outcome in outcomes if outcome["folder"]]
    if not folders:
        return
    shown = _shown(config)
    report = written_report(study, baseline, folders, **shown)
    if report is None:
        report = write_report(study, baseline, **shown)
        log_study(config, study)
    files, table = report
    finish()
    if not log.quiet():
        show(table, study.name, shown["columns"])
    note(unknown_baseline(table, baseline))
    log.say(name_files(files), result=True)


def report_on_the_way(config: DictConfig, so_far: str) -> Path:
    """Write the report of a study that is not finished yet. Returns its page."""
    from videopool.reports.files import write_report

    study = Path(config.results_dir) / config.study
    write_report(study, str(config.baseline), so_far=so_far, **_shown(config))
    return study / "report.html"
