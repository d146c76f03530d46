"""The table of a plan: plan.csv, and what the terminal shows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from rich.table import Table

from videopool.files import write_text
from videopool.planning.power import with_power
from videopool.reports.spreadsheet import spreadsheet
from videopool.results.errors import writing
from videopool.runtime.terminal import console, plain

# Columns of the terminal's table: key of the row, heading, unit.
COLUMNS = (
    ("model", "model", ""),
    ("pooling", "pooling", ""),
    ("stage", "stage", ""),
    ("frames", "frames", ""),
    ("visual_tokens", "visual tokens", ""),
    ("prefill_tflops", "prefill {}", "TFLOPs"),
    ("tower_tflops", "tower {}", "TFLOPs"),
    ("kv_cache_gb", "KV cache {}", "GB"),
    ("weights_gb", "weights {}", "GB"),
    ("features_mb_per_clip", "features {}/clip", "MB"),
    ("features_gb", "features {}", "GB"),
    ("peak_memory_gb", "peak {} (clips)", "GB"),
)
SMALL = 0.1  # below this, the smaller unit
SMALLER = {"TFLOPs": "GFLOPs", "GB": "MB", "MB": "kB"}  # a thousandth, for small models


def write_plan(rows: Sequence[dict[str, Any]], study: Path) -> str:
    """plan.csv of a multirun; the file's name.

    Raises:
        ResultsError: the folder cannot be written.
    """
    table = pd.DataFrame([{**row, "warnings": "; ".join(row["warnings"])} for row in with_power(rows)])
    with writing(study):
        study.mkdir(parents=True, exist_ok=True)
        return write_text(study / "plan.csv", spreadsheet(table))


def show_plan(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table of a run's points, then their warnings."""
    screen = console()
    screen.print(plan_table(rows))
    for row in rows:
        for text in row["warnings"]:
            screen.print(f"warning: {row['point']}: {text}", highlight=False, soft_wrap=True)


def plan_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Points and their costs for the terminal; what all points share stands in the caption."""
    rows = with_power(rows)
    fixed = {key for key in ("model", "stage", "weights_gb") if len({row[key] for row in rows}) == 1}
    table = Table(title="plan")
    columns = []
    for key, heading, unit in COLUMNS:
        if key in fixed:
            continue
        factor, unit = _unit([row[key] for row in rows], unit)
        justify: Literal["left", "right"] = "left" if key in ("model", "pooling", "stage") else "right"
        table.add_column(heading.format(unit), justify=justify, no_wrap=key == "model")
        columns.append((key, factor))
    for row in rows:
        cells = [plain(_cell(row, key, factor)) for key, factor in columns]
        table.add_row(*cells, style="yellow" if row["warnings"] else None)
    table.caption = plain(_caption(rows, fixed), "table.caption")
    return table


def _caption(rows: Sequence[dict[str, Any]], fixed: set[str]) -> str:
    first = rows[0]
    parts = []
    if "model" in fixed and first["context"] is None:
        parts.append(f"{first['model']}: behind an API")
    elif "model" in fixed:
        weights = f", weights {with_unit(first['weights_gb'], 'GB')} in {first['dtype']}"
        parts.append(f"{first['model']}: context {first['context']}{weights if 'weights_gb' in fixed else ''}")
    if "stage" in fixed:
        parts.append(f"pooling at the {first['stage']}")
    counts = {row["clips"] for row in rows}
    if len(counts) == 1 and None not in counts:
        parts.append(f"features of {first['clips']} clips")
    elif counts == {None}:
        parts.append("number of clips unknown: job.clips=...")
    parts.append("peak: an estimate, with (clips) read at once")
    found = {(row["samples"], row["comparisons"], row["detectable_difference"]) for row in rows if row["comparisons"]}
    if len(found) == 1:
        parts.append(_power(*found.pop()))
    return "; ".join(parts)


def _power(samples: int, comparisons: int, difference: float | None) -> str:
    """What a paired comparison finds."""
    among = f" among {comparisons} comparisons" if comparisons > 1 else ""
    if difference is None:
        return f"{samples} samples find no difference{among} with 80 % power (job.flipped)"
    found = f"{100 * difference:.1f} percentage points"
    return f"{samples} samples find differences of {found}{among} (80 % power; job.flipped)"


def _cell(row: dict[str, Any], key: str, factor: float) -> str:
    value = row[key]
    text = _digits(value * factor if isinstance(value, float) else value)
    if key == "visual_tokens" and row["warnings"]:
        return f"! {text}"
    return f"{text} ({row['clips_at_once']})" if key == "peak_memory_gb" and value is not None else text


def _unit(values: Sequence[Any], unit: str) -> tuple[float, str]:
    """A factor and the unit for it: a smaller unit where all values are small."""
    largest = max((value for value in values if isinstance(value, float)), default=0.0)
    return (1000.0, SMALLER[unit]) if unit in SMALLER and largest < SMALL else (1.0, unit)


def with_unit(value: float, unit: str) -> str:
    """A number and its unit, or a smaller unit for a small number."""
    factor, unit = _unit([value], unit)
    return f"{_digits(value * factor)} {unit}"


def _digits(value: Any) -> str:
    """Three significant digits of a fraction; other values as they are."""
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
