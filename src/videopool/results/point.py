"""One point's folder: manifest, records, metrics.

run.json       what the point is and how it was run (manifest)
records.jsonl  one line a sample
clips.json     where each clip lay
times.jsonl    what answering took, a line a batch
metrics.json   written last, in one step: it means that the point is complete
failure.json   why the last attempt did not complete
"""

import json
import os
import shutil
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from videopool import locks
from videopool.files import PART, read_json_lines, write_text
from videopool.results.errors import PointBusy, ResultsError, writing
from videopool.results.fingerprint import fingerprint

MANIFEST, RECORDS, METRICS, FAILURE, LOCK = "run.json", "records.jsonl", "metrics.json", "failure.json", "lock"
TRAINING_LOG = "log.jsonl"  # of a training run, which is no point but lies beside them
CLIPS, TIMES = "clips.json", "times.jsonl"
MIXABLE = ("videopool", "torch", "transformers", "av", "decord", "pillow")  # packages
ATTEMPT = ("versions", "reader", "attention", "git", "hardware")  # of a manifest: how an attempt ran


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file whole or not at all."""
    with writing(path):
        write_text(path, json.dumps(content, indent=1, ensure_ascii=False))


def read_json(path: Path) -> dict[str, object] | None:
    """A JSON object, or None if there is no whole one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def clip_files(folder: Path) -> dict[str, Path]:
    """Where the clips of a point were when it ran, by the name that records have for them."""
    found, real = read_json(folder / CLIPS) or {}, os.path.realpath(folder)
    return {name: Path(os.path.normpath(os.path.join(real, str(place)))) for name, place in found.items()}


def attempts_of(folder: Path) -> dict[str, Any]:
    """How each attempt at a point ran, by the name that its records tell."""
    found = (read_json(folder / MANIFEST) or {}).get("attempts")
    return found if isinstance(found, dict) else {}


def mixed_attempts(attempts: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What attempts do not have in common of what changes numbers a little: the versions and ways there were."""
    found: dict[str, set[str]] = {}
    for attempt in attempts:
        told = {name: attempt.get("versions", {}).get(name) for name in MIXABLE}
        told["attention"] = attempt.get("attention")
        if attempt.get("reader") != "decord":
            del told["decord"]  # not used
        for name, value in told.items():
            found.setdefault(name, set()).add(str(value))
    return {name: sorted(values) for name, values in found.items() if len(values) > 1}


def is_complete(folder: Path) -> bool:
    """Whether a point's folder holds its metrics."""
    return read_json(folder / METRICS) is not None


def is_claimed(folder: Path) -> bool:
    """Whether a living process works on a point."""
    try:
        with (folder / LOCK).open("rb") as lock:
            return locks.is_claimed(lock.fileno())
    except OSError:  # it is not there, or not ours to read
        return False


class PointFolder:
    """The folder of one point, claimed for this process while the context is open.

    The claim is a lock of the operating system: it ends with the process, however that ends.

    Args:
        study: the study's folder.
        name: readable name.
        fingerprint: 64 hexadecimal digits; the first eight become part of the folder's name.

    Raises:
        PointBusy: another process has the point.
        ResultsError: the folder cannot be written, or holds another point.
    """

    def __init__(self, study: Path, name: str, fingerprint: str) -> None:
        self.path = study / f"{name}-{fingerprint[:8]}"
        self.fingerprint = fingerprint
        self.attempt: str | None = None  # the one that goes on

    def __enter__(self) -> "PointFolder":
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / LOCK).open("a+")
        except OSError as error:
            raise ResultsError(
                f"results folder {self.path} cannot be written ({error.strerror or error}); "
                "choose another with results_dir=..."
            ) from error
        if not locks.claim(self._lock.fileno()):
            self._lock.seek(0)
            holder = self._lock.read().strip()
            self._lock.close()
            raise PointBusy(self.path, holder or "another process")
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._lock.flush()
        self._forget_parts()
        kept = read_json(self.path / MANIFEST)
        if kept is not None and kept.get("fingerprint") != self.fingerprint:
            self._lock.close()
            raise ResultsError(
                f"{self.path} belongs to another configuration (fingerprint {str(kept.get('fingerprint'))[:16]}, "
                f"not {self.fingerprint[:16]}); choose another study=... or remove that folder"
            )
        return self

    def _forget_parts(self) -> None:
        """Remove what processes that died, and releases before this one, left unfinished."""
        for part in (*self.path.glob(f"*{PART}"), *self.path.glob(".*.json.[0-9]*")):
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._lock.close()

    @property
    def finished(self) -> bool:
        """Whether the folder holds this point's metrics."""
        return is_complete(self.path) and (read_json(self.path / MANIFEST) or {}).get("fingerprint") == self.fingerprint

    def clear(self) -> None:
        """Forget everything but the claim."""
        for name in (METRICS, FAILURE, RECORDS, MANIFEST, CLIPS, TIMES):
            (self.path / name).unlink(missing_ok=True)

    def write_manifest(self, manifest: Mapping[str, object]) -> None:
        """Begin an attempt: say what the point is, and forget why the last attempt failed.

        What the manifests of earlier attempts said of how they ran stays. Attempts that ran alike have one name, so
        that a point that was stopped and goes on has the records of one that was not.
        """
        (self.path / FAILURE).unlink(missing_ok=True)
        before = attempts_of(self.path)
        own: dict[str, Any] = {name: manifest[name] for name in ATTEMPT if name in manifest}
        own["hardware"] = {name: value for name, value in own.get("hardware", {}).items() if name != "threads"}
        self.attempt = fingerprint(own)[:8]
        own["started"] = [*before.get(self.attempt, {}).get("started", []), manifest.get("started")]
        content = {"fingerprint": self.fingerprint, **manifest, "attempts": {**before, self.attempt: own}}
        write_json(self.path / MANIFEST, content)

    def add_attempts(self, attempts: Mapping[str, object]) -> None:
        """Say how records that were taken over from another point came about."""
        if attempts:
            manifest = read_json(self.path / MANIFEST) or {}
            write_json(self.path / MANIFEST, {**manifest, "attempts": {**attempts, **attempts_of(self.path)}})

    def tell_mixed(self, records: Iterable[Mapping[str, object]]) -> None:
        """Say in the manifest in what the attempts that made some records differ, if in anything that may matter."""
        attempts = attempts_of(self.path)
        used = {str(record.get("attempt")) for record in records}
        if mixed := mixed_attempts([attempt for name, attempt in attempts.items() if name in used]):
            write_json(self.path / MANIFEST, {**(read_json(self.path / MANIFEST) or {}), "mixed": mixed})

    def write_clips(self, clips: Mapping[str, Path]) -> None:
        """Keep where clips lie, by name: relative to this folder, so that results and data may be moved together."""
        folder = os.path.realpath(self.path)  # whose parents are those that ".." leads to
        write_json(self.path / CLIPS, {name: os.path.relpath(clip, folder) for name, clip in clips.items()})

    def write_metrics(self, metrics: Mapping[str, object]) -> None:
        write_json(self.path / METRICS, metrics)
        (self.path / FAILURE).unlink(missing_ok=True)

    def write_failure(self, reason: str, details: Mapping[str, object]) -> None:
        try:
            write_json(self.path / FAILURE, {"reason": reason, **details})
        except ResultsError:
            pass  # the disk may be what failed; the error that is being reported says so


def read_training_log(folder: Path) -> list[dict[str, Any]]:
    """Lines of a training run's log; none if it has not begun. A line that a kill cut off is left out."""
    return list(read_json_lines(folder / TRAINING_LOG))
