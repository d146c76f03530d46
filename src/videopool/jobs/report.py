"""job=report: a study's table, sweep.csv, figures, page, and tables for papers."""

from pathlib import Path

from omegaconf import DictConfig

from videopool.config.build import jsonable, number
from videopool.config.errors import ConfigError
from videopool.notes import note
from videopool.reports.comparison import find_point, unknown_baseline
from videopool.reports.files import name_files, own_figures, write_report
from videopool.reports.tables import show
from videopool.runtime.outcome import COMPLETE, FAILED, Outcome


def run(config: DictConfig) -> Outcome:
    """Write sweep.csv, figures/, report.html, table.md and table.tex of a study and print its table."""
    pair, samples = jsonable(config.job.pair), number(config, "job.samples", 0, whole=True)
    if pair is not None and not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(n, str) for n in pair)):
        raise ConfigError(f"job.pair={pair!r}: name two points, as in job.pair=[a,b], or say null")
    study = Path(config.results_dir) / config.study
    if pair is not None:
        pair = [find_point(study, name, "job.pair").name for name in pair]
    files, table = write_report(study, str(config.baseline), pair, samples, own_figures(config))
    show(table, study.name)
    if line := unknown_baseline(table, str(config.baseline)):
        note(line)
    status = COMPLETE if (table.status == "complete").all() else FAILED
    return Outcome(status, f"report of {config.study}", f"{len(table)} points; {name_files(files)}", str(study))
