"""The first and last lines of a command, and how its points ended."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from videopool import __version__
from videopool.runtime import log, sweep
from videopool.runtime.outcome import BUSY, FAILED, Outcome
from videopool.runtime.progress import doing

QUICK = ("plan", "inspect", "compare", "dashboard", "report")  # jobs that only read, or are over at once
WAIT = "give the command again when it has ended, or with -m, which waits for it"


def begin_command(config: DictConfig, points: int) -> None:
    """Open the log, and say at once what is going to happen: libraries take seconds to import."""
    name = str(OmegaConf.select(config, "job.name"))
    log.configure()
    if name in QUICK or sweep.elsewhere():
        return
    folder = Path(config.results_dir) / config.study
    log.open_log(folder, sys.argv[1:], __version__)
    job = "" if name == "evaluate" else f"job={name}, "
    count = "" if points == 0 else f"{points} point{'s' * (points > 1)}, "
    log.say(f"VideoPool {__version__}: {job}study {config.study}, {count}results in {folder}")
    doing("importing libraries")


def label_of(config: DictConfig) -> str:
    """A point by what its multirun varies; a job that runs alone by its name."""
    words = HydraConfig.get().overrides.task if sweep.in_multirun() else []
    return label(words) or str(OmegaConf.select(config, "job.name"))


def label(words: Sequence[str]) -> str:
    """Of the overrides of a point, those that its multirun varies."""
    keys = sweep.facts().get("keys", [])
    return " ".join([word for word in words if word.partition("=")[0] in keys] or words)


def line_of(outcome: Mapping[str, Any], earlier: Iterable[Mapping[str, Any]]) -> str:
    """How a point or job ended; its cause only if no earlier point had it."""
    number = f"[{outcome['number']}] " if "number" in outcome else ""
    if outcome["status"] == FAILED:
        same = any(o["status"] == FAILED and o["message"] == outcome["message"] for o in earlier)
        return f"{number}FAILED  {outcome['name']}" + (" (same cause)" if same else f": {outcome['message']}")
    word = "busy" if outcome["status"] == BUSY else "done" if outcome["fresh"] else "kept"
    wait = f"; {WAIT}" if outcome["status"] == BUSY and not number else ""
    return f"{number}{word:>6}  {outcome['name']}: {outcome['message']}{wait}"


def tell_outcome(outcome: Outcome) -> None:
    """Print how a point or job ended."""
    alone = not sweep.in_multirun()
    number = {} if alone else {"number": HydraConfig.get().job.num}
    line = line_of({**asdict(outcome), **number}, sweep.ended())
    if outcome.status == FAILED:
        log.fail(line)
        return
    log.say(line, result=alone)
    log.detail(f"ended after {outcome.seconds:.1f} s")


def tell_end(outcomes: Sequence[Mapping[str, Any]], bad: Sequence[Mapping[str, Any]], seconds: float) -> None:
    """Print how a multirun ended: of the bad points, each cause once with those that it hit, and what to do."""
    log.say(f"{len(outcomes) - len(bad)} of {len(outcomes)} points complete, in {seconds:.0f} s")
    causes: dict[str, list[str]] = {}
    for outcome in bad:
        causes.setdefault(str(outcome["message"]).splitlines()[0], []).append(str(outcome["name"]))
    for cause, names in causes.items():
        log.fail(f"failed: {cause}{log.indented(names)}")
    if bad:
        log.fail("Finished points are kept: mend the cause, then give the same command again.")
