"""job=plan: what points would cost, and what their samples could show, from configuration alone."""

from omegaconf import DictConfig

from videopool.planning.cost import cost_of
from videopool.planning.table import with_unit
from videopool.runtime.outcome import COMPLETE, Outcome


def plan(config: DictConfig) -> Outcome:
    """What one point would cost; its row goes into the table of the run."""
    row = cost_of(config)
    if row["prefill_tflops"] is None:
        told = "the model is behind an API, so its costs are not known here"
    else:
        told = f"{row['visual_tokens']} visual tokens, {with_unit(row['prefill_tflops'], 'TFLOPs')} of prefill"
    return Outcome(COMPLETE, str(row["point"]), told, row=row)
