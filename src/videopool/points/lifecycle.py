"""One attempt at a results folder: begun with a manifest, ended with metrics or the failure."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from videopool.config.build import jsonable
from videopool.config.choices import command
from videopool.results import PointFailed, PointFolder, fingerprint
from videopool.results.manifest import git_state, hardware, now, versions, watch_memory
from videopool.runtime.log import indented
from videopool.runtime.outcome import COMPLETE, Outcome


def folder_of(config: DictConfig, name: str, identity: Mapping[str, object]) -> PointFolder:
    """The results folder of a configuration, not claimed yet."""
    return PointFolder(Path(config.results_dir) / config.study, name, fingerprint(identity))


def finished_before(folder: PointFolder) -> Outcome:
    """The outcome of a job whose work was done before."""
    return Outcome(COMPLETE, folder.path.name, "finished before", str(folder.path), fresh=False)


def check_failures(kind: str, failed: int, total: int, allowed: float, reasons: Mapping[str, str]) -> None:
    """Raises PointFailed with the reasons, by clip, if more than the allowed share failed, or all."""
    if failed == total or failed > allowed * total:
        lines = indented([f"{name}: {reason}" for name, reason in reasons.items()])
        limit = f"(allowed: job.max_failed_fraction={allowed:g})"
        raise PointFailed(f"{failed} of {total} {kind} {limit}:{lines}")


@contextmanager
def attempt(folder: PointFolder, config: DictConfig, content: Mapping[str, object]) -> Iterator[None]:
    """Begin filling a claimed folder with its manifest, `content` and the environment; keep an error as its failure."""
    environment = {
        "config": jsonable(config),
        "command": command(),
        "versions": versions(),
        "reader": config.job.reader,
        "attention": config.model.get("attention"),
        "git": git_state(),
        "hardware": hardware(),
        "started": now(),
    }
    folder.write_manifest({**content, **environment})
    watch_memory()
    try:
        yield
    except Exception as error:
        folder.write_failure(str(error) or type(error).__name__, {"time": now()})
        raise
