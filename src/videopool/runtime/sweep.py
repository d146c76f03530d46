"""The points of a multirun: how many there are, what varies among them, and how long those left will take."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from statistics import StatisticsError, linear_regression
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

SWEEP = "VIDEOPOOL_SWEEP"  # facts of the multirun, for its processes
OUTCOMES = "VIDEOPOOL_OUTCOMES"  # names the file for the outcomes of a multirun
LINES = ".lines"  # ends the name of a file beside it: lines of processes whose terminal shows bars
REPORT = ".report"  # ends the name of a file beside it: its age, and the seconds in it, are those of the last report
EARLIEST = 20.0  # seconds before the first report on the way
SPARING = 40  # a further one follows after so many times the seconds that the last one took
Result = TypeVar("Result")
WORDS = 3  # labels of points per summary, where they are no grid

composed: list[DictConfig] = []  # the configurations of the points, in their order


def begin(config: DictConfig, outcomes: Path) -> int:
    """Note which keys a multirun varies. Returns the number of its points; 0 if its sweeper keeps it to itself."""
    if facts().get("process") == os.getpid():  # this command goes on after a kill
        end()
    os.environ[OUTCOMES] = str(outcomes.resolve())
    with suppress(OSError):  # Hydra makes the folder too, and tells
        outcomes.parent.mkdir(parents=True, exist_ok=True)
        Path(os.environ[OUTCOMES] + REPORT).write_text(str(EARLIEST / SPARING))
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    words = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
    counts = {}
    for override in OverridesParser.create().parse_overrides(words):  # a later one replaces an earlier one
        swept = override.is_discrete_sweep()
        counts[override.get_key_element()] = len(list(override.sweep_string_iterator())) if swept else 1
    basic = "basic" in config.hydra.sweeper._target_
    noted: dict[str, Any] = {
        "keys": [key for key, count in counts.items() if count > 1] if basic else list(params),
        "points": prod(counts.values()) if basic else 0,
        "process": os.getpid(),
        "launcher": str(config.hydra.launcher._target_).rpartition(".")[2],
    }
    os.environ[SWEEP] = json.dumps(noted)
    composed.clear()
    return int(noted["points"])


def end() -> list[dict[str, Any]]:
    """Forget the multirun. Returns its outcomes."""
    outcomes = ended()
    os.environ.pop(SWEEP, None)
    path = os.environ.pop(OUTCOMES)
    for name in (path, path + REPORT, path + LINES):
        Path(name).unlink(missing_ok=True)
    return outcomes


def keep(outcome: dict[str, Any]) -> None:
    """Note the outcome of a point."""
    if OUTCOMES in os.environ:
        with open(os.environ[OUTCOMES], "a", encoding="utf-8") as file:
            file.write(json.dumps(outcome) + "\n")


def sparingly(write: Callable[[], Result]) -> Result | None:
    """Call a function that writes a report on the way, unless it is too early, in whichever process. Its result."""
    last = Path(os.environ[OUTCOMES] + REPORT)
    if time.time() < last.stat().st_mtime + SPARING * float(last.read_text()):
        return None
    os.utime(last)  # first: other processes pass
    started = time.perf_counter()
    result = write()
    last.write_text(str(time.perf_counter() - started))
    return result


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
