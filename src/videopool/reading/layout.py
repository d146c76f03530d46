"""What stands where in a clip, given where the tokens come from that a pooling left.

Tokens stand frame after frame, each frame behind its text; a newline may end each row of patches, or the clip. A token
belongs to the frame and row of its place; a merged one to those of its anchor. Frames and rows without a token leave
neither text nor newline. Under layout=block all tokens are one run, in the pooling's own order.

Positions "original" are those of the whole grid, with all its texts and newlines; a frame's text stands right before
the frame's tokens.

Shapes: pooled tokens [B, N, D] of a grid of T x H x W; L entries of the longest clip, behind which others are padded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from videopool.models import Backbone, ModelShape
from videopool.models.texts import BLOCK, FRAMES, Stamps
from videopool.pooling import GridPooling, Pooling, PoolingContext, announced, places_by
from videopool.reading.positions import Grids, Size, Whole, one_grid, three, turned

ASKED = {FRAMES: ("layout=frames", "say layout=block"), BLOCK: ("positions=original", "say positions=contiguous")}


@dataclass(frozen=True)
class Spots:
    """Where tokens [B, N] come from."""

    frames: Tensor  # [B, N] groups of tokens that stand together
    rows: Tensor  # [B, N] within the frame
    places: Tensor | None  # [B, N] flat, of tokens that have places
    shown: Sequence[int]  # the clip's frame that each group shows


@dataclass(frozen=True)
class Arranged:
    """Clips as the language model reads them, between the texts of their prompts."""

    states: Tensor  # [B, L, D], with DeepStack's levels as further columns
    at: Tensor  # [B, N] the entry of each pooled token
    lengths: list[int]  # entries of each clip, without padding
    # [B, L], or [B, L, 3] of a family with three axes, from the first entry on; None: one after another.
    positions: Tensor | None
    ends: list[int]  # the position of what follows each clip
    texts: list[tuple[str, str]]  # what the clip's prompt says before and behind it
    # One more than the highest position in each clip, where it may be above `ends`: from there on answers are written.
    tops: list[int] | None = None

    def of(self, rows: Sequence[int]) -> "Arranged":
        """Some of the clips."""
        chosen = list(rows)
        lengths, ends = [self.lengths[row] for row in chosen], [self.ends[row] for row in chosen]
        texts = [self.texts[row] for row in chosen]
        positions = None if self.positions is None else self.positions[chosen]
        tops = None if self.tops is None else [self.tops[row] for row in chosen]
        return Arranged(self.states[chosen], self.at[chosen], lengths, positions, ends, texts, tops)

    def row(self, clip: int) -> Tensor:
        """[L, D] of one clip, without padding."""
        return self.states[clip, : self.lengths[clip]]

    def asked(self, clip: int, text: str, place: str) -> str:
        """A prompt with its place for a clip, and the clip's own texts around it."""
        before, behind = self.texts[clip]
        return text.replace(place, f"{before}{place}{behind}", 1)

    def within(self, clip: int, before: int, behind: int) -> Tensor | None:
        """Positions [1, L] or [3, 1, L] of a prompt: so many tokens, one clip, so many tokens; None: one by one."""
        if self.positions is None:
            return None
        own = self.positions[clip, : self.lengths[clip]].cpu()
        texts = torch.arange(before), self.ends[clip] + before + torch.arange(behind)
        first, last = (one if own.dim() == 1 else one[:, None].expand(-1, 3) for one in texts)
        return turned(torch.cat([first, own + before, last])[None]).to(self.states.device)

    @staticmethod
    def joined(parts: "Sequence[Arranged]") -> "Arranged":
        """Clips that were arranged apart, together."""
        if len(parts) == 1:
            return parts[0]
        states = pad_sequence([row for part in parts for row in part.states], batch_first=True)
        given = [row for part in parts if part.positions is not None for row in part.positions]
        positions = pad_sequence(given, batch_first=True) if given else None
        lengths, ends = [one for part in parts for one in part.lengths], [one for part in parts for one in part.ends]
        texts = [one for part in parts for one in part.texts]
        tops = None if parts[0].tops is None else [one for part in parts for one in part.tops or ()]
        return Arranged(states, torch.cat([part.at for part in parts]), lengths, positions, ends, texts, tops)


def plain(states: Tensor, separators: int, places: Tensor | None = None) -> Arranged:
    """Tokens [B, N, D], of which the last are separators; places: [B, N + 1] their positions and of what follows."""
    count = states.shape[1]
    at = torch.arange(count - separators).expand(len(states), -1)
    ends = [count] * len(states) if places is None else places[:, -1].tolist()
    positions = None if places is None else places[:, :-1]
    return Arranged(states, at, [count] * len(states), positions, ends, [("", "")] * len(states))


def spots_of(pooling: Pooling, grid: Tensor, context: PoolingContext | None, asked: str) -> Spots:
    """Where the tokens of a pooling come from; `asked` names the layout that must know it.

    The cells of a grid pooling without places belong to their own row, and to the frame in the middle of those that
    they are made of. Raises PoolingContractError if tokens have no places.
    """
    frames, height, width = grid.shape[1:4]
    if asked == FRAMES and isinstance(pooling, GridPooling) and pooling.token_places(grid, context) is None:
        size = pooling.out_shape(frames, height, width)
        cells = [one.expand(len(grid), -1) for one in torch.unravel_index(torch.arange(prod(size)), size)]
        shown = [min(frames - 1, (2 * group + 1) * frames // (2 * size[0])) for group in range(size[0])]
        return Spots(cells[0], cells[1], None, shown)
    places = places_by(pooling, grid, context, *ASKED[asked]).cpu()
    return Spots(places // (height * width), places % (height * width) // width, places, range(frames))


def arrange(
    backbone: Backbone,
    tokens: Tensor,
    size: Size,
    stamps: Sequence[Stamps],
    layout: str = FRAMES,
    spots: Spots | None = None,
    original: bool = False,
    cells: Size | None = None,
) -> Arranged:
    """Pooled tokens [B, N, D] of a grid of `size` among the family's texts and newlines; stamps are by clip.

    `spots` are needed where the layout depends on them (Backbone.spreads), and for original positions; `cells` is the
    size of a pooled grid.
    """
    if backbone.mrope and not backbone.spreads:
        places = spots.places if original and spots is not None else None
        positions, ends = one_grid(backbone, tokens.shape[1], size, stamps, places, cells)
        at = torch.arange(tokens.shape[1]).expand(len(tokens), -1)
        lengths, texts = [tokens.shape[1]] * len(tokens), [("", "")] * len(tokens)
        return Arranged(tokens, at, lengths, positions, ends, texts, _tops(list(positions), ends))
    rows = [
        _clip(backbone, own, size, stamps[clip], layout, spots and _of_clip(spots, clip), original, cells)
        for clip, own in enumerate(tokens)
    ]
    states, at = pad_sequence([row[0] for row in rows], batch_first=True), torch.stack([row[1] for row in rows])
    given = [row[2] for row in rows]
    lengths, ends, texts = [len(row[0]) for row in rows], [row[3] for row in rows], [row[4] for row in rows]
    if not original and not backbone.mrope:
        return Arranged(states, at, lengths, None, ends, texts)
    tops = _tops(given, ends) if backbone.mrope else None
    return Arranged(states, at, lengths, pad_sequence(given, batch_first=True), ends, texts, tops)


def _tops(positions: Sequence[Tensor], ends: Sequence[int]) -> list[int]:
    """One more than the highest position of each clip, or the end."""
    return [max(end, int(own.max()) + 1 if len(own) else 0) for own, end in zip(positions, ends, strict=True)]


def _of_clip(spots: Spots, clip: int) -> Spots:
    places = None if spots.places is None else spots.places[clip]
    return Spots(spots.frames[clip], spots.rows[clip], places, spots.shown)


def _clip(
    backbone: Backbone, tokens: Tensor, size: Size, stamps: Stamps, layout: str, spots: Spots | None, original: bool,
    cells: Size | None,
) -> tuple[Tensor, Tensor, Tensor, int, tuple[str, str]]:  # fmt: skip
    """States [L, D] of one clip, the entry [N] of each pooled token, positions [L], the end, and the texts around."""
    texts, device = backbone.texts_of(stamps), tokens.device
    counter: Whole | None = Whole(backbone, texts, size, layout) if original else None
    if backbone.mrope:
        pooled = None if original else cells
        counter = Grids(backbone, texts, size, layout, pooled, line=not original and cells is None)
    places = spots.places if original and spots is not None else None
    places = torch.arange(len(tokens)) if places is None else places
    newline, ends = len(tokens), backbone.separators_in(layout)  # index of the newline in the table
    by_row = backbone.row_newlines and layout == FRAMES
    indices, positions, extra, kept = list[Tensor](), list[Tensor](), list[int](), list[int]()
    if layout == FRAMES and backbone.spreads and len(tokens):
        assert spots is not None
        order = (spots.frames * size[1] + spots.rows if by_row else spots.frames).argsort(stable=True)
        groups, counts = spots.frames[order].unique_consecutive(return_counts=True)
        for group, own in zip(groups.tolist(), order.split(counts.tolist()), strict=True):
            frame = spots.shown[group]
            if kept and (ids := backbone.text_ids(texts.between(kept[-1], frame))):
                indices.append(torch.arange(len(ids)) + newline + 1 + len(extra))
                extra += ids
                if counter is not None:
                    positions.append(counter.text(len(ids), frame))
            kept.append(frame)
            runs = own.split(spots.rows[own].unique_consecutive(return_counts=True)[1].tolist()) if by_row else [own]
            for run in runs:
                indices += [run, torch.tensor([newline])] if by_row else [run]
                if counter is not None:
                    positions.append(counter.tokens(places[run]))
                    if by_row:
                        positions.append(counter.newline(places[run[-1:]]))
    else:
        indices.append(torch.arange(len(tokens)))
        if counter is not None:
            positions.append(counter.tokens(places))
    indices.append(torch.full((ends,), newline))
    index = torch.cat(indices)
    table = [tokens]
    if backbone.newline:
        table.append(backbone.newline_vector().to(tokens)[None])
    elif extra:
        table.append(tokens.new_zeros(1, tokens.shape[-1]))
    if extra:
        table.append(backbone.words(torch.tensor(extra, device=backbone.device)).to(tokens))
    states = torch.cat(table)[index.to(device)] if len(index) != len(tokens) or backbone.spreads else tokens
    at = torch.empty(len(tokens), dtype=torch.long)
    entries = (index < newline).nonzero()[:, 0]
    at[index[entries]] = entries
    around = texts.around(kept or ([0] if len(tokens) else []), layout)
    if counter is None:
        return states, at, index, len(index), around
    behind = counter.end + torch.arange(ends)
    positions.append(three(behind) if backbone.mrope else behind)
    return states, at, torch.cat(positions), counter.end + ends, around


def beside(pooling: Pooling, shape: ModelShape, size: tuple[int, int, int], layout: str) -> int:
    """The most newlines and, about, tokens of text among the pooled tokens of a grid (T, H, W)."""
    if layout == BLOCK:
        return max(shape.separators, int(shape.row_newlines))
    count, rows, groups = announced(pooling, *size), size[0] * size[1], size[0]
    if isinstance(pooling, GridPooling):
        groups, height, _ = pooling.out_shape(*size)
        rows = groups * height
    text = shape.frame_text * max(0, min(groups, count) - 1)
    return shape.separators + shape.row_newlines * min(rows, count) + text
