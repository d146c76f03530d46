"""One attempt at a folder of results: claimed, begun with a manifest, ended with metrics or with why it failed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from videopool.config.build import jsonable
from videopool.results import PointFolder, fingerprint
from videopool.results.manifest import git_state, hardware, now, versions
from videopool.runtime.outcome import COMPLETE, Outcome


def folder_of(config: DictConfig, name: str, identity: Mapping[str, object]) -> PointFolder:
    """Where the results of a configuration are, not claimed yet."""
    return PointFolder(Path(config.results_dir) / config.study, name, fingerprint(identity))


def finished_before(folder: PointFolder) -> Outcome:
    """The outcome of a job that finds its work done."""
    return Outcome(COMPLETE, folder.path.name, "finished before", str(folder.path), fresh=False)


@contextmanager
def attempt(
    folder: PointFolder,
    config: DictConfig,
    told: Mapping[str, object],
    begin: Callable[[], None],
) -> Iterator[bool]:
    """Claim a folder for a block that fills it; an error of the block is kept there as the failure.

    Args:
        told: what the manifest says beside the configuration and how the attempt runs.
        begin: brings the claimed folder to where the attempt starts: nothing is left of what is done again.

    Yields:
        False if there is nothing to do: another process has finished the work meanwhile.

    Raises:
        PointBusy: another process has the folder.
        ResultsError: the folder cannot be written, or holds another configuration.
    """
    with folder:
        begin()
        if folder.finished:
            yield False
            return
        folder.write_manifest(
            {
                **told,
                "config": jsonable(config),
                "versions": versions(),
                "reader": config.job.reader,
                "attention": config.model.get("attention"),
                "git": git_state(),
                "hardware": hardware(),
                "started": now(),
            }
        )
        try:
            yield True
        except Exception as error:
            folder.write_failure(str(error) or type(error).__name__, {"time": now()})
            raise
