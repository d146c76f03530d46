"""The points of a multirun: how many there are, what varies among them, and how long those left will take."""

import json
import os
from collections.abc import Mapping, Sequence
from math import prod
from statistics import StatisticsError, linear_regression
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

SWEEP = "VIDEOPOOL_SWEEP"  # facts of the multirun, for its processes
OUTCOMES = "VIDEOPOOL_OUTCOMES"  # names the file for the outcomes of a multirun
WORDS = 3  # labels of points per summary, where they are no grid

composed: list[DictConfig] = []  # the configurations of the points, in their order


def begin(config: DictConfig) -> int:
    """Note which keys a multirun varies. Returns the number of its points; 0 if its sweeper keeps it to itself."""
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    words = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
    counts = {}
    for override in OverridesParser.create().parse_overrides(words):  # a later one replaces an earlier one
        swept = override.is_discrete_sweep()
        counts[override.get_key_element()] = len(list(override.sweep_string_iterator())) if swept else 1
    basic = "basic" in config.hydra.sweeper._target_
    facts = {
        "keys": [key for key, count in counts.items() if count > 1] if basic else list(params),
        "points": prod(counts.values()) if basic else 0,
        "process": os.getpid(),
        "launcher": str(config.hydra.launcher._target_).rpartition(".")[2],
    }
    os.environ[SWEEP] = json.dumps(facts)
    composed.clear()
    return int(facts["points"])


def end() -> None:
    """Forget the multirun."""
    os.environ.pop(SWEEP, None)


def facts() -> dict[str, Any]:
    """What begin() noted; {} outside of a multirun."""
    return json.loads(os.environ[SWEEP]) if SWEEP in os.environ else {}


def in_turn() -> bool:
    """Whether the points of this multirun run one by one, in this process."""
    return facts().get("process") == os.getpid() and facts()["launcher"] == "BasicLauncher"


def elsewhere() -> bool:
    """Whether this process was started for a point of a multirun."""
    return bool(facts()) and facts()["process"] != os.getpid()


def in_multirun() -> bool:
    """Whether Hydra runs this job as one of several."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def label(overrides: Sequence[str]) -> str:
    """A point by what varies: those of its overrides, or all where that is not known."""
    keys = facts().get("keys", [])
    return " ".join(word for word in overrides if word.partition("=")[0] in keys) or " ".join(overrides)


def ended() -> list[dict[str, Any]]:
    """The outcomes of points so far, by number: points that ran side by side end in any order."""
    try:
        with open(os.environ.get(OUTCOMES, ""), encoding="utf-8") as file:
            outcomes = [json.loads(line) for line in file if line.endswith("\n")]
    except OSError:
        return []
    return sorted(outcomes, key=lambda outcome: int(outcome["number"]))


def seconds_left(costs: Mapping[int, float], spent: Mapping[int, float], left: Sequence[int]) -> float | None:
    """Seconds that the points `left` will take, by their costs and the seconds of those that took any; None: unknown.

    Each point costs seconds of its own besides those in proportion to its cost, as far as points of different costs
    tell them apart.
    """
    if not spent:
        return None
    own, taken = [costs.get(number, 0.0) for number in spent], list(spent.values())
    mean, rate = sum(taken) / len(taken), sum(taken) / sum(own) if sum(own) else 0.0
    try:
        rate, own_seconds = linear_regression(own, taken)
    except StatisticsError:  # one point, or equal costs
        own_seconds = 0.0 if rate else mean
    if rate < 0:
        rate, own_seconds = 0.0, mean
    elif own_seconds < 0:
        rate, own_seconds = sum(taken) / sum(own), 0.0
    return sum(own_seconds + rate * costs.get(number, 0.0) for number in left)


def compact(labels: Sequence[str]) -> list[str]:
    """Points in few lines: as a grid of values, such as `pooling=a,b frames.num=1,2`, or the first ones."""
    rows = [dict(word.partition("=")[::2] for word in label.split(" ")) for label in labels]
    values = {key: list(dict.fromkeys(row.get(key, "") for row in rows)) for key in rows[0]}
    if prod(map(len, values.values())) == len(rows) and len({tuple(row.items()) for row in rows}) == len(rows):
        return [" ".join(f"{key}={','.join(some)}" if some != [""] else key for key, some in values.items())]
    more = [f"and {len(labels) - WORDS} more"] if len(labels) > WORDS else []
    return [*labels[:WORDS], *more]
