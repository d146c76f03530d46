"""Tracebacks of errors that are the program's own."""

import time
import traceback
import uuid
from pathlib import Path


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
