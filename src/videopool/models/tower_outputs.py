"""Outputs of the vision tower: hidden states, attention of one block and its keys, SigLIP's pooling head.

One pass of the tower gives all that is wanted. Queries and keys are caught as they leave the block's projections, so
that the tower may compute attention in any way; from them, it is computed again in float32, for this block alone.

A tower may turn queries and keys by their positions (Qwen's): attention is that of turned ones, and keys are those
before, which depend on the content alone. Blocks that attend within windows give each query's attention to its window.

Shapes: pixels [T, 3, S, S]; hidden states, queries and keys [T, C + H*W, D], where C is 1 for a CLS token, else 0.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from videopool.models.errors import ModelError
from videopool.models.sizes import ModelShape
from videopool.pooling import Pooling
from videopool.pooling.base import TOWER, precise

WEIGHTS = 2**19  # weights of attention that are held at once: with more, they leave a CPU's cache
UNSTATED = (None, None, False)


class Attended(NamedTuple):
    """Queries and keys as a block multiplies them."""

    queries: Tensor
    keys: Tensor
    windows: Tensor | None = None  # [H*W] the number of each patch's window; None: all attend to all


class Pass(NamedTuple):
    """What a pass of the tower leaves of some frames."""

    tower: Any
    pixels: Tensor
    states: Mapping[int, Tensor]  # hidden states by layer
    projections: Mapping[tuple[int, str], Tensor]  # of a block, counted from 1: "q_proj", "k_proj", "v_proj"
    turned: Mapping[int, Attended] = {}  # by block, of a tower that turns queries and keys

    def attended(self, block: int) -> Attended:
        """Queries and keys of a block."""
        plain = (self.projections[block, name] for name in ("q_proj", "k_proj"))
        return self.turned[block] if block in self.turned else Attended(*plain)


def blocks_of(tower: Any) -> Any:
    """A tower's layers."""
    if hasattr(tower, "blocks"):
        return tower.blocks
    return tower.encoder.layers if hasattr(tower.encoder, "layers") else tower.encoder.layer


def projection_of(block: Any, name: str) -> Any:
    """The module whose output are a block's queries, keys or values; a norm, where one follows the projection."""
    attention = block.self_attn if hasattr(block, "self_attn") else block.attention
    return getattr(attention, name.replace("proj", "norm"), None) or getattr(attention, name)


@dataclass(frozen=True)
class TowerOutput(ABC):
    """An output [T, rows, width] of the tower."""

    name: str  # in keys of the feature store: all that determines it, given tower and pixels
    size: tuple[int, int]  # rows and width
    layers: tuple[int, ...]  # whose states are needed, 0 for the input of the first block; (): the tower need not run
    block: int | None = None  # whose projections are caught, 1 for the first; layers reach it
    caught: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj")
    exact: ClassVar[bool] = False  # stays float32 in any store: rounded scores would tie

    @abstractmethod
    def of(self, seen: Pass) -> Tensor:
        """[T, rows, width] of the frames that the tower has seen."""


class LayerStates(TowerOutput):
    """Hidden states of layers, side by side."""

    def of(self, seen: Pass) -> Tensor:
        first = seen.states[self.layers[0]]
        return torch.cat([seen.states[layer].to(first.device) for layer in self.layers], dim=-1)


@dataclass(frozen=True)
class NormedStates(LayerStates):
    """The states of the last layer, after a norm of the tower."""

    norm: str = ""

    def of(self, seen: Pass) -> Tensor:
        normed: Tensor = getattr(seen.tower, self.norm)(super().of(seen))
        return normed


@dataclass(frozen=True)
class Saliency(TowerOutput):
    """Attention in a block: of the CLS token (`cls`), or what each position receives, mean over queries."""

    exact = True
    heads: int = 1
    cls: bool = False

    def of(self, seen: Pass) -> Tensor:
        assert self.block is not None
        queries, keys, windows = seen.attended(self.block)
        return received(queries[:, :1] if self.cls else queries, keys, self.heads, windows).unsqueeze(-1)


@dataclass(frozen=True)
class Keys(TowerOutput):
    """Keys of a block, mean over heads; of one head, they are whole."""

    heads: int = 1
    caught = ("k_proj",)

    def of(self, seen: Pass) -> Tensor:
        assert self.block is not None
        return precise(seen.projections[self.block, "k_proj"]).unflatten(-1, (self.heads, -1)).mean(-2)


class ValueNorms(TowerOutput):
    """Euclidean norms of the values of a block, of all heads together: what a position gives to its readers."""

    caught = ("v_proj",)
    exact = True

    def of(self, seen: Pass) -> Tensor:
        assert self.block is not None
        values = precise(seen.projections[self.block, "v_proj"])
        return torch.linalg.vector_norm(values, dim=-1, keepdim=True)


class HeadSaliency(TowerOutput):
    """Attention of SigLIP's pooling head: its learned query over the normalised states of the last layer."""

    exact = True

    def of(self, seen: Pass) -> Tensor:
        attention, states = seen.tower.head.attention, _head_input(seen)
        weights, biases = (projection.chunk(3) for projection in (attention.in_proj_weight, attention.in_proj_bias))
        query = linear(seen.tower.head.probe, weights[0], biases[0]).expand(len(states), -1, -1)
        return received(query, linear(states, weights[1], biases[1]), attention.num_heads).unsqueeze(-1)


class FrameVectors(TowerOutput):
    """The output of SigLIP's pooling head."""

    exact = True

    def of(self, seen: Pass) -> Tensor:
        return seen.tower.head(_head_input(seen)).unsqueeze(1)


def _head_input(seen: Pass) -> Tensor:
    return seen.tower.post_layernorm(seen.states[len(blocks_of(seen.tower))])


def received(queries: Tensor, keys: Tensor, heads: int, windows: Tensor | None = None) -> Tensor:
    """Attention [T, L] that positions receive from queries [T, Q, D], given keys [T, L, D]; sums to 1 in a frame.

    Mean over heads and queries of softmax(q k / sqrt(D / heads)), in float32. With the windows [L] of positions, all of
    them queries, the softmax is over the query's window.
    """
    frames = max(1, WEIGHTS // (heads * queries.shape[1] * keys.shape[1]))
    found = []
    with torch.autocast(queries.device.type, enabled=False):
        for some in zip(queries.split(frames), keys.split(frames), strict=True):
            query, key = (precise(part).unflatten(-1, (heads, -1)).transpose(1, 2) for part in some)
            scores = query * key.shape[-1] ** -0.5 @ key.mT
            if windows is not None:
                scores = scores.masked_fill(windows[:, None] != windows, -torch.inf)
            found.append(scores.softmax(-1).mean((1, 2)))
    return torch.cat(found)


def score_output(kind: str, block: int, shape: ModelShape, one_head: bool = False) -> TowerOutput:
    """A score of each position: attention of a kind in a block, counted from 1, or the norms of its "values"."""
    rows = (shape.tower_rows, 1)
    if kind == "head":
        return HeadSaliency("attention of the pooling head", rows, (shape.vision_layers,))
    if kind == "values":
        return ValueNorms(f"norms of values of block {block}", rows, (block,), block)
    heads, one = (1, " in one head") if one_head else (shape.vision_heads, "")
    return Saliency(f"attention {kind} in block {block}{one}", rows, (block,), block, heads=heads, cls=kind == "cls")


def lacking(kind: str, shape: ModelShape, model: str) -> str:
    """What a kind of attention takes and the tower of a model lacks, in words, or ""."""
    if kind == "cls" and not shape.cls:
        return f"attention of a CLS token, and the tower of {model} has none: take attention received"
    if kind == "head" and not shape.pooling_head:
        return f"SigLIP's pooling head, and the tower of {model} has none"
    return ""


def tower_outputs(pooling: Pooling, shape: ModelShape, model: str) -> dict[str, TowerOutput]:
    """What a pooling reads of the tower of a model beside its features, by field of PoolingContext.

    Raises ModelError, with the model's name, if the tower lacks it, or parts of the pooling read different attention.
    """
    wanted = pooling.needs & set(TOWER)
    if not wanted:
        return {}
    parts = [part for part in pooling.modules() if isinstance(part, Pooling)]
    stated = {(part.saliency, part.block, part.one_head) for part in parts} - {UNSTATED}
    if len(stated) > 1:
        raise ModelError(f"pooling {pooling.label}: parts of it read different attention, and a clip has one")
    kind, number, one_head = next(iter(stated), UNSTATED)
    kind = ("cls" if shape.cls else "received") if kind in (None, "tower") else kind
    depth, block, problem = shape.vision_layers, shape.vision_layers_run if number is None else number, ""
    if isinstance(block, int) and block < 0:
        block += depth + 1
    if kind not in ("cls", "received", "head"):
        problem = f"saliency {kind!r}: choose one of tower, cls, received, head"
    elif not isinstance(block, int) or not 1 <= block <= depth:
        problem = f"attention of block {number} of the tower; {model} has 1..{depth}, or -1 for the last"
    else:
        problem = lacking("head", shape, model) if "frame_vectors" in wanted else ""
        problem = problem or (lacking(kind, shape, model) if "saliency" in wanted else "")
    if problem:
        raise ModelError(f"pooling {pooling.label} needs {problem}")
    heads, one = (1, " in one head") if one_head else (shape.vision_heads, "")
    rows, width = shape.tower_rows, shape.tower_dim
    outputs: dict[str, TowerOutput] = {
        "keys": Keys(f"keys of block {block}{one}", (rows, width // heads), (block,), block, heads=heads),
        "frame_vectors": FrameVectors("pooling head", (1, width), (depth,)),
        "saliency": score_output(kind, block, shape, one_head),
    }
    return {name: outputs[name] for name in sorted(wanted)}
