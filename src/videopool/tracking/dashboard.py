"""A W&B workspace and report, saved on the server or written to files."""

import os
from pathlib import Path
from typing import Any

from videopool.config.errors import ConfigError
from videopool.files import write_text
from videopool.results.errors import writing
from videopool.tracking.run import logged_in

SERVER_SECONDS = "20"  # that a request may take


def credentials() -> bool:
    """Whether somebody is logged in to W&B. Raises ConfigError if the server refuses the credentials."""
    os.environ.setdefault("WANDB_HTTP_TIMEOUT", SERVER_SECONDS)  # read when W&B is first used
    try:
        return logged_in()
    except Exception as error:
        raise ConfigError(f"W&B does not take the credentials it was given: {_line(error)}") from error


def default_entity() -> str:
    """The entity of whoever is logged in."""
    import wandb

    try:
        entity = wandb.Api().default_entity
    except Exception as error:
        raise ConfigError(f"the W&B server does not answer: {_line(error)}; job.online=false writes files") from error
    if not entity:
        raise ConfigError("the W&B account has no default entity: say job.entity=...")
    return str(entity)


def save_online(views: Any) -> list[str]:
    """Save workspace and report on the server; their addresses."""
    try:
        return [view.save().url for view in (views.workspace(), views.report())]
    except Exception as error:  # of the network, of the server, or of what the account may do
        raise ConfigError(
            f"the W&B server does not take the dashboard: {_line(error)}; is {views.entity}/{views.project} there "
            "(wandb sync makes it)? job.online=false writes files"
        ) from error


def write_dashboard(folder: Path, views: Any) -> list[str]:
    """Write workspace and report to files; their paths."""
    texts = {"workspace.json": views.workspace(), "report.json": views.report()}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, view in texts.items():
            write_text(folder / name, _serialised(view))
    return [str(folder / name) for name in texts]


def _serialised(view: Any) -> str:
    """A view as the JSON that would be sent to the server.

    wandb-workspaces has no public way to this; its version is bounded for this one call.
    """
    return str(view._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=1))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
