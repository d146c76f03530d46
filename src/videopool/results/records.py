"""Records of one point: a line of JSON a sample, appended and flushed, so that a crash loses little."""

import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path

from videopool.results.errors import ResultsError

OK = "ok"
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT


def read_records(path: Path) -> list[dict[str, object]]:
    """All whole records; a last line that was cut off is left out, and so is a second record of a sample."""
    if not path.exists():
        return []
    records: dict[str, dict[str, object]] = {}
    for line in path.read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "id" in record:
            records.setdefault(str(record["id"]), record)
    return list(records.values())


class RecordLog:
    """The records of a point while it runs.

    On opening, what an earlier run left is brought in order: half-written lines and records of failed
    samples go, so that both are done again. Several processes may append to one log: each batch is
    written whole, under a lock.

    Args:
        path: the file; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        kept = [record for record in read_records(path) if record.get("status") == OK]
        text = "".join(_line(record) for record in kept)
        try:
            if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text:
                part = path.with_suffix(".part")
                part.write_text(text, encoding="utf-8")
                os.replace(part, path)
            self._open()
        except OSError as error:
            raise ResultsError(f"{path} cannot be written: {error.strerror or error}") from error
        self.done = {str(record["id"]) for record in kept}

    def _open(self) -> None:
        self._file, self._process = os.open(self.path, APPEND, 0o666), os.getpid()

    def append(self, records: Iterable[dict[str, object]]) -> None:
        """Write records whose samples have none yet, and hand them to the operating system.

        Raises:
            ResultsError: the disk is full or gone; what was written before stays.
        """
        fresh = [record for record in records if record["id"] not in self.done]
        left = memoryview("".join(_line(record) for record in fresh).encode())
        if self._process != os.getpid():  # a fork shares the lock with its parent unless it opens the file anew
            self._open()
        fcntl.flock(self._file, fcntl.LOCK_EX)
        size = os.fstat(self._file).st_size
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError as error:
            os.ftruncate(self._file, size)  # no half line for another process to write behind
            raise ResultsError(f"{self.path} cannot be written: {error.strerror or error}") from error
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self.done |= {str(record["id"]) for record in fresh}

    def close(self) -> None:
        os.close(self._file)

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "done": self.done}

    def __setstate__(self, state: dict[str, object]) -> None:
        """In another process: go on appending, as the file is."""
        self.__dict__.update(state)
        self._open()


def _line(record: dict[str, object]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
