"""Every reply of a judge, kept: a line of JSON each, appended and flushed, by the hash of what it answers."""

import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from videopool.files import append, json_lines, read_json_lines
from videopool.results.errors import ResultsError, writing


class ReplyStore:
    """Replies of one judge, shared by points, studies and processes. Nothing in it is ever changed.

    A process that was killed may leave half a line; it is skipped, and the next line begins behind it.

    Args:
        path: the file; made, with its folder, when something is first added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._texts: dict[str, list[str]] = defaultdict(list)
        self._lock = threading.Lock()
        try:
            for told in read_json_lines(path):
                if "key" in told and "reply" in told:
                    self._texts[str(told["key"])].append(str(told["reply"]))
        except OSError as error:
            raise ResultsError(f"{path} cannot be read: {error.strerror or error}") from error

    def texts(self, key: str) -> list[str]:
        """All replies to what a key stands for, the newest first."""
        return self._texts.get(key, [])[::-1]

    def add(self, key: str, reply: str, about: Mapping[str, object]) -> None:
        """Keep a reply. May be called from several threads.

        Args:
            about: what else the line says.

        Raises:
            ResultsError: it cannot be written.
        """
        with self._lock, writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            append(self.path, json_lines([{"key": key, **about, "reply": reply}]))
            self._texts[key].append(reply)
