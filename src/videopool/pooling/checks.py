"""Validators of settings. Each returns the value, or raises an error that names the key."""

import math
from collections.abc import Sequence

from torch import Tensor

from videopool.pooling.base import GridPooling, Pooling, PoolingContext, PoolingContractError, PoolingShapeError


def positive(key: str, value: object) -> int:
    """A positive integer. Raises PoolingShapeError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PoolingShapeError(f"pooling.{key} must be a positive integer, got {value!r}")
    return value


def whole(key: str, value: object) -> int:
    """An integer of at least 0, such as a seed. Raises PoolingShapeError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise PoolingShapeError(f"pooling.{key} must be an integer of at least 0, got {value!r}")
    return value


def number(key: str, value: object, low: float, high: float = math.inf, above: bool = False) -> float:
    """A finite number of at least low (above: more than low) and at most high. Raises PoolingShapeError."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not low <= value <= high or (above and value == low):  # type: ignore[operator]
        limits = f"{'more than' if above else 'at least'} {low:g}"
        limits += f" and at most {high:g}" if high < math.inf else ""
        raise PoolingShapeError(f"pooling.{key} must be a number of {limits}, got {value!r}")
    return float(value)  # type: ignore[arg-type]


def above_zero(key: str, value: object) -> float:
    """A number above 0, infinite for None, such as the temperature of a softmax. Raises PoolingShapeError."""
    return math.inf if value is None else number(key, value, 0, above=True)


def flag(key: str, value: object) -> bool:
    """True or false. Raises PoolingShapeError."""
    if not isinstance(value, bool):
        raise PoolingShapeError(f"pooling.{key} must be true or false, got {value!r}")
    return value


def one_of(key: str, value: str, options: Sequence[str]) -> str:
    """One of the options. Raises PoolingShapeError."""
    if value not in options:
        raise PoolingShapeError(f"pooling.{key}={value!r}: choose one of {', '.join(options)}")
    return value


def listed(key: str, value: object, content: str) -> Sequence:
    """A list that is not empty. Raises PoolingShapeError."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise PoolingShapeError(f"pooling.{key} must be a list of {content}, got {value!r}")
    return value


def grid_to_grid(key: str, value: object) -> GridPooling:
    """A grid pooling. Raises PoolingContractError."""
    if not isinstance(value, GridPooling):
        raise PoolingContractError(f"pooling.{key}: {type(value).__name__} does not map a grid to a grid")
    return value


def untiled(key: str, value: object, why: str) -> GridPooling:
    """A grid pooling that does not tile. Raises PoolingContractError."""
    pooling = grid_to_grid(key, value)
    if pooling.tiles:
        raise PoolingContractError(f"pooling.{key}: {type(pooling).__name__} tiles frames into one image, {why}")
    return pooling


def needed(
    pooling: Pooling, context: PoolingContext | None, field: str, shape: tuple[int, ...], hint: str = ""
) -> Tensor:
    """A field of the context with the shape that the grid requires. Raises PoolingContractError."""
    values = getattr(context, field, None)
    if values is None or values.shape != shape:
        got = f"{'none' if values is None else f'one of {tuple(values.shape)}'}{hint}"
        raise PoolingContractError(f"{type(pooling).__name__} needs {field} of {shape} beside its grid, got {got}")
    return values
