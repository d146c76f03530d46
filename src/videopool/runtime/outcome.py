"""The outcome of a job."""

import time
import traceback
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMPLETE, FAILED, BUSY = "complete", "failed", "busy"


@dataclass
class Outcome:
    """The outcome of one job.

    Attributes:
        status: "complete", "failed" or "busy" (another process works on the point).
        name: of the point or job.
        message: one line.
        folder: of its files, "" for none.
        fresh: False if it had been finished before.
        row: its row in a table of the whole multirun, or None.
    """

    status: str
    name: str
    message: str = ""
    folder: str = ""
    fresh: bool = True
    row: dict[str, Any] | None = None


def keep_trace(study: Path) -> str:
    """Write the current traceback to a file of the study, or print it if that fails. Returns where it is."""
    name = f"{time.strftime('%Y-%m-%dT%H%M%S+0000', time.gmtime())}-{uuid.uuid4().hex[:6]}.txt"
    path = study / "errors" / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(traceback.format_exc(), encoding="utf-8")
        return f"trace: {path}"
    except OSError:
        traceback.print_exc()
        return "trace above"
