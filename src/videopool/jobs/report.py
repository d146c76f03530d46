"""job=report: a study's table, conclusion, sweep.csv, figures, page, and tables for papers."""

from pathlib import Path

from omegaconf import DictConfig

from videopool.config.build import jsonable, number
from videopool.config.errors import ConfigError
from videopool.notes import note
from videopool.reports.columns import chosen_columns
from videopool.reports.comparison import unknown_baseline
from videopool.reports.files import name_files, own_figures, write_report
from videopool.reports.tables import show
from videopool.reports.unfinished import incomplete
from videopool.runtime.outcome import COMPLETE, FAILED, Outcome


def run(config: DictConfig) -> Outcome:
    """Write all files of a study's report; print its table, and what it lacks. Without a complete point, it failed."""
    columns = chosen_columns(config)
    pair, samples = jsonable(config.job.pair), number(config, "job.samples", 0, whole=True)
    if pair is not None and not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(n, str) for n in pair)):
        raise ConfigError(f"job.pair={pair!r}: name two points, as in job.pair=[a,b], or say null")
    study = Path(config.results_dir) / config.study
    if study.is_dir():
        print(f"writing the report of {study}", flush=True)
    files, table = write_report(study, str(config.baseline), pair, samples, own_figures(config), columns)
    show(table, study.name, columns)
    note(unknown_baseline(table, str(config.baseline)))
    rest = incomplete(table)
    for point, why in rest.items():
        print(f"not complete: {point}: {' '.join(why.split())}")
    done = len(table) - len(rest)
    points = f"{done} of {len(table)} points" if rest else f"{done} points"
    status, points = (COMPLETE, points) if done else (FAILED, "no point is complete")
    return Outcome(status, f"report of {config.study}", f"{points}; {name_files(files)}", str(study))
