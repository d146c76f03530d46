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
    """

    embeddings: Tensor
    mask: Tensor
    positions: Tensor
    labels: Tensor


def merge(
    backbone: Backbone,
    ids: Tensor,
    media: Sequence[Sequence[Tensor]],
    mask: Tensor | None = None,
    labels: Tensor | None = None,
) -> Merged:
    """Embed prompts, each with its images and videos.

    Raises:
        ModelError: a row has more or fewer places than media.
    """
    device = backbone.device
    ids = ids.to(device)
    mask = torch.ones_like(ids) if mask is None else mask.to(device)
    labels = torch.full_like(ids, IGNORED) if labels is None else labels.to(device)
    is_place = torch.isin(ids, torch.tensor(sorted(set(backbone.media_ids.values())), device=device)) & (mask == 1)
    embedded = backbone.embed(ids)
    rows = []
    for row, tokens in enumerate(media):
        places = is_place[row].nonzero()[:, 0].tolist()
        if len(places) != len(tokens):
            raise ModelError(f"row {row}: {len(places)} places for visual tokens, but {len(tokens)} clips or images")
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        start = 0
        for place, visual in zip([*places, ids.shape[1]], [*tokens, None], strict=True):
            parts.append((embedded[row, start:place], mask[row, start:place], labels[row, start:place]))
            if visual is not None:
                seen = torch.ones(len(visual), dtype=mask.dtype, device=device)
                parts.append((visual.to(embedded), seen, torch.full_like(seen, IGNORED, dtype=labels.dtype)))
            start = place + 1
        rows.append(tuple(torch.cat(kind) for kind in zip(*parts, strict=True)))
    left = bool((mask[:, 0] == 0).any())
    longest = max(len(row[0]) for row in rows)
    out = (
        embedded.new_zeros(len(rows), longest, embedded.shape[-1]),
        mask.new_zeros(len(rows), longest),
        labels.new_full((len(rows), longest), IGNORED),
    )
    for number, row_parts in enumerate(rows):
        size = len(row_parts[0])
        where = slice(longest - size, longest) if left else slice(0, size)
        for target, value in zip(out, row_parts, strict=True):
            target[number, where] = value
    positions = (out[1].cumsum(-1) - 1).masked_fill(out[1] == 0, 1)
    return Merged(out[0], out[1], positions, out[2].masked_fill(out[1] == 0, IGNORED))
