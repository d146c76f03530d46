"""job=export: a study as one folder that others can read and check."""

from pathlib import Path

from omegaconf import DictConfig

from videopool.config.build import jsonable
from videopool.config.errors import ConfigError
from videopool.reports.sharing import export
from videopool.runtime.outcome import COMPLETE, Outcome


def run(config: DictConfig) -> Outcome:
    """Write the folder. Raises ConfigError for wrong settings."""
    points = jsonable(config.job.points)
    if points is not None and not (isinstance(points, list) and all(isinstance(name, str) for name in points)):
        raise ConfigError(f"job.points={points!r}: name points, as in job.points=[a,b], or say null")
    target = Path(config.job.to or Path("exports") / config.study)
    files = export(Path(config.results_dir) / config.study, target, str(config.baseline), points)
    return Outcome(COMPLETE, f"export of {config.study}", f"wrote {len(files)} files into {target}", str(target))
