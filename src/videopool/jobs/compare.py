"""job=compare: one point less another, over all, by task, and sample by sample."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from videopool.config.build import number
from videopool.config.errors import ConfigError
from videopool.reports.comparison import (
    comparison_content,
    comparison_table,
    differing,
    find_point,
    points_of,
    tell_flips,
)
from videopool.results import compare_by_task
from videopool.results.comparison import ALL_TASKS
from videopool.results.point import write_json
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.runtime.terminal import console


def run(config: DictConfig) -> Outcome:
    """Compare two points; print the tables, write compare-<first>-<second>.json into the study.

    Raises:
        ConfigError: not two points, or no such point.
        ResultsError: points that cannot be compared.
    """
    study = Path(config.results_dir) / config.study
    named = None if OmegaConf.is_missing(config, "points") else config.points
    if not isinstance(named, Sequence) or isinstance(named, str) or len(named) != 2:
        raise ConfigError(f"points={named}: name two points of the study, points=[a,b]")
    if not isinstance(config.intersect, bool):
        raise ConfigError(f"intersect={config.intersect!r}: true or false")
    shown = number(config, "job.show", 0, whole=True)
    folders = (find_point(study, str(named[0])), find_point(study, str(named[1])))
    found = compare_by_task(*folders, config.intersect)
    headline = found[ALL_TASKS].difference
    first, second = (folder.name for folder in folders)
    screen = console()
    screen.print(comparison_table(found, first, second, differing(folders)))
    if (flipped := found[ALL_TASKS].flips) is not None:
        tell_flips(screen, folders, flipped, shown)
    path = study / f"compare-{first}-{second}.json"
    study.mkdir(parents=True, exist_ok=True)
    write_json(path, comparison_content(found, folders))
    text = f"{points_of(headline)} over {headline.n} samples of {headline.clusters} clips; wrote {path}"
    return Outcome(COMPLETE, f"{first} minus {second}", text, str(study))
