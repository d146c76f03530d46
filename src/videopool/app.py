"""The Hydra application: configuration in, exit code out."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from videopool import __version__
from videopool.paths import PUBLISHED, shipped
from videopool.top_level import quoted

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Heavy imports stand inside functions, so that --version and --help answer at once.

INTERRUPTED = 130
# What launchers raise when a process of theirs was killed: joblib's; submitit's.
KILLS = ("TerminatedWorkerError", "UncompletedJobError")
# Waiting threads sleep instead of spinning: a core that another process uses too is no disaster then.
PATIENT_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


def open_streams() -> None:
    """Put /dev/null where the caller closed a standard stream, as `>&-` does: else the next file would be it."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def register_experiments(folder: Path) -> None:
    """Make each study of experiments/ a choice of the group `experiment`."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    for path in sorted(folder.glob("*.yaml")):
        if path.name == PUBLISHED:
            continue
        store.store(group="experiment", name=path.stem, node=OmegaConf.load(path), package="_global_")


def quiet() -> None:
    """Keep what libraries say about themselves out of the terminal."""
    import logging

    for name, value in PATIENT_THREADS.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Lightning sets the levels of its two top loggers when it is imported, later than this; not those below them.
    lightning = [f"{name}.utilities.rank_zero" for name in ("pytorch_lightning", "lightning_fabric")]
    for name in ("transformers", "libav", "PIL", *lightning):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torch.utils.data")
    warnings.filterwarnings("ignore", message=".*torchvision.*")
    warnings.filterwarnings("ignore", message="(?s).*validated against ConfigStore schema.*")  # submitit's, on purpose


def run(config: "DictConfig") -> str:
    """One point or one job, under Hydra. Returns its status; never raises but for an interruption."""
    quiet()
    from videopool.jobs import run as jobs_run

    return jobs_run.run_and_tell(config)


def main() -> None:
    """The console script."""
    open_streams()
    if sys.argv[1:] in (["--version"], ["-V"]):
        print(f"videopool {__version__}")
        return
    flags = {word.partition("=")[0] for word in sys.argv[1:] if word.startswith("-")}
    if flags & {"-m", "--multirun"} and flags & {"-c", "--cfg"}:
        print("videopool: --cfg shows the configuration of one point; say it without --multirun", file=sys.stderr)
        sys.exit(2)
    # Hydra takes flags before overrides only.
    sys.argv[1:] = sorted(map(quoted, sys.argv[1:]), key=lambda word: "=" in word and not word.startswith("-"))
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from videopool.composing import check_configurations, compose_once

    quiet()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here, to be told in one line
    register_experiments(shipped("experiments"))
    compose_once()
    check_configurations()
    application = hydra.main(version_base="1.3", config_path=str(shipped("conf")), config_name="config")(run)
    try:
        outlive_kills(application)
    except KeyboardInterrupt:
        print("videopool: stopped; run the same command again to go on", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (HydraException, OmegaConfBaseException) as error:
        print(f"videopool: {explain(error)}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of a pipe has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"videopool: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        traceback.print_exc()
        print(f"videopool: internal error: {error}", file=sys.stderr)
        sys.exit(3)
    from videopool.runtime.exit_code import exit_code

    sys.exit(exit_code())


def outlive_kills(application: Callable[[], None]) -> None:
    """Run a multirun again when a process of it was killed: finished points are kept, the others go on.

    A point that is killed again and again is given up, so this ends.
    """
    while True:
        try:
            application()
            return
        except Exception as error:
            if type(error).__name__ not in KILLS:
                raise
            print(f"videopool: a process of the sweep was killed ({type(error).__name__}); going on", file=sys.stderr)


def explain(error: BaseException) -> str:
    """Hydra's words and their cause, without repeated or empty lines."""
    lines: list[str] = []
    current: BaseException | None = error
    while current is not None:
        for line in str(current).splitlines():
            if line.strip() and line.strip() not in lines:
                lines.append(line.strip())
        current = current.__cause__
    return "\n  ".join(lines)
