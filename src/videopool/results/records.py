"""Records of one point: one line of JSON per sample, appended and flushed, so that a crash loses little."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from videopool.files import append, json_lines, read_json_lines, write_text
from videopool.results.errors import writing

OK = "ok"
JUDGE_FAILED = "judge_failed"  # the answer is there, its verdict is not
ANSWERED = (OK, JUDGE_FAILED)


def read_records(path: Path) -> list[dict[str, Any]]:
    """All whole records, without a last line that was cut off and without second records of a sample."""
    records: dict[str, dict[str, Any]] = {}
    for record in read_json_lines(path):
        if "id" in record:
            records.setdefault(str(record["id"]), record)
    return list(records.values())


def write_records(path: Path, records: Iterable[Mapping[str, object]]) -> None:
    """Replace a file of records, whole or not at all. Raises ResultsError if it cannot be written."""
    with writing(path):
        write_text(path, json_lines(records))


def write_captions(folder: Path, records: Sequence[Mapping[str, object]]) -> int:
    """Write <folder>/captions.jsonl, one line per described clip: clip, caption, words, frame_indices.

    A sample without a question asks for a description. Unreadable clips have no line; the point's metrics count them.
    Returns the number of lines; with none, no file is written. Raises ResultsError if it cannot be written.
    """
    described = [r for r in records if r["status"] == OK and not r["question"]]
    lines = [
        {"clip": r["clip"], "caption": r["prediction"], "words": len(str(r["prediction"]).split()),
         "frame_indices": r["frame_indices"]}
        for r in sorted(described, key=lambda r: str(r["clip"]))
    ]  # fmt: skip
    if lines:
        write_records(folder / "captions.jsonl", lines)
    return len(lines)


class RecordLog:
    """The records of a running point; new ones get the name of the current attempt.

    Opening the log removes half-written lines and records without an answer of an earlier run, so that these samples
    are done again. Several processes may append to one log: each batch is written whole, under a lock.
    """

    def __init__(self, path: Path, attempt: str | None = None) -> None:
        self.path, self.attempt = path, attempt
        kept = [record for record in read_records(path) if record.get("status") in ANSWERED]
        text = json_lines(kept)
        with writing(path):
            if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text:
                write_text(path, text)  # with fsync: these answers may have taken hours
            append(path, "")  # fails before the work, not after it
        self.done = {str(record["id"]) for record in kept}

    def append(self, records: Iterable[dict[str, object]]) -> None:
        """Write the records of samples without one, and hand them to the operating system.

        Raises ResultsError if the disk is full or gone; earlier records stay.
        """
        attempt = {} if self.attempt is None else {"attempt": self.attempt}
        fresh = [record for record in records if record["id"] not in self.done]
        with writing(self.path):
            append(self.path, json_lines(record if "attempt" in record else record | attempt for record in fresh))
        self.done |= {str(record["id"]) for record in fresh}
