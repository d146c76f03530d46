"""All replies of a judge: one line of JSON each, appended and flushed, keyed by the hash of the request."""

import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from videopool.files import append, json_lines, read_json_lines
from videopool.results.errors import ResultsError, writing


class ReplyStore:
    """Replies of one judge, shared by points, studies and processes. Lines never change.

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
