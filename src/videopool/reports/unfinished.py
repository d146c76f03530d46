"""Why a point is not complete, and how to finish or drop it."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from videopool.results import is_claimed
from videopool.results.point import FAILURE, MANIFEST, read_json
from videopool.results.study import rows_of


def incomplete(table: pd.DataFrame) -> dict[str, str]:
    """The reasons of all points of a study (load_study) that are not complete, by their names."""
    return {row["point"]: why_incomplete(row) for row in rows_of(table) if row["status"] != "complete"}


def why_incomplete(row: Mapping[Any, Any]) -> str:
    """The reason why a point (a row of load_study) is failed or partial, and the commands that finish or drop it."""
    folder = Path(str(row["folder"]))
    manifest, failure = read_json(folder / MANIFEST) or {}, read_json(folder / FAILURE)
    if is_claimed(folder):
        return f"another process works on it: {progress(row, manifest)}"
    if failure is None:
        started = str(manifest.get("started") or "")[:16].replace("T", " ")
        reason = f"stopped at {progress(row, manifest)}" + (f", begun on {started} UTC" if started else "")
    else:
        reason = f"failed: {failure.get('reason') or 'no reason was kept'}"
    if isinstance(row.get("setting"), str):
        reason += f";\nanother setting of the same name: {row['setting']}"
    finish = manifest.get("command")
    again = f"finish it: {finish}" if finish else "finish it: give its command again"
    return f"{reason};\n{again};\ndrop it: rm -r {shlex.quote(str(folder))}"


def progress(row: Mapping[Any, Any], manifest: Mapping[str, Any]) -> str:
    """How many samples of a point have a record."""
    done = sum(0 if pd.isna(row.get(name)) else int(row[name]) for name in ("n", "n_failed"))
    total = manifest.get("samples")
    return f"{done}{f' of {total}' if total else ''} samples"
