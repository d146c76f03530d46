"""Put visual tokens in the places that a prompt keeps for them.

A prompt of L ids with M places becomes L - M + (all visual tokens) positions. Padding stays where it was;
rows of unequal length are padded on the side that the batch is padded on.

Shapes: ids, mask, labels [B, L]; media[b][m] the visual tokens [N, D] of the m-th place of row b.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from videopool.models.backbone import Backbone
from videopool.models.errors import ModelError

IGNORED = -100  # label of a position that no loss is taken at


@dataclass(frozen=True)
class Merged:
    """A batch as the language model reads it.

    Attributes:
        embeddings: [B, L', D].
        mask: [B, L'] 1 where there is something to read, 0 for padding.
        positions: [B, L'] rank among the unpadded positions of the row; 1 at padding.
        labels: [B, L'] token ids, IGNORED at visual tokens and padding.
        attention: what the language model is told of who sees whom: `mask`, or with independent rounds
            [B, 1, L', L'], 0 where a position (third axis) sees another (fourth), the dtype's least number elsewhere.
        common: with independent rounds, how many positions all rows begin with that each see all before them, where
            nothing is padding and from which nothing is predicted; 0 otherwise.
    """

    embeddings: Tensor
    mask: Tensor
    positions: Tensor
    labels: Tensor
    attention: Tensor
    common: int = 0


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Boolean mask [B, Q, K] to the additive mask [B, 1, Q, K] that attention takes."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(
        ~allowed, torch.finfo(dtype).min
    )[:, None]


def merge(
    backbone: Backbone,
    ids: Tensor,
    media: Sequence[Sequence[Tensor]],
    mask: Tensor | None = None,
    labels: Tensor | None = None,
    rounds: Tensor | None = None,
) -> Merged:
    """Embed prompts, each with its images and videos.

    Args:
        rounds: [B, L] 0 for what all see, k for what only round k sees; positions count what a token sees. None: each
            token sees all before it.

    Raises:
        ModelError: a row has more or fewer places than media.
    """
    device = backbone.device
    ids = ids.to(device)
    mask = torch.ones_like(ids) if mask is None else mask.to(device)
    labels = torch.full_like(ids, IGNORED) if labels is None else labels.to(device)
    owners = torch.zeros_like(ids) if rounds is None else rounds.to(device)
    is_place = torch.isin(ids, torch.tensor(sorted(set(backbone.media_ids.values())), device=device)) & (mask == 1)
    embedded = backbone.embed(ids)
    merged = []
    for row, tokens in enumerate(media):
        places = is_place[row].nonzero()[:, 0].tolist()
        if len(places) != len(tokens):
            raise ModelError(f"row {row}: {len(places)} places for visual tokens, but {len(tokens)} clips or images")
        parts: list[tuple[Tensor, ...]] = []
        start = 0
        for place, visual in zip([*places, ids.shape[1]], [*tokens, None], strict=True):
            parts.append(tuple(one[row, start:place] for one in (embedded, mask, labels, owners)))
            if visual is not None:
                seen = torch.ones(len(visual), dtype=mask.dtype, device=device)
                unlearned = torch.full_like(seen, IGNORED, dtype=labels.dtype)
                parts.append((visual.to(embedded), seen, unlearned, torch.zeros_like(seen, dtype=owners.dtype)))
            start = place + 1
        merged.append(tuple(torch.cat(kind) for kind in zip(*parts, strict=True)))
    left = bool((mask[:, 0] == 0).any())
    longest = max(len(row[0]) for row in merged)
    out = (
        embedded.new_zeros(len(merged), longest, embedded.shape[-1]),
        mask.new_zeros(len(merged), longest),
        labels.new_full((len(merged), longest), IGNORED),
        owners.new_zeros(len(merged), longest),
    )
    for number, row_parts in enumerate(merged):
        size = len(row_parts[0])
        where = slice(longest - size, longest) if left else slice(0, size)
        for target, value in zip(out, row_parts, strict=True):
            target[number, where] = value
    learned = out[2].masked_fill(out[1] == 0, IGNORED)
    if rounds is None:
        positions = (out[1].cumsum(-1) - 1).masked_fill(out[1] == 0, 1)
        return Merged(out[0], out[1], positions, learned, out[1])
    owner = out[3]
    seen = (owner[:, None] == 0) | (owner[:, None] == owner[:, :, None])  # [B, who sees, who is seen]
    allowed = seen & (out[1] == 1)[:, None] & torch.ones_like(seen[0]).tril()
    positions = (allowed.sum(-1) - 1).masked_fill(out[1] == 0, 1)
    # Padding sees itself, since a row of attention must see something.
    allowed |= torch.eye(longest, dtype=torch.bool, device=device)
    predicts = torch.nn.functional.pad(learned[:, 1:], (0, 1), value=IGNORED)  # what each position is to say next
    plain = (owner == 0) & (out[1] == 1) & (predicts == IGNORED)
    common = int(plain.cummin(dim=-1).values.sum(dim=-1).min())
    return Merged(out[0], out[1], positions, learned, additive(allowed, embedded.dtype), common)
