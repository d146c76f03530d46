"""Every reply of a judge, kept: a line of JSON each, appended and flushed, by the hash of what it answers."""

import json
import os
import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from videopool.results.errors import ResultsError
from videopool.results.records import APPEND, append_whole


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
            content = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise ResultsError(f"{path} cannot be read: {error.strerror or error}") from error
        for line in content.split(b"\n"):
            try:
                told = json.loads(line)
                self._texts[str(told["key"])].append(str(told["reply"]))
            except (ValueError, KeyError, TypeError):
                continue

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
        line = json.dumps({"key": key, **about, "reply": reply}, ensure_ascii=False) + "\n"
        with self._lock:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                file = os.open(self.path, APPEND, 0o666)
            except OSError as error:
                raise ResultsError(f"{self.path} cannot be written: {error.strerror or error}") from error
            try:
                append_whole(file, self.path, line)
            finally:
                os.close(file)
            self._texts[key].append(reply)
