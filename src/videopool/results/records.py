"""Records of one point: a line of JSON a sample, appended and flushed, so that a crash loses little."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from videopool import locks
from videopool.files import whole
from videopool.results.errors import ResultsError

OK = "ok"
JUDGE_FAILED = "judge_failed"  # the answer is there, its verdict is not
ANSWERED = (OK, JUDGE_FAILED)
APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT


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


def append_whole(file: int, path: Path, text: str) -> None:
    """Append lines to an open file under a lock: all of them, or none.

    Behind half a line, which a process that was killed may have left, they begin a new one.

    Args:
        file: opened as APPEND says.
        path: of the file, for errors.

    Raises:
        ResultsError: the disk is full or gone; what was written before stays.
    """
    locks.claim(file, wait=True)
    size = os.fstat(file).st_size
    try:
        whole = not text or size == 0 or os.pread(file, 1, size - 1) == b"\n"
        left = memoryview((text if whole else f"\n{text}").encode())
        while left:
            left = left[os.write(file, left) :]
    except OSError as error:
        os.ftruncate(file, size)  # no half line for another process to write behind
        raise ResultsError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        locks.release(file)


def write_records(path: Path, records: Iterable[dict[str, object]]) -> None:
    """Exchange a file of records for another, whole or not at all.

    Raises:
        ResultsError: it cannot be written.
    """
    try:
        with whole(path) as part, part.open("w", encoding="utf-8") as file:
            file.writelines(_line(record) for record in records)
    except OSError as error:
        raise ResultsError(f"{path} cannot be written: {error.strerror or error}") from error


class RecordLog:
    """The records of a point while it runs.

    On opening, what an earlier run left is brought in order: half-written lines and records of samples without
    an answer go, so that both are done again. Several processes may append to one log: each batch is
    written whole, under a lock.

    Args:
        path: the file; made if it is not there.
        attempt: at the point; told by each record that does not tell one.
    """

    def __init__(self, path: Path, attempt: str | None = None) -> None:
        self.path, self.attempt = path, attempt
        kept = [record for record in read_records(path) if record.get("status") in ANSWERED]
        text = "".join(_line(record) for record in kept)
        try:
            if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text:
                with whole(path) as part:  # the answers in it may have taken hours
                    part.write_text(text, encoding="utf-8")
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
        if self._process != os.getpid():  # a fork shares the lock with its parent unless it opens the file anew
            self._open()
        append_whole(self._file, self.path, "".join(_line(self._told(record)) for record in fresh))
        self.done |= {str(record["id"]) for record in fresh}

    def _told(self, record: dict[str, object]) -> dict[str, object]:
        return record if self.attempt is None or "attempt" in record else {**record, "attempt": self.attempt}

    def close(self) -> None:
        os.close(self._file)

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "attempt": self.attempt, "done": self.done}

    def __setstate__(self, state: dict[str, object]) -> None:
        """In another process: go on appending, as the file is."""
        self.__dict__.update(state)
        self._open()


def _line(record: dict[str, object]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
