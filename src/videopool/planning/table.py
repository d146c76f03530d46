"""The table of a plan: plan.csv, and the terminal's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from videopool.files import write_text
from videopool.planning.cost import with_power
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
    """Write plan.csv of a multirun. Returns its name. Raises ResultsError if the folder cannot be written."""
    table = pd.DataFrame([{**row, "warnings": "; ".join(row["warnings"])} for row in with_power(rows)])
    with writing(study):
        study.mkdir(parents=True, exist_ok=True)
        return write_text(study / "plan.csv", spreadsheet(table.drop(columns="design")))


def show_plan(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table of a run's points, then their warnings."""
    screen = console()
    screen.print(plan_table(rows))
    for row in rows:
        for text in row["warnings"]:
            screen.print(f"warning: {row['point']}: {text}", highlight=False, soft_wrap=True)


def plan_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Points and their costs for the terminal; the caption has what all points share."""
    rows = with_power(rows)
    fixed = {key for key in ("model", "stage", "weights_gb") if len({row[key] for row in rows}) == 1}
    table = Table(title="plan")
    factors = {}
    for key, heading, unit in COLUMNS:
        if key not in fixed:
            factors[key], unit = _unit([row[key] for row in rows], unit)
            text = key in ("model", "pooling", "stage")
            table.add_column(heading.format(unit), justify="left" if text else "right", no_wrap=key == "model")
    for row in rows:
        cells = [plain(_cell(row, key, factor)) for key, factor in factors.items()]
        table.add_row(*cells, style="yellow" if row["warnings"] else None)
    table.caption = plain("; ".join(_shared(rows, fixed)), "table.caption")
    return table


def _shared(rows: Sequence[dict[str, Any]], fixed: set[str]) -> list[str]:
    """What all points of a plan share."""
    first, parts = rows[0], []
    if "model" in fixed and first["context"] is None:
        parts.append(f"{first['model']}: behind an API")
    elif "model" in fixed:
        weights = f", weights {with_unit(first['weights_gb'], 'GB')} in {first['dtype']}"
        parts.append(f"{first['model']}: context {first['context']}{weights if 'weights_gb' in fixed else ''}")
    if "stage" in fixed:
        parts.append(f"pooling at the {first['stage']}")
    counts = {row["clips"] for row in rows}
    if counts == {None}:
        parts.append("number of clips unknown: job.clips=...")
    elif len(counts) == 1:
        parts.append(f"features of {first['clips']} clips")
    parts.append("peak: an estimate, with (clips) read at once")
    powers = {_power(row) for row in rows if row["design"] is not None}
    return [*parts, *powers] if len(powers) == 1 else parts


def _power(row: dict[str, Any]) -> str:
    """The power of a paired comparison."""
    among = f" among {row['comparisons']} comparisons" if row["comparisons"] > 1 else ""
    basis = f"with {row['samples']} samples{among} (80 % power, assuming job.flipped={row['design']['flipped']:g})"
    if row["detectable_difference"] is None:
        return f"no difference is detectable {basis}"
    return f"smallest detectable difference: {100 * row['detectable_difference']:.1f} points {basis}"


def _cell(row: dict[str, Any], key: str, factor: float) -> str:
    value = row[key]
    text = _digits(value * factor if isinstance(value, float) else value)
    if key == "visual_tokens" and row["warnings"]:
        return f"! {text}"
    return f"{text} ({row['clips_at_once']})" if key == "peak_memory_gb" and value is not None else text


def _unit(values: Sequence[Any], unit: str) -> tuple[float, str]:
    """A factor and its unit: a smaller unit if all values are small."""
    largest = max((value for value in values if isinstance(value, float)), default=0.0)
    return (1000.0, SMALLER[unit]) if unit in SMALLER and largest < SMALL else (1.0, unit)


def with_unit(value: float, unit: str) -> str:
    """A number and its unit, or a smaller unit for a small number."""
    factor, unit = _unit([value], unit)
    return f"{_digits(value * factor)} {unit}"


def _digits(value: Any) -> str:
    """Three significant digits of a fraction; other values as they are."""
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return "-" if value is None else str(value)
