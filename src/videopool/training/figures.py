"""The figures of a training run's end: its metrics."""

from pathlib import Path
from typing import Any

from videopool.files import json_lines, write_text
from videopool.notes import note
from videopool.results.manifest import now, peak_memory_bytes
from videopool.results.point import read_training_log
from videopool.training.batches import Encoder, Schedule
from videopool.training.checkpoints import Checkpoints, Progress
from videopool.training.export import LEFT_OUT
from videopool.training.point import LISTED, TrainingPoint


def nothing(encoder: Encoder, progress: Progress) -> str:
    """Why no token was learned."""
    why = [*progress.failures.values(), *encoder.refused.values()]
    return f"no example could be used, as {why[0]}" if why else "no example has a token to learn"


def training_figures(
    point: TrainingPoint,
    folder: Path,
    progress: Progress,
    checkpoints: Checkpoints,
    encoder: Encoder,
    schedule: Schedule,
    first: int,
    elapsed: float,
) -> dict[str, Any]:
    """What metrics.json says; the entries that were left out go to a file of their own."""
    rows = read_training_log(folder)
    held_out = [row for row in rows if "validation_loss" in row]
    steps = [row for row in rows if "loss" in row]
    refused = [line for source in point.sources for line in source.refused] + sorted(encoder.refused.values())
    left_out = [("refused", line) for line in refused]
    left_out += [("unreadable", line) for line in sorted(progress.failures.values())]
    write_text(folder / LEFT_OUT, json_lines({"kind": kind, "why": line} for kind, line in left_out))
    best = checkpoints.best()
    for line in sorted(encoder.refused.values())[:LISTED]:
        note(f"left out: {line}")
    if encoder.cut:
        note(f"{len(encoder.cut)} conversations were cut at their end")
    return {
        "steps": progress.step,
        "loss": progress.ema,
        "first_loss": steps[0]["loss"],
        "validation_loss": held_out[-1]["validation_loss"] if held_out else None,
        "best_validation_loss": best and best[1],
        "best_step": best and best[0],
        "examples": progress.step * schedule.batch,
        "labelled_tokens": progress.tokens,
        "n_refused": len(refused),
        "n_unreadable": len(progress.failures),
        "n_cut": len(encoder.cut),
        "seconds": {kind: round(spent, 3) for kind, spent in progress.seconds.items()},
        **progress.frames,
        "elapsed_seconds": elapsed,  # of this attempt
        "seconds_per_step": elapsed / max(1, schedule.steps - first),
        "peak_memory_bytes": peak_memory_bytes(),
        "finished": now(),
    }
