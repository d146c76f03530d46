"""job=plan: what points would cost, and what their samples could show, from configuration alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from videopool.planning.cost import cost_of
from videopool.planning.table import show_plan, with_unit, write_plan
from videopool.runtime.outcome import COMPLETE, Outcome


def run(config: DictConfig) -> Outcome:
    """What one point would cost; its row goes into the table of the run."""
    row = cost_of(config)
    if row["prefill_tflops"] is None:
        told = "the model is behind an API, so its costs are not known here"
    else:
        told = f"{row['visual_tokens']} visual tokens, {with_unit(row['prefill_tflops'], 'TFLOPs')} of prefill"
    return Outcome(COMPLETE, str(row["point"]), told, row=row)


def tell(config: DictConfig, outcome: Outcome) -> None:
    """Print the table of one point."""
    assert outcome.row is not None
    show_plan([outcome.row])


def sum_up(config: DictConfig, outcomes: Sequence[dict[str, Any]]) -> None:
    """Print the table of all points, and write it into the study."""
    if rows := [outcome["row"] for outcome in outcomes if outcome["row"] is not None]:
        show_plan(rows)
        print(f"wrote {write_plan(rows, Path(config.results_dir) / config.study)}")
