"""job=evaluate: one point, from configuration to metrics."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from videopool.evaluation.run import evaluate
from videopool.runtime.outcome import Outcome


def run(config: DictConfig) -> Outcome:
    """Run one point, or go on with it, or find it finished."""
    return evaluate(config)


def tell(config: DictConfig, outcome: Outcome) -> None:
    """Print a point's scores by group and task, and where its time went."""
    folder = Path(outcome.folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    for kind in ("groups", "tasks"):
        for name, one in metrics[kind].items():
            if one["score"] is not None and name:
                chance = "" if one["chance"] is None else f"  chance {100 * one['chance']:.1f}"
                known = one["ci_low"] is not None
                interval = f"[{100 * one['ci_low']:.1f}, {100 * one['ci_high']:.1f}]" if known else ""
                print(f"        {name:<22}{100 * one['score']:5.1f} {interval:<14} n={one['n']}{chance}")
    spent = " | ".join(f"{kind} {seconds:.1f}" for kind, seconds in metrics["seconds"].items())
    print(f"        seconds: {spent}; peak memory {metrics['peak_memory_bytes'] / 1e9:.2f} GB")
    print(f"        files: {folder}")


def sum_up(config: DictConfig, outcomes: Sequence[dict[str, Any]]) -> None:
    """Write the study's report, unless it is as it would be; print its table."""
    from videopool.reports.files import name_files, own_figures, write_report, written_report
    from videopool.reports.terminal import show
    from videopool.tracking.study import log_study

    study = Path(config.results_dir) / config.study
    folders = [str(outcome["folder"]) for outcome in outcomes if outcome["folder"]]
    if not folders:
        return
    figures = own_figures(config)
    done = written_report(study, str(config.baseline), folders, figures)
    if done is None:
        done = write_report(study, str(config.baseline), own_figures=figures)
        log_study(config, study)
    files, table = done
    show(table, study.name)
    print(name_files(files))
