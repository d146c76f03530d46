"""Norms in a W&B run: numbers by stage, and histograms."""

from pathlib import Path
from typing import Any

import numpy as np

from videopool.norms import load_norms
from videopool.norms.outliers import GAP
from videopool.tracking.run import telling

MOST_BINS = 512  # limit of W&B
LOGGED = ("mean", "std", "max", "max_over_median", "excess_kurtosis", "gini", "neighbour_cosine")


def log_norms(run: Any, folder: Path) -> None:
    """Log the norms of a point's folder."""
    with telling("log the norms"):
        import wandb

        saved = load_norms(folder)
        content: dict[str, Any] = {}
        for name, stage in saved.numbers["stages"].items():
            numbers = {key: stage[key] for key in LOGGED} | {"median": stage["quantiles"]["0.5"]}
            numbers |= {f"outliers.{rule}": counted["share"] for rule, counted in stage["outliers"].items()}
            numbers[GAP] = stage[GAP]["share"]
            content |= {f"{name}/{key}": value for key, value in numbers.items() if value is not None}
            counts, edges = narrowed(saved.arrays[name]["histogram.counts"], saved.arrays[name]["histogram.edges"])
            if counts.size:
                content[f"{name}/norms"] = wandb.Histogram(np_histogram=(counts, edges))
        run.log(content)


def narrowed(counts: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A histogram without its empty ends; neighbouring bins are merged down to at most MOST_BINS."""
    filled = np.flatnonzero(counts)
    if not filled.size:
        return counts[:0], edges[:0]
    first, width = filled[0], filled[-1] - filled[0] + 1
    merged = -(-width // MOST_BINS)
    last = min(len(counts), first + -(-width // merged) * merged)
    starts = np.arange(first, last, merged)
    return np.add.reduceat(counts[:last], starts), np.append(edges[starts], edges[last])
