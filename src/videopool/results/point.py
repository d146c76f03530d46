"""One point's folder: manifest, records, metrics.

run.json       what the point is and how it ran (manifest)
records.jsonl  one line per sample
clips.json     the path of each clip
times.jsonl    time spent on the samples, one line per batch
metrics.json   written last, in one step: the point is complete
failure.json   why the last attempt did not complete
"""

import json
import os
import shutil
import socket
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from videopool import locks
from videopool.files import PART, read_json_lines, write_text
from videopool.results.errors import PointBusy, ResultsError, writing
from videopool.results.fingerprint import fingerprint

MANIFEST, RECORDS, METRICS, FAILURE, LOCK = "run.json", "records.jsonl", "metrics.json", "failure.json", "lock"
TRAINING_LOG = "log.jsonl"  # of a training run, which is no point but lies beside them
CLIPS, TIMES = "clips.json", "times.jsonl"
MIXABLE = ("videopool", "torch", "transformers", "av", "decord", "pillow")  # packages that may change numbers slightly
ATTEMPT = ("versions", "reader", "attention", "git", "hardware")  # parts of a manifest that describe an attempt


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file whole or not at all."""
    with writing(path):
        write_text(path, json.dumps(content, indent=1, ensure_ascii=False))


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None if the file does not hold a whole one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def manifest_part(folder: str | Path, name: str) -> dict[str, Any]:
    """A mapping in a point's manifest, such as "point" or "identity"; {} if there is none."""
    return part_of(read_json(Path(folder) / MANIFEST) or {}, name)


def part_of(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A mapping within a mapping; {} if there is none."""
    part = content.get(name)
    return part if isinstance(part, dict) else {}


def clip_files(folder: Path) -> dict[str, Path]:
    """Paths of a point's clips when it ran, by their names in records."""
    clips, real = read_json(folder / CLIPS) or {}, os.path.realpath(folder)
    return {name: Path(os.path.normpath(os.path.join(real, str(place)))) for name, place in clips.items()}


def attempts_of(folder: Path) -> dict[str, Any]:
    """How each attempt at a point ran, by its name in records."""
    return manifest_part(folder, "attempts")


def is_complete(folder: Path) -> bool:
    """Whether a point's folder holds its metrics."""
    return read_json(folder / METRICS) is not None


def is_claimed(folder: Path) -> bool:
    """Whether a living process works on a point."""
    try:
        with (folder / LOCK).open("rb") as lock:
            return locks.is_claimed(lock.fileno())
    except OSError:  # missing or unreadable
        return False


class PointFolder:
    """The folder of one point, <study>/<name>-<first 8 digits of the fingerprint>, claimed while the context is open.

    The claim is a lock of the operating system: it ends with the process, in any case. Entering raises PointBusy if
    another process has the point, and ResultsError if the folder cannot be written or holds another point.
    """

    def __init__(self, study: Path, name: str, fingerprint: str) -> None:
        self.path = study / f"{name}-{fingerprint[:8]}"
        self.fingerprint = fingerprint
        self.attempt: str | None = None  # name of the current one

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
        # Unfinished files of dead processes and of earlier releases.
        for part in (*self.path.glob(f"*{PART}"), *self.path.glob(".*.json.[0-9]*")):
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)
        kept = read_json(self.path / MANIFEST)
        if kept is not None and kept.get("fingerprint") != self.fingerprint:
            self._lock.close()
            raise ResultsError(
                f"{self.path} belongs to another configuration (fingerprint {str(kept.get('fingerprint'))[:16]}, "
                f"not {self.fingerprint[:16]}); choose another study=... or remove that folder"
            )
        return self

    def __exit__(self, *error: object) -> None:
        locks.release(self._lock.fileno())  # a killed device's loaders, forks that share it, live on for seconds
        self._lock.close()

    @property
    def finished(self) -> bool:
        """Whether the folder holds this point's metrics."""
        return is_complete(self.path) and (read_json(self.path / MANIFEST) or {}).get("fingerprint") == self.fingerprint

    def clear(self) -> None:
        """Remove everything but the claim."""
        for name in (METRICS, FAILURE, RECORDS, MANIFEST, CLIPS, TIMES):
            (self.path / name).unlink(missing_ok=True)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Begin an attempt: write the manifest and remove the last attempt's failure.

        The manifest keeps how earlier attempts ran. Attempts that ran alike share one name, so that an interrupted and
        resumed point has the same records as an uninterrupted one.
        """
        (self.path / FAILURE).unlink(missing_ok=True)
        before = attempts_of(self.path)
        own: dict[str, Any] = {name: manifest[name] for name in ATTEMPT if name in manifest}
        own["hardware"] = {name: value for name, value in own.get("hardware", {}).items() if name != "threads"}
        self.attempt = fingerprint(own)[:8]
        own["started"] = [*before.get(self.attempt, {}).get("started", []), manifest.get("started")]
        content = {"fingerprint": self.fingerprint, **manifest, "attempts": {**before, self.attempt: own}}
        write_json(self.path / MANIFEST, content)

    def _add_to_manifest(self, name: str, part: Mapping[str, object]) -> None:
        write_json(self.path / MANIFEST, {**(read_json(self.path / MANIFEST) or {}), name: part})

    def add_attempts(self, attempts: Mapping[str, object]) -> None:
        """Add the attempts of another point, whose records this point reuses."""
        if attempts:
            self._add_to_manifest("attempts", {**attempts, **attempts_of(self.path)})

    def tell_mixed(self, records: Iterable[Mapping[str, object]]) -> None:
        """Write into the manifest in which packages and attention kernels the attempts behind some records differ."""
        used = {str(record.get("attempt")) for record in records}
        values: dict[str, set[str]] = defaultdict(set)
        for attempt in (own for name, own in attempts_of(self.path).items() if name in used):
            for package in MIXABLE:
                if package != "decord" or attempt.get("reader") == "decord":  # otherwise unused
                    values[package].add(str(attempt.get("versions", {}).get(package)))
            values["attention"].add(str(attempt.get("attention")))
        if mixed := {name: sorted(own) for name, own in values.items() if len(own) > 1}:
            self._add_to_manifest("mixed", mixed)

    def write_clips(self, clips: Mapping[str, Path]) -> None:
        """Keep the clips' paths, by name: relative to this folder, so that results and data may be moved together."""
        folder = os.path.realpath(self.path)  # ".." leads to this path's parents
        write_json(self.path / CLIPS, {name: os.path.relpath(clip, folder) for name, clip in clips.items()})

    def write_metrics(self, metrics: Mapping[str, object]) -> None:
        write_json(self.path / METRICS, metrics)
        (self.path / FAILURE).unlink(missing_ok=True)

    def write_failure(self, reason: str, details: Mapping[str, object]) -> None:
        with suppress(ResultsError):  # a full disk may be the failure itself, and the original error says so
            write_json(self.path / FAILURE, {"reason": reason, **details})


def read_training_log(folder: Path) -> list[dict[str, Any]]:
    """Lines of a training run's log, without one that was cut off; [] before the first."""
    return list(read_json_lines(folder / TRAINING_LOG))
