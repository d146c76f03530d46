"""Lines of JSON, appended and flushed so that a crash loses little: a point's records and times, a judge's replies."""

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from videopool.files import append, json_lines, read_json_lines, write_text
from videopool.results.errors import ResultsError, writing

OK = "ok"
JUDGE_FAILED = "judge_failed"  # the answer is there, its verdict is not
ANSWERED = (OK, JUDGE_FAILED)
MODEL = ("prefill", "questions", "generate", "api")  # the model's own work, repeated for each sample
SHARED = ("decode", "preprocess", "vision", "saliency", "store")  # done once for all points that see the same frames


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


def write_submission(folder: Path, records: Sequence[Mapping[str, object]], form: str) -> str:
    """Write <folder>/submission.json, for a server that has the answers: by sample id, the chosen option.

    form: its "index" (from 0) or "letter". A sample without a chosen option (unreadable, unparsed) has no entry: none
    is guessed. Returns one line on the file. Raises ResultsError if it cannot be written.
    """
    chosen: dict[str, object] = {}
    for record in sorted(records, key=lambda record: str(record["id"])):
        options, choice = record["options"], record.get("parsed", record["prediction"])
        if isinstance(options, list) and choice in options:
            place = options.index(choice)
            chosen[str(record["id"])] = place if form == "index" else ascii_uppercase[place]
    path = folder / "submission.json"
    with writing(path):
        write_text(path, json.dumps(chosen, indent=1))
    return f"{path} has the answers to {len(chosen)} of {len(records)} questions"


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
        """Write the records of samples without one. Raises ResultsError if the disk is full or gone; others stay."""
        attempt = {} if self.attempt is None else {"attempt": self.attempt}
        fresh = [record for record in records if record["id"] not in self.done]
        with writing(self.path):
            append(self.path, json_lines(record if "attempt" in record else record | attempt for record in fresh))
        self.done |= {str(record["id"]) for record in fresh}


class ReplyStore:
    """Replies of one judge by the hash of the request, shared by points, studies and processes. Lines never change.

    A killed process may leave half a line: it is skipped, and the next line starts after it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._texts: dict[str, list[str]] = defaultdict(list)
        self._lock = threading.Lock()
        try:
            for row in read_json_lines(path):
                if "key" in row and "reply" in row:
                    self._texts[str(row["key"])].append(str(row["reply"]))
        except OSError as error:
            raise ResultsError(f"{path} cannot be read: {error.strerror or error}") from error

    def texts(self, key: str) -> list[str]:
        """All replies to a request, the newest first."""
        return self._texts.get(key, [])[::-1]

    def add(self, key: str, reply: str, fields: Mapping[str, object]) -> None:
        """Keep a reply, with other fields of its line. Thread-safe. Raises ResultsError if it cannot be written."""
        with self._lock, writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            append(self.path, json_lines([{"key": key, **fields, "reply": reply}]))
            self._texts[key].append(reply)


class Times:
    """Seconds spent on a point's samples over all attempts: a line per batch, after its records, from any process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written: Counter[str] = Counter()

    def add(self, answered: int, seconds: Mapping[str, float]) -> None:
        """Add samples answered since the last line, and total seconds by kind. Raises ResultsError if that fails."""
        spent = {kind: round(total - self._written[kind], 6) for kind, total in seconds.items()}
        self._written = Counter(seconds)
        with writing(self.path):
            append(self.path, json_lines([{"answered": answered, "seconds": spent}]))


def read_times(path: Path) -> tuple[int, dict[str, float]]:
    """The number of timed answers, and seconds by kind of work. Lines that were cut off are left out."""
    answered, seconds = 0, Counter[str]()
    for row in read_json_lines(path):
        with suppress(ValueError, KeyError, TypeError):
            answered += int(row["answered"])
            seconds.update(row["seconds"])
    return answered, dict(seconds)
