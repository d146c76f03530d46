"""How a job ended."""

from dataclasses import asdict, dataclass

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
    """

    status: str
    name: str
    message: str = ""
    folder: str = ""
    fresh: bool = True

    def as_dict(self) -> dict[str, object]:
        return asdict(self)
