"""A W&B workspace and report, saved on the server or written to files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from videopool.config.errors import ConfigError
from videopool.errors import one_line
from videopool.files import write_text
from videopool.results.errors import writing
from videopool.tracking.run import logged_in

SERVER_SECONDS = "20"  # timeout of a request


@contextmanager
def _asking(failure: str, advice: str = "") -> Iterator[None]:
    """Raises ConfigError instead of any error of the network, the server, or the account's permissions."""
    try:
        yield
    except Exception as error:
        raise ConfigError(f"{failure}: {one_line(error)}{advice}") from error


def credentials() -> bool:
    """Whether somebody is logged in to W&B. Raises ConfigError if the server refuses the credentials."""
    os.environ.setdefault("WANDB_HTTP_TIMEOUT", SERVER_SECONDS)  # read when W&B is first used
    with _asking("W&B does not take the credentials it was given"):
        return logged_in()


def default_entity() -> str:
    """The entity of the logged-in account."""
    import wandb

    with _asking("the W&B server does not answer", "; job.online=false writes files"):
        entity = wandb.Api().default_entity
    if not entity:
        raise ConfigError("the W&B account has no default entity: say job.entity=...")
    return str(entity)


def save_online(views: Any) -> list[str]:
    """Save workspace and report on the server. Returns their addresses."""
    advice = f"; is {views.entity}/{views.project} there (wandb sync makes it)? job.online=false writes files"
    with _asking("the W&B server does not take the dashboard", advice):
        return [view.save().url for view in (views.workspace(), views.report())]


def write_dashboard(folder: Path, views: Any) -> list[str]:
    """Write workspace and report to files. Returns their paths."""
    paths = []
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, view in (("workspace.json", views.workspace()), ("report.json", views.report())):
            # The JSON that the server would get. wandb-workspaces has no public way; its version is bounded for this.
            text = view._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=1)
            paths.append(write_text(folder / name, str(text)))
    return paths
