"""The Hydra application: configuration in, exit code out."""

import gc
import os
import sys
import traceback
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, NoReturn, cast

from videopool import __version__
from videopool.paths import PUBLISHED, shipped
from videopool.runtime import log
from videopool.runtime.interrupts import stop_on_signals
from videopool.runtime.streams import endure, quiet

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

# Heavy imports stand inside functions, so that --version and --help answer at once.

INTERRUPTED = 130
KILLED = "TerminatedWorkerError"  # raised by joblib's launcher


def open_streams() -> None:
    """Open /dev/null for each standard stream that the caller closed (`>&-`); the next file would take its number."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


@cache
def register_experiments(folder: "Path") -> None:
    """Make each study of experiments/ a choice of the group `experiment`."""
    from hydra.core.config_store import ConfigStore

    from videopool.commandline.composing import LaterRead

    studies = ConfigStore.instance().repo.setdefault("experiment", {})
    for path in folder.glob("*.yaml"):
        if path.name != PUBLISHED:
            studies[path.name] = LaterRead(path.name, cast("DictConfig", path), "experiment", "_global_", None)


def run(config: "DictConfig") -> str:
    """One point or one job, under Hydra. Returns its status; raises for an interruption only."""
    quiet()
    endure()  # in a process of a launcher
    from videopool.jobs.run import run_and_tell

    return run_and_tell(config)


class Task:
    """What Hydra calls for each point. Unpickled in a worker, it prepares that process as main() did this one."""

    def __call__(self, config: "DictConfig") -> str:
        return run(config)

    def __reduce__(self) -> tuple[Callable[[], "Task"], tuple[()]]:
        return _task_of_worker, ()


@cache
def _task_of_worker() -> Task:
    from videopool.commandline.composing import check_configurations
    from videopool.inference.gpus import take_gpus

    quiet()
    take_gpus()
    find_own_modules()
    check_configurations()
    return Task()


def find_own_modules() -> None:
    """Let modules in the current folder be imported, as `python -m` does.

    They come last, so that a file called like a library (random.py, wandb/) hides none.
    """
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())


def read_words(words: list[str]) -> list[str]:
    """The words for Hydra. Those that ask for help or the version are answered here, without its imports."""
    from videopool.commandline.groups import Groups
    from videopool.commandline.help import UnknownTopic, asked, welcome
    from videopool.commandline.words import parted, understood, value_of

    try:
        flags, others, comment = parted(words)
        if {"--version", "-V"} & set(flags):
            _show(f"videopool {__version__}")
        if {"-sc", "--shell-completion"} & set(flags):
            sys.argv[0] = "videopool"  # which Hydra's script completes, however it was started
            return [*flags, *others]
        groups = Groups(*value_of(flags, "-cd", "--config-dir"))
        if (page := asked(others, flags, groups)) is not None:
            _show(page)
        verbosity = {"-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose"}
        for flag in [flag for flag in flags if flag in verbosity]:
            os.environ[log.VERBOSITY] = verbosity[flag]
        flags = [flag for flag in flags if flag not in verbosity]
        if not flags and not others:
            _show(welcome())
        multirun = not {"-m", "--multirun"}.isdisjoint(flags)
        if multirun and value_of(flags, "-c", "--cfg"):
            raise ValueError("--cfg shows the configuration of one point; say it without --multirun")
        if comment:
            log.warn(f"not read, as a comment: {comment}")
        if hidden := groups.hidden():
            raise ValueError(f"{hidden}: a shipped file has this name and would be read instead; rename yours")
        from videopool.commandline.composing import parse_once

        parse_once()
        return [*flags, *understood(others, groups, multirun)]  # Hydra takes flags before overrides only
    except (UnknownTopic, ValueError) as error:
        _exit(str(error), 2)


def application(task: "Callable[[DictConfig], object]") -> Callable[[], None]:
    """A function that has Hydra read the words in sys.argv, and call the task for each point."""
    import hydra

    from videopool.commandline.composing import check_configurations, compose_once

    quiet()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors; main() prints them in one line
    register_experiments(shipped("experiments"))
    compose_once()
    check_configurations()
    run_points: Callable[[], None] = hydra.main(
        version_base="1.3", config_path=str(shipped("conf")), config_name="config"
    )(task)
    return run_points


def main() -> None:
    """The console script."""
    gc.set_threshold(50_000, 20, 100)  # imports make a million objects that stay; Python's 700 costs a 15th of a start
    open_streams()
    endure()
    stop_on_signals()
    find_own_modules()
    sys.argv[1:] = read_words(sys.argv[1:])
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from videopool.commandline.composing import in_one_line

    run_points = application(Task())
    try:
        while _killed(run_points):
            pass
    except KeyboardInterrupt:
        _exit("stopped; run the same command again to go on", INTERRUPTED)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        _exit(in_one_line(error), 2)
    except OSError as error:
        _exit(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error), 2)
    except Exception as error:
        traceback.print_exc()
        _exit(f"internal error: {error}", 3)
    from videopool.runtime.exit_code import exit_code

    log.end(exit_code())
    sys.exit(exit_code())


def _show(page: str) -> NoReturn:
    """Print what was asked for, to a reader who may have seen enough."""
    try:
        print(page, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def _exit(message: str, code: int) -> NoReturn:
    log.fail(f"videopool: {message}")
    log.end(code)
    sys.exit(code)


def _killed(run_points: Callable[[], None]) -> bool:
    """Whether a process of the multirun was killed. The next run keeps finished points; repeated kills end a point."""
    try:
        run_points()
    except Exception as error:
        if type(error).__name__ != KILLED:
            raise
        log.warn(f"a process of the sweep was killed ({KILLED}); going on")
        return True
    return False
