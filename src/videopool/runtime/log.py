"""Lines about the work: on the terminal, as VIDEOPOOL_VERBOSITY allows, and in the study's log file with times."""

import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from videopool.runtime.ranks import rank_of_process

VERBOSITY = "VIDEOPOOL_VERBOSITY"  # quiet or verbose
FILE, POINT = "VIDEOPOOL_LOG", "VIDEOPOOL_POINT"  # the log file of this command, and what this process works on
NAME = "videopool.log"  # in the folder of a study
LINE = "%(asctime)s %(levelname)-7s %(point)s  %(message)s"
# Values of keys, and of environment variables, that no log may hold.
SECRET = re.compile(r"(?i)\b([\w.]*(?:[._]key|api_?key|secret|passw(?:or)?d|token)['\"]?\s*[=:]\s*)[^\s,}]+")
IN_ADDRESS = re.compile(r"(?<=://)[^/@\s]+@")
SECRET_NAME = re.compile(r"(?i)key|token|secret|passw")
LISTED = 10  # lines
SHORTEST = 8  # characters of a secret in the environment

_log = logging.getLogger("videopool")
_log.addHandler(logging.NullHandler())  # or logging itself would print warnings where nothing is configured


def quiet() -> bool:
    """Whether only failures and results are printed."""
    return os.environ.get(VERBOSITY) == "quiet"


def verbose() -> bool:
    """Whether details are printed too."""
    return os.environ.get(VERBOSITY) == "verbose"


def say(line: str, result: bool = False) -> None:
    """Print a line about the work; a result is printed even if the user wants quiet."""
    _log.info(line)
    if result or not quiet():
        _print(line)


def warn(line: str) -> None:
    """Print a line that the user should know of."""
    _log.warning(line)
    if not quiet():
        _print(f"videopool: {line}", error=True)


def fail(line: str) -> None:
    """Print why something failed."""
    _log.error(line)
    _print(line, error=True)


def detail(line: str) -> None:
    """A line for those who ask for details."""
    _log.debug(line)
    if verbose() and rank_of_process() == 0:
        _print(f"videopool: {line}", error=True)


def show(line: str, error: bool = False) -> None:
    """Print a line that is logged elsewhere."""
    if error or not quiet():
        _print(line, error)


def _print(line: str, error: bool = False) -> None:
    print(line, file=sys.stderr if error else sys.stdout, flush=True)


def indented(lines: Sequence[str]) -> str:
    """The first lines, indented, each after a line break, and the number of further ones."""
    more = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return "".join(f"\n    {line}" for line in [*lines[:LISTED], *more])


def trace() -> str:
    """Log the traceback of the current error, or print it where there is no log. Returns where it is."""
    path = os.environ.get(FILE)
    _log.debug("", exc_info=True)
    if path and os.access(path, os.W_OK):
        return f"trace: {path}"
    traceback.print_exc()
    return "trace above"


def open_log(study: Path, words: Sequence[str], version: str) -> None:
    """Log this command and its processes to a study's file. Without a folder that can be written there is no log."""
    with suppress(OSError):
        study.mkdir(parents=True, exist_ok=True)
        os.environ[FILE] = str((study / NAME).resolve())
        configure()
        _log.info(f"VideoPool {version} began: videopool {' '.join(words)}")


def end(code: int) -> None:
    """Log the end of this command."""
    _log.info(f"ended with exit code {code}")


def configure() -> None:
    """Take the log lines of all libraries off the terminal, and with their warnings into the study's file, if any."""
    logging.captureWarnings(FILE in os.environ)
    root = logging.getLogger()
    if not any(isinstance(handler, _StudyFile) for handler in root.handlers):
        root.addHandler(_StudyFile())
    _log.setLevel(logging.DEBUG)


@contextmanager
def working_on(point: str) -> Iterator[None]:
    """Name the point in the log's lines, also in those of processes that start meanwhile."""
    os.environ[POINT] = point
    try:
        yield
    finally:
        del os.environ[POINT]


class _StudyFile(logging.Handler):
    """Appends each record in one write, so that lines of several processes do not mix."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(LINE, "%Y-%m-%dT%H:%M:%S%z"))

    def emit(self, record: logging.LogRecord) -> None:
        if FILE not in os.environ:
            return
        if record.name.partition(".")[0] != "videopool":  # a library, whose warnings are information here
            record = logging.makeLogRecord(record.__dict__)
            record.msg, record.args = f"{record.name}: {record.getMessage()}", ()
            record.levelname = "INFO"
            if verbose():
                _print(f"videopool: {record.msg}", error=True)
        record.point = os.environ.get(POINT, "-")
        line = without_secrets(self.format(record)).strip().replace("\n", "\n    ") + "\n"
        with suppress(OSError), open(os.environ[FILE], "ab", buffering=0) as file:  # such as a full disk: work goes on
            file.write(line.encode(errors="backslashreplace"))


def without_secrets(text: str) -> str:
    """The text with stars for keys, tokens and passwords: after their names, in addresses, and from the environment."""
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value) >= SHORTEST:
            text = text.replace(value, "***")
    return IN_ADDRESS.sub("***@", SECRET.sub(r"\1***", text))


if FILE in os.environ:  # in a process of a command that logs
    configure()
