"""What every pooling is: a map from a patch grid to visual tokens.

Shapes: grid [B, T, H, W, D] = [batch, frames, height, width, dim]; tokens [B, N, D].
"""

import math
import operator
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from videopool.errors import UserError
from videopool.pooling.tiling import equidistant, filled, image_key

THUMBNAIL = (3, 2)  # rows and columns of frames
MANY = 50  # frames, by which ways of showing some of them are told apart


class PoolingShapeError(UserError, ValueError):
    """A pooling's settings do not describe a shape."""


class PoolingContractError(UserError, TypeError):
    """A pooling does not do what it announced, or fails in its own code."""


@dataclass(frozen=True)
class PoolingContext:
    """What some poolings need beside the grid. Only what a pooling names in `needs` is filled in.

    Attributes:
        frame_times: [T] seconds of the frames, counted from the clip's first one. Clips of other times are not in one
            batch. Of an image that is tiled of frames, their mean.
        cls: [B, T, D] the tower's CLS token of each frame, at the stage of the grid.
        text: [B, D] the prompt in the space of the grid, as one vector.
        thumbnail: [B, H, W, D] the grid of one image that shows some of the frames.
    """

    frame_times: Tensor | None = None
    cls: Tensor | None = None
    text: Tensor | None = None
    thumbnail: Tensor | None = None

    def of_frames(self, frames: Sequence[int]) -> "PoolingContext":
        """The same for some of the frames, by index."""
        chosen = list(frames)
        return replace(
            self,
            frame_times=None if self.frame_times is None else self.frame_times[chosen],
            cls=None if self.cls is None else self.cls[:, chosen],
        )


class Pooling(nn.Module, ABC):
    """A map from a patch grid to visual tokens. Knows tensors only: no model, no configuration, no video."""

    needs: frozenset[str] = frozenset()  # names of PoolingContext fields
    blind: bool = False  # True: no token at all is what it means to leave, and not a size that came out as 0
    tiles: bool = False  # True: it has `tile`, uint8 frames [T, h, w, 3] to one image [1, h', w', 3] before the tower
    dim: int | None = None  # the one D that it takes; None: any
    limits: tuple[float, ...] = ()  # settings that not every grid shows, as a threshold that no token reaches

    @abstractmethod
    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        """[B, T, H, W, D] -> [B, N, D]."""

    @abstractmethod
    def num_tokens(self, frames: int, height: int, width: int) -> int:
        """N for a grid of this size, without running."""

    def shown(self, frames: int) -> list[int]:
        """Which of so many frames are in the thumbnail of one that needs it, by index: six, as TS-LLaVA has them."""
        return equidistant(THUMBNAIL[0] * THUMBNAIL[1], frames)

    def thumbnail(self, frames: np.ndarray) -> np.ndarray:
        """The frames that are shown, uint8 [n, h, w, 3], as one image [1, h', w', 3]."""
        return filled(frames, *THUMBNAIL)

    @property
    def label(self) -> str:
        """Short name for tables, legends and folder names."""
        return type(self).__name__.lower()

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        """What the map really does to a grid of this size, for the record."""
        return {}


class GridPooling(Pooling):
    """A pooling whose result is again a grid; tokens are its cells, frame after frame, row after row."""

    @abstractmethod
    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        """[B, T, H, W, D] -> [B, T', H', W', D]."""

    @abstractmethod
    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """(T', H', W') for a grid of this size."""

    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        return self.pool(grid, context).flatten(1, 3)

    def num_tokens(self, frames: int, height: int, width: int) -> int:
        out_frames, out_height, out_width = self.out_shape(frames, height, width)
        return out_frames * out_height * out_width


def positive(key: str, value: object) -> int:
    """The value, if it is a positive integer. Raises PoolingShapeError naming the key."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PoolingShapeError(f"pooling.{key} must be a positive integer, got {value!r}")
    return value


def number(key: str, value: object, low: float, high: float = math.inf, above: bool = False) -> float:
    """The value, if it is a finite number of at least low (above: more than low) and at most high.

    Raises PoolingShapeError naming the key.
    """
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not low <= value <= high or (above and value == low):  # type: ignore[operator]
        limits = f"{'more than' if above else 'at least'} {low:g}" + (
            f" and at most {high:g}" if high < math.inf else ""
        )
        raise PoolingShapeError(f"pooling.{key} must be a number of {limits}, got {value!r}")
    return float(value)  # type: ignore[arg-type]


def whole(key: str, value: object) -> int:
    """The value, if it is an integer of at least 0, as a seed is. Raises PoolingShapeError naming the key."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise PoolingShapeError(f"pooling.{key} must be an integer of at least 0, got {value!r}")
    return value


def one_of(key: str, value: str, options: Sequence[str]) -> str:
    """The value, if it is one of the options. Raises PoolingShapeError naming the key."""
    if value not in options:
        raise PoolingShapeError(f"pooling.{key}={value!r}: choose one of {', '.join(options)}")
    return value


def grid_to_grid(key: str, value: object) -> GridPooling:
    """The value, if it is a grid pooling. Raises PoolingContractError naming the key."""
    if not isinstance(value, GridPooling):
        raise PoolingContractError(f"pooling.{key}: {type(value).__name__} does not map a grid to a grid")
    return value


def untiled(key: str, pooling: Pooling, why: str) -> None:
    """Raises PoolingContractError naming the key where a pooling tiles and may not."""
    if pooling.tiles:
        raise PoolingContractError(f"pooling.{key}: {type(pooling).__name__} tiles frames into one image, {why}")


def precise(values: Tensor) -> Tensor:
    """Half precision as float32, all else as it is: what norms and weights are computed in."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


class Chain(GridPooling):
    """Grid poolings one after another.

    Args:
        steps: at least one grid pooling. Only the first may tile: that is done before the tower.

    Raises:
        PoolingShapeError: steps is no list, or an empty one.
        PoolingContractError: a step is no grid pooling, or a later one tiles.
    """

    def __init__(self, steps: Sequence[GridPooling]) -> None:
        super().__init__()
        if isinstance(steps, str) or not isinstance(steps, Sequence) or not steps:
            raise PoolingShapeError(f"pooling.steps must be a list of at least one pooling, got {steps!r}")
        self.chain: Sequence[GridPooling] = nn.ModuleList(  # type: ignore[assignment]
            grid_to_grid("steps", step) for step in steps
        )
        self.needs = frozenset().union(*(step.needs for step in steps))
        self.tiles = steps[0].tiles
        for step in steps[1:]:
            untiled("steps", step, "which is done before the tower, so it must be the first step")

    def tile(self, frames: np.ndarray) -> np.ndarray:
        """What the first step makes of a clip's frames, where it tiles."""
        return tiled_by(self.chain[0], frames)

    def pool(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        for step in self.chain:
            grid = step.pool(grid, context)
        return grid

    def out_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        shape = (frames, height, width)
        for step in self.chain:
            shape = step.out_shape(*shape)
        return shape

    @property
    def label(self) -> str:
        return " + ".join(step.label for step in self.chain)

    def windows(self, frames: int, height: int, width: int) -> dict[str, object]:
        shape, parts = (frames, height, width), []
        for step in self.chain:
            parts.append({"step": step.label, **step.windows(*shape)})
            shape = step.out_shape(*shape)
        return {"steps": parts}


def class_name(pooling: Pooling) -> str:
    """As errors name it: the module and the class."""
    return f"{type(pooling).__module__}.{type(pooling).__qualname__}"


@contextmanager
def blamed(pooling: Pooling, doing: str) -> Iterator[None]:
    """What a pooling's own code raises as one line that names its class and where in its file that was.

    Errors of settings and of the contract, and a lack of memory, pass as they are.

    Raises:
        PoolingContractError: anything else was raised.
    """
    try:
        yield
    except (PoolingShapeError, PoolingContractError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        file = getattr(sys.modules.get(type(pooling).__module__), "__file__", None)
        lines = [step.lineno for step in traceback.extract_tb(error.__traceback__) if step.filename == file]
        place = f" ({file}, line {lines[-1]})" if lines else ""
        said = " ".join(str(error).split())
        raise PoolingContractError(
            f"{class_name(pooling)} failed in {doing}{place}: {type(error).__name__}: {said}"
        ) from error


def tiled_by(pooling: Pooling, frames: np.ndarray) -> np.ndarray:
    """A clip's frames, uint8 [T, h, w, 3], as the one image [1, h', w', 3] that a pooling tiles of them.

    Raises:
        PoolingContractError: it has no `tile`, or that makes something else, or fails; names the class.
    """
    with blamed(pooling, "tile"):
        image = pooling.tile(frames)  # type: ignore[operator]
    return _one_image(pooling, "tile", image)


def thumbnail_by(pooling: Pooling, frames: np.ndarray) -> np.ndarray:
    """As tiled_by(), of the frames that the thumbnail shows."""
    with blamed(pooling, "thumbnail"):
        image = pooling.thumbnail(frames)
    return _one_image(pooling, "thumbnail", image)


def _one_image(pooling: Pooling, method: str, image: Any) -> np.ndarray:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != (1, *image.shape[1:3], 3):
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise PoolingContractError(
            f"{class_name(pooling)}: {method} must make one image, uint8 [1, height, width, 3], got {got}"
        )
    return image


def thumbnail_of(pooling: Pooling) -> Pooling:
    """The pooling that says how a clip's thumbnail is made: the one inside it with a way of its own, else itself.

    Raises:
        PoolingContractError: there are two ways, and they make different thumbnails.
    """
    own = [part for part in pooling.modules() if isinstance(part, Pooling) and _has_thumbnail(part)]
    if len(own) > 1 and len({_thumbnail_key(part, MANY) for part in own}) > 1:
        raise PoolingContractError(
            f"pooling {pooling.label}: parts of it need different thumbnails, and a clip has one"
        )
    return own[0] if own else pooling


def _has_thumbnail(pooling: Pooling) -> bool:
    kind = type(pooling)
    own = kind.thumbnail is not Pooling.thumbnail or kind.shown is not Pooling.shown
    return "thumbnail" in pooling.needs and own


def _thumbnail_key(pooling: Pooling, frames: int) -> str:
    with blamed(pooling, "shown"):
        shown = [operator.index(place) for place in pooling.shown(frames)]
    if not shown or not all(0 <= place < frames for place in shown):
        raise PoolingContractError(f"{class_name(pooling)}: shown({frames}) must name some of the frames, got {shown}")
    return image_key(partial(thumbnail_by, pooling), len(shown))


def image_keys(pooling: Pooling, frames: int, still: bool = False) -> tuple[str | None, str | None]:
    """What poolings share that make the same of so many frames before the tower: of the tiled image, and the thumbnail.

    None where there is no such image. Where clips are still images, nothing is tiled.
    """
    tile = image_key(partial(tiled_by, pooling), frames) if pooling.tiles and not still else None
    return tile, _thumbnail_key(thumbnail_of(pooling), frames) if "thumbnail" in pooling.needs else None


def grid_frames(pooling: Pooling, frames: int) -> int:
    """How many frames the grid of a clip has: one where they are tiled into an image."""
    return 1 if pooling.tiles else frames


def announced(pooling: Pooling, frames: int, height: int, width: int) -> int:
    """The pooling's num_tokens, held to be a number of tokens.

    Raises:
        PoolingContractError: it is no positive integer, nor 0 of a blind one, or computing it fails; names the class.
    """
    with blamed(pooling, "num_tokens"):
        count = pooling.num_tokens(frames, height, width)
    try:
        whole_count = operator.index(count)
    except TypeError:
        whole_count = -1
    if whole_count < (0 if pooling.blind else 1):
        raise PoolingContractError(
            f"{class_name(pooling)}: num_tokens({frames}, {height}, {width}) must be a positive integer, got {count!r}"
        )
    return whole_count


def checked(pooling: Pooling, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
    """Run a pooling and hold it to its contract. Tokens of another floating-point type become the grid's.

    Raises:
        PoolingContractError: the result is not [B, num_tokens, D] of floating-point numbers on the grid's device, or
            the pooling's own code fails; names the class.
    """
    batch, frames, height, width, dim = grid.shape
    wanted = (batch, announced(pooling, frames, height, width), dim)
    with blamed(pooling, "forward"):
        tokens = pooling(grid, context)
    what = f"{class_name(pooling)} returned"
    got = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
    if got != wanted:
        raise PoolingContractError(f"{what} {got} for a grid {tuple(grid.shape)}; its num_tokens announces {wanted}")
    if not tokens.is_floating_point() or tokens.device != grid.device:
        raise PoolingContractError(
            f"{what} {tokens.dtype} on {tokens.device} for a grid of {grid.dtype} on {grid.device}; tokens must be "
            "floating-point numbers on the grid's device"
        )
    return tokens.to(grid.dtype)


def random_context(
    needs: frozenset[str], frames: int, height: int, width: int, dim: int, dtype: torch.dtype = torch.float64
) -> PoolingContext:
    """A fixed random context for one clip of this size, with the fields that are needed.

    Raises:
        PoolingContractError: a need is no field of PoolingContext.
    """
    generator = torch.Generator().manual_seed(1)
    fields = {
        "frame_times": torch.rand(frames, generator=generator, dtype=torch.float64).cumsum(0),
        "cls": torch.rand(1, frames, dim, generator=generator, dtype=torch.float64) + 0.5,
        "text": torch.rand(1, dim, generator=generator, dtype=torch.float64) - 0.5,
        "thumbnail": torch.rand(1, height, width, dim, generator=generator, dtype=torch.float64) + 0.5,
    }
    unknown = needs - fields.keys()
    if unknown:
        raise PoolingContractError(f"needs names {', '.join(sorted(unknown))}; there are {', '.join(fields)}")
    return PoolingContext(**{name: fields[name].to(dtype) for name in needs})


def map_signature(pooling: Pooling, frames: int, height: int, width: int) -> list[float]:
    """Numbers that two poolings share if they are the same map on grids of this size.

    The map of one fixed random grid, weighted by fixed random numbers that depend on each token's place, rounded to
    nine significant digits. Equal maps agree; different ones practically never do. Computed in float64, or in the
    precision of the pooling's parameters. `limits` follow, also those of poolings inside of it, and what is made of
    frames before the tower; of a pooling with a dim of its own, three features count.
    """
    generator = torch.Generator().manual_seed(0)
    with blamed(pooling, "parameters"):
        kinds = [weights.dtype for weights in pooling.parameters() if weights.is_floating_point()]
    dtype = next(iter(kinds), torch.float64)  # with parameters: what it computes in
    images = [float(int(key[:12], 16)) for key in image_keys(pooling, frames) if key is not None]
    frames = grid_frames(pooling, frames)
    size = (frames, height, width, pooling.dim or 3)
    grid = (torch.rand(1, *size, generator=generator, dtype=torch.float64) + 0.5).to(dtype)
    with torch.no_grad():
        tokens = checked(pooling, grid, random_context(pooling.needs, *size, dtype=dtype))[0]
    weights = torch.rand(tokens.shape[0], 1, generator=generator, dtype=torch.float64)
    count = announced(pooling, frames, height, width)
    sums = (tokens[:, :3].double() * weights).sum(0).tolist()
    limits = [limit for part in pooling.modules() if isinstance(part, Pooling) for limit in part.limits]
    return [float(count), *(float(f"{value:.9g}") for value in sums), *limits, *images]
