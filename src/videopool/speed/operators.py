"""Poolings alone: how fast they read a grid, beside a plain copy of it."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from videopool.pooling import Pooling, PoolingContext
from videopool.pooling.contract import random_context
from videopool.speed.timing import interleaved, medians, timed

COPY = "copy"
SLOW = 2.0  # seconds; what takes longer is run once


def context_for(pooling: Pooling, grid: Tensor) -> PoolingContext:
    """A random context with what a pooling needs, in the grid's dtype and on its device."""
    made = random_context(pooling.needs, *grid.shape[1:])
    values = {field.name: getattr(made, field.name) for field in fields(made)}
    floats = {name: value for name, value in values.items() if isinstance(value, Tensor) and value.is_floating_point()}
    cast = {name: value.to(grid) for name, value in floats.items()}
    return replace(made, **cast)


def bandwidths(poolings: Mapping[str, Pooling], grid: Tensor, rounds: int) -> list[dict[str, Any]]:
    """Rates of each pooling's forward pass and of a copy of the grid (`clone`), which is the first row.

    Medians of so many rounds, in turns; a pooling that takes more than SLOW seconds runs once. Bytes are those that
    must move: the grid read once and the result written once, so the copy moves twice the grid. Tokens are the
    grid's. A pooling that does not take this grid has an `error` instead of rates.

    Returns:
        Rows with name, seconds, gb_per_second (1e9 bytes), tokens_per_second, visual_tokens and, against the
        copy, slower_than_copy: its GB/s over the pooling's.
    """
    works: dict[str, Any] = {COPY: grid.clone}
    written: dict[str, int] = {COPY: grid.numel()}
    failed: dict[str, str] = {}
    slow: dict[str, float] = {}
    cells = grid.shape[0] * grid.shape[1] * grid.shape[2] * grid.shape[3]
    tokens: dict[str, int] = {COPY: cells}
    with torch.inference_mode():
        for name, pooling in poolings.items():
            context = context_for(pooling, grid)
            try:
                spent, made = timed(_call(pooling.to(grid), grid, context))
            except (ValueError, TypeError, RuntimeError) as error:
                failed[name] = str(error).splitlines()[0]
                continue
            # A view of the grid writes nothing, and has no speed of its own.
            if made.data_ptr() == grid.data_ptr():
                failed[name] = "a view of the grid: nothing to do"
                continue
            written[name], tokens[name] = made.numel(), made.shape[0] * made.shape[1]
            if spent > SLOW:
                slow[name] = spent
            else:
                works[name] = _call(pooling, grid, context)
            del made
        seconds = medians(interleaved(works, rounds)) | slow
    rows: list[dict[str, Any]] = []
    for name, spent in seconds.items():
        rate = (grid.numel() + written[name]) * grid.element_size() / spent / 1e9
        rows.append(
            {
                "name": name,
                "seconds": spent,
                "gb_per_second": rate,
                "tokens_per_second": cells / spent,
                "visual_tokens": tokens[name],
                "slower_than_copy": rows[0]["gb_per_second"] / rate if rows else 1.0,
            }
        )
    return rows + [{"name": name, "error": error} for name, error in failed.items()]


def _call(pooling: Pooling, grid: Tensor, context: PoolingContext) -> Any:
    return lambda: pooling(grid, context)
