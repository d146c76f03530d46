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
    """The outcome of one job."""

    status: str  # "complete", "failed" or "busy" (another process works on the point)
    name: str  # of the point or job
    message: str = ""  # one line
    folder: str = ""  # of its files
    fresh: bool = True  # False if it had been finished before
    row: dict[str, Any] | None = None  # in a table of the whole multirun


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
