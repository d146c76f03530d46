"""Records of one point: a line of JSON a sample, appended and flushed, so that a crash loses little."""

from collections.abc import Iterable
from pathlib import Path

from videopool.files import append, json_lines, read_json_lines, write_text
from videopool.results.errors import writing

OK = "ok"
JUDGE_FAILED = "judge_failed"  # the answer is there, its verdict is not
ANSWERED = (OK, JUDGE_FAILED)


def read_records(path: Path) -> list[dict[str, object]]:
    """All whole records; a last line that was cut off is left out, and so is a second record of a sample."""
    records: dict[str, dict[str, object]] = {}
    for record in read_json_lines(path):
        if "id" in record:
            records.setdefault(str(record["id"]), record)
    return list(records.values())


def write_records(path: Path, records: Iterable[dict[str, object]]) -> None:
    """Exchange a file of records for another, whole or not at all.

    Raises:
        ResultsError: it cannot be written.
    """
    with writing(path):
        write_text(path, json_lines(records))


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
        text = json_lines(kept)
        with writing(path):
            if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text:
                write_text(path, text)  # at once on the disk: the answers in it may have taken hours
            append(path, "")  # fails before the work, not after it
        self.done = {str(record["id"]) for record in kept}

    def append(self, records: Iterable[dict[str, object]]) -> None:
        """Write records whose samples have none yet, and hand them to the operating system.

        Raises:
            ResultsError: the disk is full or gone; what was written before stays.
        """
        fresh = [record for record in records if record["id"] not in self.done]
        with writing(self.path):
            append(self.path, json_lines(map(self._told, fresh)))
        self.done |= {str(record["id"]) for record in fresh}

    def _told(self, record: dict[str, object]) -> dict[str, object]:
        return record if self.attempt is None or "attempt" in record else {**record, "attempt": self.attempt}
