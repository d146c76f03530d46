"""job=import: samples that lmms-eval logged, as a point."""

from pathlib import Path

from omegaconf import DictConfig

from videopool.config.build import check, jsonable, whole
from videopool.config.errors import ConfigError
from videopool.reports.importing import imported_model, imported_point, logged, metric_of
from videopool.runtime.outcome import COMPLETE, Outcome


def run(config: DictConfig) -> Outcome:
    """Write the point. Raises ConfigError for files that do not belong together, or lack what is needed."""
    check(config, {whole(1, null=True): ["job.frames"]})
    job, study = config.job, Path(config.results_dir) / config.study
    files = logged(jsonable(job.samples))
    metric = metric_of(files, job.metric)
    if job.point is not None:
        if len(files) > 1:
            raise ConfigError(f"job.samples: {len(files)} files; a point answered the requests of one task")
        folder = imported_point(Path(str(job.point)), files[0], metric, study)
    elif not job.model:
        raise ConfigError("job.point and job.model are not given: name VideoPool's point, or another model")
    else:
        folder = imported_model(files, metric, study, str(job.model), job.frames, job.clip, int(config.seed))
    return Outcome(COMPLETE, folder.name, f"imported, by {metric}", str(folder))
