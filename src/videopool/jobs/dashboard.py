"""job=dashboard: a W&B workspace and report of a study, saved on the server or written to files."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from videopool.jobs.errors import ConfigError
from videopool.jobs.outcome import COMPLETE, Outcome
from videopool.jobs.wandb_run import logged_in
from videopool.results import ResultsError, load_study

SERVER_SECONDS = "20"  # that a request may take


def dashboard(config: DictConfig) -> Outcome:
    """Make the workspace and the report that show a study's runs.

    Raises:
        ConfigError: the extra is not installed, or the server does not take what was made.
        ResultsError: there is no such study, it has no points, or its folder cannot be written.
    """
    if find_spec("wandb_workspaces") is None:
        raise ConfigError("job=dashboard needs wandb-workspaces: pip install 'videopool[dashboard]'")
    if not isinstance(config.job.online, bool):
        raise ConfigError(f"job.online={config.job.online!r}: say true or false")
    study = Path(config.results_dir) / config.study
    table = load_study(study) if study.is_dir() else None
    if table is None or table.empty:
        raise ResultsError(f"{study} holds no points: run the study first")
    from videopool.jobs.dashboard_views import StudyViews

    name, figures = str(config.study), sorted(path.stem for path in (study / "figures").glob("*.png"))
    project, entity = (config.job[key] or config.logger.get(key) or "" for key in ("project", "entity"))
    if not project:
        raise ConfigError("there is no project to save to: say job.project=...")
    if config.job.online and _credentials():
        urls = _save(StudyViews(name, table, figures, str(project), str(entity or _default_entity())))
        return Outcome(COMPLETE, f"dashboard of {name}", " ".join(urls), str(study))
    files = _write(study / "dashboard", StudyViews(name, table, figures, str(project), str(entity)))
    why = "nobody is logged in to W&B" if config.job.online else "job.online=false"
    return Outcome(COMPLETE, f"dashboard of {name}", f"{why}: wrote {' and '.join(files)}", str(study))


def _credentials() -> bool:
    os.environ.setdefault("WANDB_HTTP_TIMEOUT", SERVER_SECONDS)  # read when W&B is first used
    try:
        return logged_in()
    except Exception as error:
        raise ConfigError(f"W&B does not take the credentials it was given: {_line(error)}") from error


def _default_entity() -> str:
    import wandb

    try:
        entity = wandb.Api().default_entity
    except Exception as error:
        raise ConfigError(f"the W&B server does not answer: {_line(error)}; job.online=false writes files") from error
    if not entity:
        raise ConfigError("the W&B account has no default entity: say job.entity=...")
    return str(entity)


def _save(views: Any) -> list[str]:
    try:
        return [view.save().url for view in (views.workspace(), views.report())]
    except Exception as error:  # of the network, of the server, or of what the account may do
        raise ConfigError(
            f"the W&B server does not take the dashboard: {_line(error)}; is {views.entity}/{views.project} there "
            "(wandb sync makes it)? job.online=false writes files"
        ) from error


def _write(folder: Path, views: Any) -> list[str]:
    texts = {"workspace.json": views.workspace(), "report.json": views.report()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, view in texts.items():
            (folder / name).write_text(_serialised(view), encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"{folder} cannot be written: {error.strerror or error}") from error
    return [str(folder / name) for name in texts]


def _serialised(view: Any) -> str:
    """A view as the JSON that would be sent to the server.

    wandb-workspaces has no public way to this; its version is bounded for this one call.
    """
    return str(view._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=1))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
