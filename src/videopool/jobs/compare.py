"""job=compare: the difference between two points, overall, by task, and sample by sample."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from videopool.config.build import check, whole
from videopool.config.errors import ConfigError
from videopool.reports import comparison
from videopool.results import compare_by_task
from videopool.results.comparison import ALL_TASKS
from videopool.results.point import write_json
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.runtime.terminal import console


def run(config: DictConfig) -> Outcome:
    """Compare two points; print the tables, write compare-<first>-<second>.json into the study."""
    study = Path(config.results_dir) / config.study
    points = None if OmegaConf.is_missing(config, "points") else config.points
    if not isinstance(points, Sequence) or isinstance(points, str) or len(points) != 2:
        there = ", ".join(path.name for path in comparison.points_there(study)) or "none yet"
        raise ConfigError(f"points={points}: name two points, as in points=[A,B]; the points of {study} are: {there}")
    check(config, {bool: ["intersect"], whole(0): ["job.show"]})
    folders = (comparison.find_point(study, str(points[0])), comparison.find_point(study, str(points[1])))
    results = compare_by_task(*folders, config.intersect)
    overall = results[ALL_TASKS]
    first, second = (folder.name for folder in folders)
    screen = console()
    screen.print(comparison.comparison_table(results, folders, comparison.differing(folders), config.intersect))
    if overall.flips is not None:
        comparison.tell_flips(screen, folders, overall.flips, config.job.show)
    path = study / f"compare-{first}-{second}.json"
    study.mkdir(parents=True, exist_ok=True)
    write_json(path, comparison.comparison_content(results, folders))
    difference = overall.difference
    size = f"{difference.n} samples of {difference.clusters} clips"
    message = f"{comparison.points_of(difference)} over {size}; wrote {path}"
    return Outcome(COMPLETE, f"{first} minus {second}", message, str(study))
