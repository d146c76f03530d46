"""The points of a multirun: how many there are, what varies among them, and how long those left will take."""

import json
import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

SWEEP = "VIDEOPOOL_SWEEP"  # facts of the multirun, for its processes
OUTCOMES = "VIDEOPOOL_OUTCOMES"  # names the file for the outcomes of a multirun
REPORTS = ".reports"  # ends the name of a file beside it: seconds that reports on the way have taken
EARLIEST = 15.0  # seconds before the first report on the way
SHARE = 0.03  # of a multirun's seconds for those that follow, with the first
Result = TypeVar("Result")

composed: list[DictConfig] = []  # the configurations of the points, in their order


def begin(config: DictConfig, outcomes: Path) -> int:
    """Note which keys a multirun varies. Returns the number of its points; 0 if its sweeper keeps it to itself."""
    if facts().get("process") == os.getpid():  # this command goes on after a kill
        end()
    os.environ[OUTCOMES] = str(outcomes.resolve())
    with suppress(OSError):  # Hydra makes the folder too, and tells
        outcomes.parent.mkdir(parents=True, exist_ok=True)
        outcomes.touch()  # a network file system may hide for a while what jobs make; not what they append
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
        "began": time.time(),
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
    for name in (path, path + REPORTS):
        Path(name).unlink(missing_ok=True)
    return outcomes


def keep(outcome: dict[str, Any]) -> None:
    """Note the outcome of a point."""
    if OUTCOMES in os.environ:
        with open(os.environ[OUTCOMES], "a", encoding="utf-8") as file:
            file.write(json.dumps(outcome) + "\n")


def sparingly(write: Callable[[], Result]) -> Result | None:
    """Call a function that writes a report on the way, unless it is too early, in whichever process. Its result."""
    state, seconds = Path(os.environ[OUTCOMES] + REPORTS), time.time() - facts()["began"]
    spent = float(state.read_text()) if state.exists() else 0.0
    if seconds < EARLIEST or 2 * spent > SHARE * seconds:
        return None
    state.write_text("inf")  # other processes pass, and no report that failed is tried again
    started = time.perf_counter()
    result = write()
    state.write_text(str(spent + time.perf_counter() - started))
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


def ended(path: str = "") -> list[dict[str, Any]]:
    """The outcomes of points so far, of this multirun or in another's file, by number: they end in any order."""
    try:
        with open(path or os.environ.get(OUTCOMES, ""), encoding="utf-8") as file:
            outcomes = [json.loads(line) for line in file if line.endswith("\n")]
    except OSError:
        return []
    return sorted(outcomes, key=lambda outcome: int(outcome["number"]))


def seconds_left(costs: Mapping[int, float], spent: Mapping[int, float], over: Collection[int]) -> float | None:
    """Seconds of the points with `costs` that are not over: some for each, more by its cost, as others told."""
    if not spent:
        return None
    from scipy.optimize import nnls  # which the program has imported by then

    own = [costs.get(number, 0.0) for number in spent]
    most = max(own) or 1.0
    rate, each = nnls([[cost / most, 1.0] for cost in own], list(spent.values()))[0]
    return float(sum(each + rate * cost / most for number, cost in costs.items() if number not in over))
