"""job=plan: costs of points, and the differences that their samples can show, from configuration alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from videopool.planning.cost import cost_of, show_plan, write_plan
from videopool.runtime import log
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.runtime.progress import finish
from videopool.runtime.tables import size_text


def run(config: DictConfig) -> Outcome:
    """The costs of one point: a row of the multirun's table."""
    row = cost_of(config)
    if row["prefill_tflops"] is None:
        message = "the model is behind an API, so its costs are not known here"
    else:
        message = f"{row['visual_tokens']} visual tokens, {size_text(1e12 * row['prefill_tflops'], 'FLOPs')} of prefill"
    return Outcome(COMPLETE, str(row["point"]), message, row=row)


def tell(config: DictConfig, outcome: Outcome) -> None:
    """Print the table of one point."""
    show_plan([outcome.row or {}])


def sum_up(config: DictConfig, outcomes: Sequence[dict[str, Any]]) -> None:
    """Print the table of all points, and write it into the study."""
    if rows := [outcome["row"] for outcome in outcomes if outcome["row"] is not None]:
        finish()
        show_plan(rows)
        log.say(f"wrote {write_plan(rows, Path(config.results_dir) / config.study)}", result=True)
