"""The outcome of a job."""

from dataclasses import dataclass
from typing import Any

COMPLETE, FAILED, BUSY = "complete", "failed", "busy"


@dataclass
class Outcome:
    """The outcome of one job."""

    status: str  # "complete", "failed" or "busy" (another process works on the point)
    name: str  # of the point or job
    message: str = ""  # one line
    folder: str = ""  # of its files
    fresh: bool = True  # False if it had been finished before
    seconds: float = 0.0  # that it took
    row: dict[str, Any] | None = None  # in a table of the whole multirun
