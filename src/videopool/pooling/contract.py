"""Runs a pooling's code and holds it to the contract of its class; tells equal poolings by a signature."""

import hashlib
import operator
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from videopool.errors import out_of_memory
from videopool.pooling.base import Pooling, PoolingContext, PoolingContractError, PoolingShapeError

MANY = 50  # frames, enough to tell thumbnails apart
TOWER = {"saliency", "keys", "frame_vectors"}  # fields of PoolingContext that one block of the tower gives


def class_name(pooling: object) -> str:
    """Module and class, as errors name them."""
    return f"{type(pooling).__module__}.{type(pooling).__qualname__}"


@contextmanager
def blamed(pooling: Pooling, method: str) -> Iterator[None]:
    """Turn an error of a pooling's own code into one line with its class, and the line of its file.

    Settings errors, contract errors and lack of memory pass unchanged. Raises PoolingContractError for any other.
    """
    try:
        yield
    except (PoolingShapeError, PoolingContractError):
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        file = getattr(sys.modules.get(type(pooling).__module__), "__file__", None)
        lines = [step.lineno for step in traceback.extract_tb(error.__traceback__) if step.filename == file]
        place = f" ({file}, line {lines[-1]})" if lines else ""
        raise PoolingContractError(
            f"{class_name(pooling)} failed in {method}{place}: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error


def tiled_by(pooling: Pooling, frames: np.ndarray) -> np.ndarray:
    """A clip's frames, uint8 [T, h, w, 3], as the image [1, h', w', 3] that a pooling tiles of them.

    Raises PoolingContractError if `tile` is missing, fails, or returns anything else.
    """
    return _image(pooling, "tile", frames)


def thumbnail_by(pooling: Pooling, frames: np.ndarray) -> np.ndarray:
    """The shown frames, uint8 [n, h, w, 3], as the thumbnail [1, h', w', 3] of a pooling. Raises as tiled_by()."""
    return _image(pooling, "thumbnail", frames)


def _image(pooling: Pooling, method: str, frames: np.ndarray) -> np.ndarray:
    with blamed(pooling, method):
        image = getattr(pooling, method)(frames)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != (1, *image.shape[1:3], 3):
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise PoolingContractError(
            f"{class_name(pooling)}: {method} must make one image, uint8 [1, height, width, 3], got {got}"
        )
    return image


def thumbnail_of(pooling: Pooling) -> Pooling:
    """The part of a pooling that defines the thumbnail: the one with a thumbnail of its own, else the pooling itself.

    Raises PoolingContractError if two parts define different thumbnails.
    """
    parts = [part for part in pooling.modules() if isinstance(part, Pooling) and "thumbnail" in part.needs]
    own = [p for p in parts if (type(p).thumbnail, type(p).shown) != (Pooling.thumbnail, Pooling.shown)]
    if len(own) > 1 and len({_thumbnail_key(part, MANY) for part in own}) > 1:
        raise PoolingContractError(
            f"pooling {pooling.label}: parts of it need different thumbnails, and a clip has one"
        )
    return own[0] if own else pooling


def _thumbnail_key(pooling: Pooling, frames: int) -> str:
    with blamed(pooling, "shown"):
        shown = [operator.index(place) for place in pooling.shown(frames)]
    if not shown or not all(0 <= place < frames for place in shown):
        raise PoolingContractError(f"{class_name(pooling)}: shown({frames}) must name some of the frames, got {shown}")
    return _image_key(partial(thumbnail_by, pooling), len(shown))


def _image_key(make: Callable[[np.ndarray], np.ndarray], count: int) -> str:
    """16 hexadecimal digits that equal ways of making an image of so many frames share."""
    image = make(np.random.default_rng(0).integers(0, 256, (count, 24, 32, 3), dtype=np.uint8))
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()[:16]


def image_keys(pooling: Pooling, frames: int, still: bool = False) -> tuple[str | None, str | None]:
    """Keys of the tiled image and of the thumbnail, shared by poolings that make equal images of so many frames.

    None where a pooling makes no such image. Still images are not tiled.
    """
    tile = _image_key(partial(tiled_by, pooling), frames) if pooling.tiles and not still else None
    return tile, _thumbnail_key(thumbnail_of(pooling), frames) if "thumbnail" in pooling.needs else None


def grid_frames(pooling: Pooling, frames: int) -> int:
    """Frames of a clip's grid: 1 for a pooling that tiles them into an image."""
    return 1 if pooling.tiles else frames


def announced(pooling: Pooling, frames: int, height: int, width: int) -> int:
    """The pooling's num_tokens.

    Raises PoolingContractError if it fails, or is no positive integer (0 for a blind pooling).
    """
    with blamed(pooling, "num_tokens"):
        count: Any = pooling.num_tokens(frames, height, width)
    try:
        tokens = operator.index(count)
    except TypeError:
        tokens = -1
    if tokens < (0 if pooling.blind else 1):
        raise PoolingContractError(
            f"{class_name(pooling)}: num_tokens({frames}, {height}, {width}) must be a positive integer, got {count!r}"
        )
    return tokens


def checked(pooling: Pooling, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
    """Run a pooling: grid [B, T, H, W, D] to tokens [B, num_tokens, D] in the grid's dtype.

    Of a pooling that varies there may be fewer tokens.

    Raises PoolingContractError, naming the class, if its code fails, or the tokens have another shape, another device
    or no floating-point dtype.
    """
    batch, frames, height, width, dim = grid.shape
    wanted = (batch, announced(pooling, frames, height, width), dim)
    with blamed(pooling, "forward"):
        tokens = pooling(grid, context)
    start = f"{class_name(pooling)} returned"
    got = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
    if pooling.varies and isinstance(tokens, Tensor) and tokens.dim() == 3 and 0 < tokens.shape[1] <= wanted[1]:
        wanted = (batch, tokens.shape[1], dim)
    if got != wanted:
        raise PoolingContractError(f"{start} {got} for a grid {tuple(grid.shape)}; its num_tokens announces {wanted}")
    if not tokens.is_floating_point() or tokens.device != grid.device:
        raise PoolingContractError(
            f"{start} {tokens.dtype} on {tokens.device} for a grid of {grid.dtype} on {grid.device}; tokens must be "
            "floating-point numbers on the grid's device"
        )
    return tokens.to(grid.dtype)


def places_by(
    pooling: Pooling,
    grid: Tensor,
    context: PoolingContext | None = None,
    asked: str = "positions=original",
    advice: str = "say positions=contiguous",
) -> Tensor:
    """Where the tokens of a pooling came from: a grid [B, T, H, W, D] to flat places [B, N] in 0..T * H * W - 1.

    Errors name the setting that asks for them, with an advice. Raises PoolingContractError if tokens have no places, or
    `token_places` fails or returns anything else.
    """
    with blamed(pooling, "token_places"):
        places = pooling.token_places(grid, context)
    if places is None or (places.dim() == 2 and bool((places < 0).any())):
        why = "a CLS token is among them" if places is not None else "each is made of many patches, or of none"
        raise PoolingContractError(
            f"{asked}: tokens of pooling {pooling.label} have no places in the grid ({why}); {advice}, or take a "
            "compression, subsample, none or blind"
        )
    count, most = announced(pooling, *grid.shape[1:4]), grid[0, ..., 0].numel()
    fits = places.shape == (len(grid), count) or (pooling.varies and places.shape == (1, min(count, len(places[0]))))
    if not fits or places.is_floating_point() or bool((places >= most).any()):
        raise PoolingContractError(
            f"{class_name(pooling)}: token_places must be whole numbers below {most}, {(len(grid), count)} of them, "
            f"got {places.dtype} {tuple(places.shape)}"
        )
    return places


def random_context(
    needs: frozenset[str], frames: int, height: int, width: int, dim: int, dtype: torch.dtype = torch.float64
) -> PoolingContext:
    """A fixed random context for one clip of this size, with the needed fields.

    Raises PoolingContractError for a need that is no field of PoolingContext.
    """
    draw = partial(torch.rand, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    fields = {
        "frame_times": draw(frames).cumsum(0),
        "cls": draw(1, frames, dim) + 0.5,
        "text": draw(1, dim) - 0.5,
        "thumbnail": draw(1, height, width, dim) + 0.5,
        "saliency": draw(1, frames, height, width),
        "keys": draw(1, frames, height, width, dim) - 0.5,
        "frame_vectors": draw(1, frames, dim) - 0.5,
    }
    if unknown := needs - fields.keys():
        raise PoolingContractError(f"needs names {', '.join(sorted(unknown))}; there are {', '.join(fields)}")
    return PoolingContext(**{name: fields[name].to(dtype) for name in needs})


def random_input(
    pooling: Pooling, frames: int, height: int, width: int
) -> tuple[Callable[..., Tensor], Tensor, PoolingContext]:
    """A source of fixed random numbers, and a grid of one clip of this size drawn from it, with its context.

    In float64, or in the dtype of the pooling's parameters; with three features, if the pooling does not fix them.
    """
    draw = partial(torch.rand, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with blamed(pooling, "parameters"):
        kinds = [weights.dtype for weights in pooling.parameters() if weights.is_floating_point()]
    dtype = next(iter(kinds), torch.float64)
    size = (grid_frames(pooling, frames), height, width, pooling.dim or 3)
    return draw, (draw(1, *size) + 0.5).to(dtype), random_context(pooling.needs, *size, dtype=dtype)


def map_signature(pooling: Pooling, frames: int, height: int, width: int) -> list[float]:
    """Numbers that are equal for poolings with the same map on grids of this size, and differ in practice otherwise.

    They are the token count; for two grids, the pooled features summed over tokens with fixed random weights, to nine
    significant digits (three features if the pooling fixes its dim); `limits` of all parts; the keys of images made
    before the tower, and of what the pooling reads there. The first grid is random_input()'s, the second has scenes:
    methods that choose by content choose alike where all frames and patches are equally strange.
    """
    draw, grid, context = random_input(pooling, frames, height, width)
    own = [key for key in image_keys(pooling, frames) if key is not None]
    parts = [part for part in pooling.modules() if isinstance(part, Pooling)]
    read = {(str(part.saliency), str(part.block), part.one_head) for part in parts if part.needs & TOWER}
    own += [hashlib.sha256(repr(each).encode()).hexdigest() for each in sorted(read)]
    sums = []
    for probe in (grid, _with_scenes(grid)):
        with torch.no_grad():
            tokens = checked(pooling, probe, context)[0]
        sums += (tokens[:, :3].double() * draw(len(tokens), 1)).sum(0).tolist()
    limits = [limit for part in parts for limit in part.limits]
    keys = [float(int(key[:12], 16)) for key in own]
    return [float(len(tokens)), *(float(f"{value:.9g}") for value in sums), *limits, *keys]


def _with_scenes(grid: Tensor) -> Tensor:
    """A grid [1, T, H, W, D] of random numbers as three scenes of other means; later and lower, more changes."""
    frames, dim = grid.shape[1], grid.shape[-1]
    scene = torch.tensor([int(3 * t >= frames) + int(4 * t >= 3 * frames) for t in range(frames)])
    first = torch.stack([(scene == number).int().argmax() for number in range(3)])
    mean = 3 * torch.eye(max(3, dim), dtype=grid.dtype)[scene, :dim]
    later, lower = (torch.linspace(0, 1, size, dtype=grid.dtype) for size in grid.shape[1:3])
    noise = grid - grid.mean()
    return noise[:, first[scene]] + mean[:, None, None] + noise * later[:, None, None, None] * lower[:, None, None] ** 2
