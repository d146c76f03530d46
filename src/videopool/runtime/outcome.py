"""How a job ended."""

from dataclasses import asdict, dataclass
from typing import Any

COMPLETE, FAILED, BUSY = "complete", "failed", "busy"


@dataclass
class Outcome:
    """What one job of a run has to say at its end.

    Attributes:
        status: "complete", "failed" or "busy" (another process has the point).
        name: of the point or job.
        message: one line.
        folder: where its files are, "" if there is none.
        fresh: False if it had been finished before.
        row: what the job adds to a table of the whole run; None if it adds nothing.
    """

    status: str
    name: str
    message: str = ""
    folder: str = ""
    fresh: bool = True
    row: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, object]:
        return asdict(self)
