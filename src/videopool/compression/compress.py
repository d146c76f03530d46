"""Compression of a clip's tokens before the language model: allocator x selector x merger."""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from videopool.compression.allocators import Allocator
from videopool.compression.clip import Clip, Part, joined
from videopool.compression.mergers import Merger
from videopool.compression.selectors import Selector
from videopool.pooling.base import Pooling, PoolingContext, PoolingContractError, PoolingShapeError, precise
from videopool.pooling.checks import flag, needed, number, one_of, positive
from videopool.pooling.contract import class_name

ORDERS = ("place", "part", "score")
UNNAMED = "compress"
NO_PLACE = -1  # of a frame's CLS token


class Budgeted(Pooling):
    """Base of compressions: exactly N tokens of each clip, or, in forms whose number follows the clip, at most N.

    Args:
        tokens: N of each clip.
        share: N as a share of the clip's tokens, rounded down, at least 1 (some methods: as published); without tokens.
        reference: do as the published code, also where it is wrong; then clips may differ in their tokens.
        name: in tables.

    Raises PoolingShapeError for neither tokens nor share, or for a number that a clip cannot be left.
    """

    def __init__(self, tokens: int | None, share: float | None, reference: bool, name: str, free: bool = False) -> None:
        super().__init__()
        if tokens is None and share is None and not free:
            raise PoolingShapeError("say pooling.tokens or pooling.share: nothing says how many tokens stay")
        self.tokens = None if tokens is None else positive("tokens", tokens)
        self.share = None if share is None or tokens is not None else number("share", share, 0, 1, above=True)
        self.reference = flag("reference", reference)
        self.free = free and tokens is None and share is None  # the clip alone decides
        self.varies = reference or self.free
        words = [str(tokens)] if tokens else [f"{share:g}"] if share else []
        self._label = " ".join([name, *words, *(["reference"] if reference else [])])

    def least(self, frames: int, places: int) -> int:
        """Fewest tokens of a clip of this size."""
        return 1

    def of_share(self, frames: int, places: int, share: float) -> int:
        return max(1, int(share * (frames * places)))

    def budget(self, frames: int, places: int) -> int:
        """N for a clip of T frames of L places."""
        if self.free:
            return 1
        count = self.tokens or self.of_share(frames, places, self.share or 1.0)
        least, most = self.least(frames, places), frames * places
        if not self.reference and not least <= count <= most:
            asked = f"pooling.tokens={self.tokens}" if self.tokens else f"pooling.share={self.share:g}, {count} tokens,"
            limit = f"at least {least}" if count < least else f"at most {most}"
            raise PoolingShapeError(
                f"{asked} is impossible for {self._label}: {frames} frames of {places} patches can be left {limit}"
            )
        return count

    def num_tokens(self, frames: int, height: int, width: int) -> int:
        """N; the most possible where clips differ."""
        count = self.budget(frames, height * width)
        return frames * height * width if self.varies else count

    def clip(self, grid: Tensor, context: PoolingContext | None) -> Clip:
        """One clip [1, T, H, W, D] with what is needed beside it."""
        frames, height, width = grid.shape[1:4]
        count = self.budget(frames, height * width)
        fields: dict[str, Tensor] = {}
        for name, shape in (("saliency", grid.shape[:4]), ("keys", grid.shape[:4]), ("frame_vectors", grid.shape[:2])):
            if name in self.needs:
                values = getattr(context, name, None)
                size = () if values is None or name == "saliency" else values.shape[-1:]
                fields[name] = precise(needed(self, context, name, (*shape, *size)).detach())[0]
        saliency, keys = (
            fields[name].flatten(1, 2).contiguous() if name in fields else None for name in ("saliency", "keys")
        )
        x = precise(grid)[0].flatten(1, 2)
        share = self.share if self.share is not None else count / (frames * height * width)
        return Clip(x, height, width, count, share, self.reference, saliency, keys, fields.get("frame_vectors"))

    @abstractmethod
    def compress(self, clip: Clip) -> Part:
        """The clip's tokens and their places, in order."""

    def pooled(self, grid: Tensor, context: PoolingContext | None = None) -> list[Part]:
        """Tokens [N, D] and places [N] of each clip; a clip for itself, because they may differ in number."""
        rows = range(len(grid))
        clips = (self.clip(grid[row : row + 1], context and context.of_clip(row)) for row in rows)
        return [self.compress(clip) for clip in clips]

    def forward(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        tokens = [part.values for part in self.pooled(grid, context)]
        if len({len(rows) for rows in tokens}) > 1:
            raise PoolingContractError(f"{self._label} leaves these clips unequal numbers of tokens: pool each alone")
        return torch.stack(tokens).to(grid.dtype)

    def token_places(self, grid: Tensor, context: PoolingContext | None = None) -> Tensor:
        """[B, N] where each token came from."""
        return torch.stack([part.places for part in self.pooled(grid, context)])


class Compress(Budgeted):
    """An allocator says how many tokens a part may keep, a selector which, a merger what becomes of the others.

    Args:
        allocator, selector, merger: of this module's neighbours, or classes of one's own.
        centres: selects the centres that absorb others; null: the selector.
        order: of the tokens: by "place"; by "part", kept ones first; or by "score", in each part.
        cls: each frame's CLS token comes first and counts as one of its tokens.
        block, one_head: of the tower, that saliency and keys come from; see `Pooling`.
        name: in tables; "compress" stands for the parts' names.
    """

    kinds: ClassVar = {"allocator": Allocator, "selector": Selector, "merger": Merger, "centres": Selector}

    def __init__(
        self,
        allocator: Allocator,
        selector: Selector,
        merger: Merger | None = None,
        centres: Selector | None = None,
        tokens: int | None = None,
        share: float | None = None,
        order: str = "place",
        cls: bool = False,
        block: int | None = None,
        one_head: bool = False,
        reference: bool = False,
        name: str = UNNAMED,
    ) -> None:
        open_ended = getattr(allocator, "open", False)
        if name == UNNAMED:
            parts = [part for part in (allocator, selector, merger) if part is not None]
            name = " x ".join(getattr(part, "label", "") or type(part).__name__ for part in parts)
        free = open_ended or (reference is True and getattr(allocator, "free", False))
        super().__init__(tokens, share, reference, name, free=free)
        self.varies = self.varies or open_ended
        for key, value in (("allocator", allocator), ("selector", selector), ("merger", merger), ("centres", centres)):
            if not isinstance(value, self.kinds[key]) and (value is not None or key in ("allocator", "selector")):
                kind = self.kinds[key]
                raise PoolingContractError(
                    f"pooling.{key}: {type(value).__name__} is no {kind.__module__}.{kind.__name__}"
                )
        self.allocator, self.selector, self.merger = allocator, selector, merger
        self.centres = centres or selector
        self.order, self.cls, self.block, self.one_head = (
            one_of("order", order, ORDERS),
            flag("cls", cls),
            block,
            one_head,
        )
        used: list[Any] = [part for part in (allocator, selector, merger, centres) if part is not None]
        self.needs = frozenset({"cls"} if cls else ()).union(*(part.needs for part in used))
        kinds = {part.saliency for part in (selector, self.centres) if part.saliency}
        if len(kinds) > 1:
            raise PoolingShapeError(f"one saliency for all parts of a pooling, got {', '.join(sorted(kinds))}")
        self.saliency = kinds.pop() if kinds else "tower" if "saliency" in self.needs else None

    def least(self, frames: int, places: int) -> int:
        return max(self.allocator.least(frames, places), frames if self.cls else 1)

    def of_share(self, frames: int, places: int, share: float) -> int:
        return self.allocator.of_share(frames, places, share)

    def clip(self, grid: Tensor, context: PoolingContext | None) -> Clip:
        clip = super().clip(grid, context)
        clip.open = self.free
        if self.cls:
            clip.cls = needed(self, context, "cls", (1, clip.frames, grid.shape[-1]))[0]
            clip.count -= clip.frames
        return clip

    def compress(self, clip: Clip) -> Part:
        parts = self.allocator.parts(clip, self.selector)
        if any(part.centres for part in parts) and self.merger is None:
            raise PoolingContractError(f"{self._label}: pooling.merger is not given, and some tokens absorb others")
        found: list[list[Part]] = []
        rests = []
        for part in parts:
            chosen = self.chosen(self.selector, clip, part, part.count - part.centres)
            found.append([part.of(chosen if self.order == "score" else chosen.sort().values)])
            rests.append(part.without(chosen) if any(part.centres for part in parts) else part)
        for pieces, rest, part in zip(found, self.allocator.rest(clip, parts, rests), parts, strict=True):
            if rest.centres:
                same = [other for other in rests if other.span == part.span] if self.allocator.together else [rest]
                pieces.append(self.merged(clip, rest, same))
        kept = joined([piece for pieces in found for piece in pieces])
        if self.order == "place" and bool((kept.places.diff() < 0).any()):
            kept = kept.of(kept.places.argsort(stable=True))
        if clip.cls is None:
            return kept
        frames = torch.arange(clip.frames, device=kept.places.device)
        both = Part(torch.cat([clip.cls, kept.values]), torch.cat([torch.full_like(frames, NO_PLACE), kept.places]))
        return both.of(torch.cat([frames, kept.places // clip.places]).argsort(stable=True))

    def merged(self, clip: Clip, rest: Part, segment: list[Part]) -> Part:
        """The centres of a part, which absorb other tokens of its segment."""
        assert self.merger is not None
        if rest.centres == len(rest) and self.order != "score" and not self.allocator.together:
            return rest
        chosen = self.chosen(self.centres, clip, rest, rest.centres - self.merger.extra)
        centres, others = rest.of(chosen), joined(segment)
        if not getattr(self.merger, "own", False):
            others = others.of(~torch.isin(others.places, centres.places))
        made = self.merger(clip, centres, others)
        if made.values.shape != (rest.centres, clip.tokens.shape[-1]):
            raise PoolingContractError(
                f"{class_name(self.merger)} made {tuple(made.values.shape)} of {len(centres)} centres; that should be "
                f"{(rest.centres, clip.tokens.shape[-1])}"
            )
        return made if self.order != "part" else made.of(made.places.argsort(stable=True))

    def chosen(self, selector: Selector, clip: Clip, part: Part, count: int) -> Tensor:
        """Indices of a part's candidates, best first, checked."""
        if count == 0 or (count == len(part) and self.order != "score"):
            return torch.arange(count, device=part.places.device)
        with torch.no_grad():
            index = selector.choose(clip, part, count)
        taken = index.new_zeros(len(part), dtype=torch.bool)
        if fits := index.shape == (count,) and bool((index >= 0).all() & (index < len(part)).all()):
            taken[index] = True
        if not fits or (int(taken.sum()) < count and not self.reference):
            raise PoolingContractError(
                f"{class_name(selector)} must choose {count} of {len(part)} candidates, once each"
            )
        return index
