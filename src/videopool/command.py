"""VideoPool from Python: a point or a sweep in this process; any command in a process of its own."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videopool.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

# Jupyter kernels set these although there is no terminal; tables would be squeezed into 80 columns.
TERMINAL = ("FORCE_COLOR", "CLICOLOR_FORCE")
BARE = re.compile(r"[A-Za-z_./-][\w./-]*")  # text that needs no quotes in an override


class CommandFailed(RuntimeError):
    """A command that did not end well, or a sweep with points that are not complete."""


def evaluate(*words: str, **settings: Any) -> "pd.Series[Any]":
    """Run one point in this process, or resume it, or find it finished.

        point = videopool.evaluate("pooling=adaptive", study="mine", **{"pooling.shape": [8, 6, 6]})

    words: overrides as on the command line. settings: overrides as Python values. Returns the point's row of
    results.load_study: score, ci_low, ci_high in 0..1, visual_tokens, folder and so on. Raises UserError, in one line,
    for what the command would refuse.
    """
    from videopool.evaluation.run import evaluate as run_point
    from videopool.results import load_study

    ended: list[Path | UserError] = []

    def task(config: "DictConfig") -> None:
        try:
            if config.job.name != "evaluate":
                raise UserError(f"job={config.job.name}: evaluate() answers questions; command.run() runs any job")
            ended.append(Path(run_point(config).folder))
        except UserError as error:  # raised below: Hydra would print its own words about it
            ended.append(error)

    _call([*words, *_overrides(settings)], task)
    if isinstance(ended[0], UserError):
        raise ended[0]
    return load_study(ended[0].parent).set_index("point", drop=False).loc[ended[0].name]


def composed(*words: str, **settings: Any) -> "DictConfig":
    """The configuration of one point, which is not run. words and settings: as for evaluate(). Raises UserError."""
    found: list[DictConfig] = []
    _call([*words, *_overrides(settings)], found.append)
    return found[0]


def sweep(*words: str, **settings: Any) -> "pd.DataFrame":
    """Run all combinations of settings in this process, one after the other, and write the study's report.

        table = videopool.sweep(pooling=["none", "average"], study="mine", **{"frames.num": [4, 8]})

    words and settings: as for evaluate(), but a list holds the values to sweep. Returns results.load_study of the
    study, with points of earlier sweeps. Raises UserError for what the command would refuse as a whole, and
    CommandFailed if points are not complete: their causes are printed, the complete ones are kept.
    """
    from videopool.results import load_study

    swept = [
        f"{key}={','.join(map(_value, value)) if isinstance(value, (list, tuple)) else _value(value)}"
        for key, value in settings.items()
    ]
    if launchers := [word for word in words if word.startswith("hydra/launcher=")]:
        raise UserError(f"{launchers[0]}: sweep() runs in this process; command.run() may start others")
    statuses: list[str] = []
    studies: set[Path] = set()

    def task(config: "DictConfig") -> str:
        from videopool.app import run

        studies.add(Path(config.results_dir) / config.study)
        statuses.append(run(config))
        return statuses[-1]

    _call([*words, *swept], task, multirun=True)
    if failed := statuses.count("failed"):
        raise CommandFailed(f"{failed} of {len(statuses)} points are not complete; the causes are printed above")
    return load_study(studies.pop())


def _overrides(settings: Mapping[str, Any]) -> list[str]:
    return [f"{key}={_value(value)}" for key, value in settings.items()]


def _value(value: object) -> str:
    """A Python value in an override."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}: {_value(each)}' for key, each in value.items())}}}"
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    text = str(value)
    named = text.lower() in ("true", "false", "null", "none", "nan", "inf")
    return text if BARE.fullmatch(text) and (not named or text == "none") else "'" + text.replace("'", "\\'") + "'"


def _call(words: Iterable[str], task: Any, multirun: bool = False) -> None:
    """Run the program's task in this process. Leaves Hydra and sys.argv as they were."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.singleton import Singleton
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from videopool.app import application, find_own_modules
    from videopool.commandline.composing import in_one_line
    from videopool.commandline.groups import Groups
    from videopool.commandline.words import understood

    find_own_modules()
    run_points = application(task)
    state, argv = Singleton.get_state(), sys.argv
    try:
        flags = ["-m"] * multirun
        sys.argv = ["videopool", *flags, *understood(list(words), Groups(), multirun)]
        GlobalHydra.instance().clear()
        run_points()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(in_one_line(error)) from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(str(error)) from None
    finally:
        Singleton.set_state(state)
        sys.argv = argv


def run(*words: str) -> None:
    """Run `videopool` with these words in a process of its own and print its output line by line.

    The process has the caller's environment, without colours, and working directory. Finished points are kept, so a
    finished study costs a few seconds.

    Raises CommandFailed for another exit code than 0, with the words and the last line of output.
    """
    last = ""
    command = [sys.executable, "-m", "videopool", *words]
    env = {name: value for name, value in os.environ.items() if name not in TERMINAL}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line.strip() or last
    if process.returncode:
        raise CommandFailed(f"videopool {' '.join(words)}: exit code {process.returncode}: {last}")


def run_each(commands: Iterable[Iterable[str]], *words: str) -> None:
    """run() commands one after the other, each with some more words."""
    for command in commands:
        run(*command, *words)
