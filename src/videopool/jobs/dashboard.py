"""job=dashboard: a W&B workspace and report of a study, saved on the server or written to files."""

from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig

from videopool.config.build import check
from videopool.config.errors import ConfigError
from videopool.results import ResultsError, load_study
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.tracking.dashboard import credentials, default_entity, save_online, write_dashboard


def run(config: DictConfig) -> Outcome:
    """Make the workspace and the report of a study's runs."""
    if find_spec("wandb_workspaces") is None:
        raise ConfigError("job=dashboard needs wandb-workspaces: pip install 'videopool[dashboard]'")
    check(config, {bool: ["job.online"]})
    study = Path(config.results_dir) / config.study
    table = load_study(study) if study.is_dir() else None
    if table is None or table.empty:
        raise ResultsError(f"{study} holds no points: run the study first")
    from videopool.tracking.views import StudyViews

    name, figures = str(config.study), sorted(path.stem for path in (study / "figures").glob("*.png"))
    project, entity = (str(config.job[key] or config.logger.get(key) or "") for key in ("project", "entity"))
    if not project:
        raise ConfigError("there is no project to save to: say job.project=...")
    if config.job.online and credentials():
        message = " ".join(save_online(StudyViews(name, table, figures, project, entity or default_entity())))
    else:
        files = write_dashboard(study / "dashboard", StudyViews(name, table, figures, project, entity))
        reason = "nobody is logged in to W&B" if config.job.online else "job.online=false"
        message = f"{reason}: wrote {' and '.join(files)}"
    return Outcome(COMPLETE, f"dashboard of {name}", message, str(study))
