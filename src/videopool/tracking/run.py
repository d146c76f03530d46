"""A W&B run: opened, handed out, and always finished, so that points of a sweep never merge.

W&B stands beside the results and never in their way: what it cannot do is told in one line on stderr.
"""

import logging
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from videopool.config.errors import ConfigError
from videopool.notes import note

Mode = Literal["offline", "online"]
MODES: tuple[Mode, ...] = ("offline", "online")
OPENING_SECONDS = 30  # for the server's answer
FINISHING_SECONDS = 300  # for what is still to be uploaded; a server that is gone would hold up the sweep forever
STAGING = "WANDB_DATA_DIR"  # names the folder where W&B keeps tables until they are uploaded

_gave_up: list[str] = []  # why this process no longer tries to go online


@contextmanager
def wandb_run(config: DictConfig, study: Path, job: str, name: str, content: Mapping[str, Any]) -> Iterator[Any]:
    """A run in the group of the study; None without a logger, and where W&B cannot open one.

    Files go to `<study>/wandb`. A run that cannot go online is kept there too, for `wandb sync`.

    Args:
        study: its folder.
        job: the run's type.
        name: as lists of runs show it.
        content: what the run's configuration says.

    Raises:
        ConfigError: no such logger or mode.
    """
    logger = config.logger
    if logger.name == "none":
        yield None
        return
    if logger.name != "wandb" or logger.mode not in MODES:
        raise ConfigError(f"logger={logger.name} mode={logger.get('mode')}: choose wandb ({', '.join(MODES)}) or none")
    os.environ.setdefault("WANDB_SILENT", "true")
    with _staging(study / "wandb"):
        run = _open(logger, study, job_type=job, group=str(config.study), name=name, config=dict(content))
        code = 1
        try:
            yield run
            code = 0
        finally:
            if run is not None:
                with telling(f"finish the run; what it has is in {study / 'wandb'}"):
                    _finish(run, code)


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Tell an error of W&B in one line instead of raising it."""
    try:
        yield
    except Exception as error:
        note(f"W&B could not {what} ({_line(error)})")


def logged_in() -> bool:
    """Whether there are credentials for the W&B server: in the environment, or from `wandb login`.

    They are not tried out; nothing is asked for, and nothing is sent.
    """
    import wandb

    return wandb.login(prompt=False, verify=False)


def _open(logger: DictConfig, study: Path, **about: Any) -> Any:
    if logger.mode == "online" and not _gave_up:
        try:
            if not logged_in():
                raise ConfigError("nobody is logged in")
            return _init(logger, study, "online", **about)
        except Exception as error:
            _gave_up.append(_line(error))
            note(
                f"W&B is not online ({_gave_up[0]}); runs are kept in {study / 'wandb'}, "
                "`wandb login` and `wandb sync` upload them"
            )
    with telling("open a run; the results are kept without one"):
        return _init(logger, study, "offline", **about)
    return None


def _init(logger: DictConfig, study: Path, mode: Mode, **about: Any) -> Any:
    import wandb

    root = study / "wandb"
    root.mkdir(parents=True, exist_ok=True)
    if not os.access(root, os.W_OK):  # W&B itself would turn to a temporary folder
        raise PermissionError(f"{root} cannot be written")
    logging.raiseExceptions = False  # on a full disk, W&B's log would print a traceback for each line it cannot write
    return wandb.init(
        id=uuid.uuid4().hex[:8],  # given here, because WANDB_RUN_ID would make all points of a sweep one run
        resume="never",
        project=logger.project,
        entity=logger.entity,
        mode=mode,
        dir=str(study),
        reinit="finish_previous",
        settings=wandb.Settings(
            silent=True,
            console="off",
            init_timeout=OPENING_SECONDS,
            finish_timeout=FINISHING_SECONDS,
            finish_timeout_raises=True,
        ),
        **about,
    )


def _finish(run: Any, code: int) -> None:
    import wandb

    try:
        run.finish(exit_code=code)
    except ConnectionError:  # W&B's own process is gone: forget it, so that the next run starts another
        with suppress(Exception):
            wandb.teardown()
        raise


@contextmanager
def _staging(folder: Path) -> Iterator[None]:
    """Keep tables with their run, not in the home folder, unless the user has chosen a place."""
    if STAGING in os.environ:
        yield
        return
    os.environ[STAGING] = str(folder.resolve())
    try:
        yield
    finally:
        del os.environ[STAGING]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
