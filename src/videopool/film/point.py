"""One clip's configuration, made into objects."""

from pathlib import Path

from videopool.benchmarks import Benchmark, Sample
from videopool.config.errors import ConfigError
from videopool.errors import UserError
from videopool.features import ClipJob
from videopool.inference.batches import group_by_clip
from videopool.points.point import Point

LISTED = 5  # clips of a benchmark that are named where one is not found


class ClipPoint(Point):
    """A point whose clip may be a file of its own: then no benchmark is read."""

    def take_benchmark(self) -> Benchmark:
        named = self.config.clip
        if self.from_file:
            path = Path(str(named))
            return Benchmark(path.name, "", [Sample(path.name, path, path.name, "")], "")
        try:
            return super().take_benchmark()
        except UserError as error:
            if named is None:
                raise
            raise ConfigError(f"clip={named}: no such file, and no benchmark to look in: {error}") from error

    @property
    def from_file(self) -> bool:
        """Whether the clip is named by its path."""
        return self.config.clip is not None and Path(str(self.config.clip)).exists()

    @property
    def clip(self) -> ClipJob:
        """The clip that is asked for, or the first. Raises ConfigError if there is none of this name."""
        named, jobs = self.config.clip, group_by_clip(self.benchmark.samples)
        if named is None or self.from_file:
            return jobs[0]
        for job in jobs:
            if str(named) in (job.name, job.clip.name, job.clip.stem):
                return job
        names = list(dict.fromkeys(job.name for job in jobs))
        listed = ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
        raise ConfigError(f"clip={named}: no such file, and no clip of {self.benchmark.id} ({len(names)}: {listed})")
