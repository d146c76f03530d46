"""How a job ended."""

import time
import traceback
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
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


def keep_trace(study: Path) -> str:
    """Write the current traceback to a file of the study; says where, or prints it if that fails."""
    folder = study / "errors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{time.strftime('%Y-%m-%dT%H%M%S+0000', time.gmtime())}-{uuid.uuid4().hex[:6]}.txt"
        path.write_text(traceback.format_exc(), encoding="utf-8")
        return f"trace: {path}"
    except OSError:
        traceback.print_exc()
        return "trace above"
