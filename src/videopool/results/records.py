"""Records of one point: a line of JSON a sample, appended and flushed, so that a crash loses little."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from videopool.results.errors import ResultsError

OK = "ok"


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
    samples go, so that both are done again.

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
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise ResultsError(f"{path} cannot be written: {error.strerror or error}") from error
        self.done = {str(record["id"]) for record in kept}

    def append(self, records: Iterable[dict[str, object]]) -> None:
        """Write records whose samples have none yet, and hand them to the operating system.

        Raises:
            ResultsError: the disk is full or gone; what was written before stays.
        """
        fresh = [record for record in records if record["id"] not in self.done]
        try:
            self._file.write("".join(_line(record) for record in fresh))
            self._file.flush()
        except OSError as error:
            raise ResultsError(f"{self.path} cannot be written: {error.strerror or error}") from error
        self.done |= {str(record["id"]) for record in fresh}

    def close(self) -> None:
        try:
            self._file.close()
        except OSError:
            pass  # what could not be written was reported when it was tried


def _line(record: dict[str, object]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
