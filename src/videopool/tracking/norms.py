"""Norms in a W&B run: numbers by stage, and histograms."""

from pathlib import Path
from typing import Any

import numpy as np

from videopool.norms import SavedNorms, load_norms
from videopool.norms.outliers import GAP
from videopool.tracking.run import telling

MOST_BINS = 512  # that W&B takes
LOGGED = ("mean", "std", "max", "max_over_median", "excess_kurtosis", "gini", "neighbour_cosine")


def log_norms(run: Any, folder: Path) -> None:
    """Log what a point measured."""
    with telling("log the norms"):
        run.log(logged(load_norms(folder)))


def logged(saved: SavedNorms) -> dict[str, Any]:
    """Numbers and histograms by stage."""
    import wandb

    content: dict[str, Any] = {}
    for name, stage in saved.numbers["stages"].items():
        told = {key: stage[key] for key in LOGGED} | {"median": stage["quantiles"]["0.5"]}
        told |= {f"outliers.{rule}": found["share"] for rule, found in stage["outliers"].items()}
        told[GAP] = stage[GAP]["share"]
        content |= {f"{name}/{key}": value for key, value in told.items() if value is not None}
        counts, edges = narrowed(saved.arrays[name]["histogram.counts"], saved.arrays[name]["histogram.edges"])
        if counts.size:
            content[f"{name}/norms"] = wandb.Histogram(np_histogram=(counts, edges))
    return content


def narrowed(counts: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A histogram without its empty ends, in at most MOST_BINS bins, neighbours put together."""
    seen = np.flatnonzero(counts)
    if not seen.size:
        return counts[:0], edges[:0]
    together = -(-(seen[-1] - seen[0] + 1) // MOST_BINS)
    last = min(len(counts), seen[0] + -(-(seen[-1] - seen[0] + 1) // together) * together)
    starts = np.arange(seen[0], last, together)
    return np.add.reduceat(counts[:last], starts), np.append(edges[starts], edges[last])
