"""Batches of whole prompts, as training reads them: visual tokens in place of their placeholders.

A prompt of L ids with M placeholders becomes L - M + (all visual tokens) positions. Padding stays where it was; rows of
unequal length are padded on the batch's own side.

Shapes: ids, mask, labels [B, L]; media[b][m] the visual tokens [N, D] of placeholder m in row b.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from videopool.models.backbone import Backbone
from videopool.models.errors import ModelError
from videopool.reading.prefix import additive

IGNORED = -100  # label of a position without loss


@dataclass(frozen=True)
class Merged:
    """A batch as the language model reads it."""

    embeddings: Tensor  # [B, L', D]
    mask: Tensor  # [B, L'] 1 for tokens, 0 for padding
    # [B, L'] rank among the unpadded positions of the row, or [3, B, L'] of a family with three axes; 1 at padding.
    positions: Tensor
    labels: Tensor  # [B, L'] token ids, IGNORED at visual tokens and padding
    # `mask`, or with independent rounds an additive mask [B, 1, L', L']: 0 where a position (third axis) sees another
    # (fourth), the dtype's minimum elsewhere.
    attention: Tensor
    # Length of the prefix that all rows share with plain causal attention, no padding and no labels; 0 without rounds.
    common: int = 0


def merge(
    backbone: Backbone,
    ids: Tensor,
    media: Sequence[Sequence[Tensor]],
    mask: Tensor | None = None,
    labels: Tensor | None = None,
    rounds: Tensor | None = None,
    places: Sequence[tuple[Tensor, int]] | None = None,
) -> Merged:
    """Embed prompts, each with its images and videos.

    The mask is 1 for tokens and 0 for padding, on either side (None: no padding); labels are token ids, and IGNORED
    where no loss is taken; rounds are 0 for tokens that all see, k for tokens that only round k sees, and positions
    then count the tokens that a token sees (None: causal attention). Places are, for a family with three axes, the
    positions [N, 3] of each row's one clip, and of what follows it, from its first token on. Raises ModelError if a row
    has more or fewer placeholders than media.
    """
    device = backbone.device
    ids = ids.to(device)
    mask = torch.ones_like(ids) if mask is None else mask.to(device)
    labels = torch.full_like(ids, IGNORED) if labels is None else labels.to(device)
    owners = torch.zeros_like(ids) if rounds is None else rounds.to(device)
    is_place = torch.isin(ids, torch.tensor(sorted(set(backbone.media_ids.values())), device=device)) & (mask == 1)
    embedded = backbone.words(ids)
    merged = []
    for row, tokens in enumerate(media):
        slots = is_place[row].nonzero()[:, 0].tolist()
        if len(slots) != len(tokens):
            raise ModelError(f"row {row}: {len(slots)} places for visual tokens, but {len(tokens)} clips or images")
        parts: list[tuple[Tensor, ...]] = []
        start = 0
        for place, visual in zip([*slots, ids.shape[1]], [*tokens, embedded[row, :0]], strict=True):
            parts.append(tuple(kind[row, start:place] for kind in (embedded, mask, labels, owners)))
            ones = mask.new_ones(len(visual))
            parts.append(
                (visual.to(embedded), ones, labels.new_full(ones.shape, IGNORED), owners.new_zeros(ones.shape))
            )
            start = place + 1
        merged.append([torch.cat(kind) for kind in zip(*parts, strict=True)])
    side = "left" if bool((mask[:, 0] == 0).any()) else "right"
    embeddings, mask, labels, owner = (
        pad_sequence(list(rows), batch_first=True, padding_value=padding, padding_side=side)
        for rows, padding in zip(zip(*merged, strict=True), (0, 0, IGNORED, 0), strict=True)
    )
    labels = labels.masked_fill(mask == 0, IGNORED)
    firsts = [int(one.int().argmax()) for one in is_place]  # of each row's first clip
    if side == "left":
        firsts = [first + mask.shape[1] - len(row[0]) for first, row in zip(firsts, merged, strict=True)]
    if rounds is None:
        positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
        positions = positions if places is None else _in_three(positions, mask, firsts, places)
        return Merged(embeddings, mask, positions, labels, mask)
    seen = (owner[:, None] == 0) | (owner[:, None] == owner[:, :, None])  # [B, query, key]
    allowed = seen & (mask == 1)[:, None] & torch.ones_like(seen[0]).tril()
    positions = (allowed.sum(-1) - 1).masked_fill(mask == 0, 1)
    positions = positions if places is None else _in_three(positions, mask, firsts, places)
    # Padding sees itself, because a row of attention must see something.
    allowed |= torch.eye(mask.shape[1], dtype=torch.bool, device=device)
    predicted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)  # the label of each next position
    plain = (owner == 0) & (mask == 1) & (predicted == IGNORED)
    common = int(plain.cummin(dim=-1).values.sum(dim=-1).min())
    return Merged(embeddings, mask, positions, labels, additive(allowed, embeddings.dtype), common)


def _in_three(positions: Tensor, mask: Tensor, firsts: Sequence[int], places: Sequence[tuple[Tensor, int]]) -> Tensor:
    """Ranks [B, L'] as positions [3, B, L']: those of each row's clip are its own, and what follows stands behind."""
    three = positions.expand(3, -1, -1).clone()
    for row, (first, (own, end)) in enumerate(zip(firsts, places, strict=True)):
        behind = mask[row].bool()
        behind[: first + len(own)] = False
        three[:, row, first : first + len(own)] += own.T.to(three) - torch.arange(len(own), device=three.device)
        three[:, row, behind] += end - len(own)
    return three
