"""A W&B run: opened, handed out, always finished, so that points of a sweep never merge.

A failure of W&B never touches the results: it is one line on stderr.
"""

import logging
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from videopool.config.build import check_logger
from videopool.config.errors import ConfigError
from videopool.errors import one_line
from videopool.notes import note

OPENING_SECONDS = 30  # for the server's answer
FINISHING_SECONDS = 300  # for pending uploads; a lost server would hold up the sweep forever
STAGING = "WANDB_DATA_DIR"  # names the folder where W&B keeps tables until their upload

_gave_up: list[str] = []  # why this process no longer tries to go online


@contextmanager
def wandb_run(config: DictConfig, study: Path, job: str, name: str, content: Mapping[str, Any]) -> Iterator[Any]:
    """A run of type `job` in the group of the study, with `content` as its configuration; None without a logger, and
    where W&B cannot open one. Files go to `<study>/wandb`, and wait there for `wandb sync` if it cannot go online.

    Raises ConfigError for wrong settings of the logger.
    """
    check_logger(config)
    logger = config.logger
    if logger.name == "none":
        yield None
        return
    os.environ.setdefault("WANDB_SILENT", "true")
    # Tables stay with their run, not in the home folder, unless the user has chosen a place.
    staging = {} if STAGING in os.environ else {STAGING: str((study / "wandb").resolve())}
    os.environ.update(staging)
    run, code = None, 1
    try:
        run = _open(logger, study, job_type=job, group=str(config.study), name=name, config=dict(content))
        yield run
        code = 0
    finally:
        if run is not None:
            with telling(f"finish the run; its data is in {study / 'wandb'}"):
                _finish(run, code)
        for variable in staging:
            del os.environ[variable]


@contextmanager
def telling(action: str) -> Iterator[None]:
    """Report an error of W&B in one line on stderr instead of raising it."""
    try:
        yield
    except Exception as error:
        note(f"W&B could not {action} ({one_line(error)})")


def logged_in() -> bool:
    """Whether there are credentials for the W&B server: in the environment, or from `wandb login`. Sends nothing."""
    import wandb

    return wandb.login(prompt=False, verify=False)


def _open(logger: DictConfig, study: Path, **settings: Any) -> Any:
    if logger.mode == "online" and not _gave_up:
        try:
            if not logged_in():
                raise ConfigError("nobody is logged in")
            return _init(logger, study, "online", **settings)
        except Exception as error:
            _gave_up.append(one_line(error))
            kept = f"runs are kept in {study / 'wandb'}, `wandb login` and `wandb sync` upload them"
            note(f"W&B is not online ({_gave_up[0]}); {kept}")
    with telling("open a run; the results are kept without one"):
        return _init(logger, study, "offline", **settings)
    return None


def _init(logger: DictConfig, study: Path, mode: Literal["offline", "online"], **settings: Any) -> Any:
    import wandb

    root = study / "wandb"
    root.mkdir(parents=True, exist_ok=True)
    if not os.access(root, os.W_OK):  # W&B itself would turn to a temporary folder
        raise PermissionError(f"{root} cannot be written")
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wandb"
        cache.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # W&B's own process would print its log
        os.environ["XDG_CACHE_HOME"] = str(root.resolve())
    logging.raiseExceptions = False  # on a full disk, W&B's log would print a traceback for each line it cannot write
    return wandb.init(
        id=uuid.uuid4().hex[:8],  # explicit, because WANDB_RUN_ID would make all points of a sweep one run
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
        **settings,
    )


def _finish(run: Any, code: int) -> None:
    try:
        run.finish(exit_code=code)
    except ConnectionError:  # W&B's own process is gone: forget it, so that the next run starts another
        with suppress(Exception):
            import wandb

            wandb.teardown()
        raise
