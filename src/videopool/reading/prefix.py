"""What all questions on a clip share: the KV cache of its prefix, as far as the language model reads it once.

FastV (Chen et al. 2024, arXiv 2403.06764) drops visual tokens inside the language model: after layer k those stay to
which a question's last token attends most. Up to layer k all questions share their clip's prefix; the layers after it
read each question's own tokens, so that a cache holds fewer positions of them.

Shapes: P positions of a prefix, of which `dropped` are missing after layer k; Q questions of up to L tokens.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from videopool.models.backbone import Backbone
from videopool.models.cost import GENERATED, question_bytes
from videopool.models.sizes import Pruning
from videopool.reading.chunks import Chunk
from videopool.reading.positions import turned
from videopool.reading.prompt_tree import Ids

Text = Ids | tuple[Ids, Sequence[Ids]]  # a question, or one with its continuations


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Boolean mask [B, Q, K] to the additive mask [B, 1, Q, K] that attention takes."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(
        ~allowed, torch.finfo(dtype).min
    )[:, None]


def read_layers(
    backbone: Backbone, layers: slice, states: Tensor, mask: Tensor | None, positions: Tensor, cache: DynamicCache
) -> Tensor:
    """Hidden states [B, L, D] after some layers of the language model, before the final norm; the cache grows.

    Where the states that go in have other levels as further columns, so have those that come out. The mask is additive,
    [B, 1, L, K]; None: causal, of states that nothing precedes. Positions are [B or 1, L].
    """
    model = backbone.language_model
    if mask is None and model.config._attn_implementation == "eager":  # which takes no mask for none
        mask = additive(
            torch.ones(1, *[states.shape[1]] * 2, dtype=torch.bool, device=states.device).tril(), states.dtype
        )
    rotary, given, states = model.rotary_emb(states, position_ids=positions), states, backbone.main(states)
    for number in range(len(model.layers))[layers]:
        states = model.layers[number](
            states, attention_mask=mask, position_ids=positions, past_key_values=cache, position_embeddings=rotary
        )
        states = backbone.deepened(states, given, number + 1)
    levels = given[..., states.shape[-1] :]
    states = torch.cat([states, levels.to(states)], dim=-1) if levels.shape[-1] else states
    return states.to(backbone.device)


class Prefix:
    """The KV cache of a batch of rows; a call that reads questions uses it up.

    A row is a clip, read up to its visual tokens; under pruning a clip's question, read up to its last token.

    Attributes:
        length: positions in the cache of the first layer.
        ends, tops: position of what follows each row, and at least of what is written behind it.
        seen: [B, length] False for padding; None: there is none.
        pruning, states, positions, visual: of clips under pruning, whose cache ends with its layer: the hidden states
            [B, P, D] there, their positions [B, P], and which are pooled tokens [B, P], as many in each row.
        split, dropped: the layers from `split` on lack so many of a row's positions.
    """

    def __init__(self, rows: int) -> None:
        self.cache, self.length, self.clips, self.ends = DynamicCache(), 0, list(range(rows)), [0] * rows
        self.tops = [0] * rows
        self.seen: Tensor | None = None
        self.pruning: Pruning | None = None
        self.states, self.positions, self.visual = torch.empty(0), torch.empty(0), torch.empty(0)
        self.split, self.dropped = 0, 0

    def rewind(self, clips: Sequence[int]) -> None:
        """Forget what was read after the prefix, and the rows that are not among these."""
        rows = [self.clips.index(clip) for clip in clips]
        same = rows == list(range(len(self.clips)))
        layers: Any = self.cache.layers
        for number, layer in enumerate(layers):
            if layer.is_initialized:
                length = self.length - self.dropped * (number >= self.split)
                kept = [states[:, :, :length] for states in (layer.keys, layer.values)]
                layer.keys, layer.values = kept if same else [one[rows] for one in kept]
        self.clips, self.ends = list(clips), [self.ends[row] for row in rows]
        self.tops = [self.tops[row] for row in rows]
        self.seen = self.seen if self.seen is None or same else self.seen[rows]

    def visible(self, like: Tensor) -> Tensor:
        """Which positions of the prefix the tokens [B, L] after it see: [B, L, length]."""
        if self.seen is None:
            return torch.ones(*like.shape, self.length, dtype=torch.bool, device=like.device)
        return self.seen[:, None].expand(-1, like.shape[1], -1)

    def read(self, backbone: Backbone, embeddings: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        """Last hidden states [B, L, D] of what follows, from its own places [B, L] on.

        The additive mask is that of the first layers.
        """
        positions = places + torch.tensor(self.ends, device=places.device)[:, None]
        if not self.dropped:
            return backbone.read(embeddings, mask, positions, self.cache)
        states = read_layers(backbone, slice(self.split), embeddings, mask, positions, self.cache)
        fewer = mask[..., self.dropped :]  # all see the whole prefix, so any of its columns may go
        states = read_layers(backbone, slice(self.split, None), states, fewer, positions, self.cache)
        return backbone.language_model.norm(states).to(backbone.device)

    def of_questions(self, backbone: Backbone, clips: Sequence[int], questions: Sequence[Ids]) -> "Prefix":
        """The prefix of each question on one of the clips, pruned by it: a row each, without its last token."""
        assert self.pruning is not None
        layer, device = self.pruning.layer, backbone.device
        rows = torch.tensor([self.clips.index(clip) for clip in clips], device=device)
        ids = pad_sequence([torch.tensor(question) for question in questions], batch_first=True).to(device)
        own = Prefix(len(rows))
        own.length = self.length + ids.shape[1]
        own.ends = [self.ends[row] + len(text) - 1 for row, text in zip(rows.tolist(), questions, strict=True)]
        own.tops = [self.tops[row] for row in rows.tolist()]
        shared: Any = self.cache.layers
        for number, kept in zip(range(layer), shared, strict=True):
            own.cache.update(*(one[rows.to(one.device)] for one in (kept.keys, kept.values)), number)
        last = torch.tensor([len(question) - 1 for question in questions], device=device)
        place = torch.arange(ids.shape[1], device=device)
        fresh = (place <= place[:, None]) & (place <= last[:, None])[:, None]
        visible = torch.ones(len(rows), self.length, dtype=torch.bool, device=device)
        visible = visible if self.seen is None else self.seen[rows]
        mask = additive(torch.cat([visible[:, None].expand(-1, ids.shape[1], -1), fresh], dim=-1), backbone.dtype)
        positions = torch.tensor([self.ends[row] for row in rows.tolist()], device=device)[:, None] + place
        attention, queries = backbone.language_model.layers[layer - 1].self_attn, list[Tensor]()
        with attention.q_proj.register_forward_hook(lambda _, __, output: queries.append(output)):
            states = read_layers(backbone, slice(layer), backbone.embed(ids), mask, positions, own.cache)
        each = torch.arange(len(rows), device=device)
        query = queries[0][each.to(queries[0].device), last.to(queries[0].device)]
        weights = _attention(backbone, attention, query, positions[each, last], own.cache, mask[each, 0, last])
        weights = weights[:, : self.length].clone()
        pooled = int(self.visual[0].sum())
        weights[~self.visual[rows]] = torch.inf  # text, separators and padding stay
        own.split, own.dropped = layer, pooled - self.pruning.kept(pooled)
        most = weights.argsort(dim=1, descending=True, stable=True)  # of equal ones the first
        stay = most[:, : self.length - own.dropped].sort(dim=1).values
        before = turned(self.positions[rows[:, None], stay])
        read_layers(backbone, slice(layer, None), self.states[rows[:, None], stay], None, before, own.cache)
        read_layers(backbone, slice(layer, None), states, mask[..., own.dropped :], positions, own.cache)
        own.seen = torch.cat([visible, place < last[:, None]], dim=1)
        return own


def _attention(backbone: Backbone, module: Any, query: Tensor, position: Tensor, cache: Any, mask: Tensor) -> Tensor:
    """Attention [B, K] of one position in a layer, mean over heads, float32, from the queries [B, heads * head_dim].

    The cache holds the keys [B, kv_heads, K, head_dim]; the mask is additive, [B, K].
    """
    keys = cache.layers[module.layer_idx].keys.float()
    rows, kinds, _, width = keys.shape
    heads = query.view(rows, -1, 1, width)
    heads = module.q_norm(heads) if hasattr(module, "q_norm") else heads  # Qwen3
    cos, sin = (one.to(heads) for one in backbone.language_model.rotary_emb(heads, position_ids=position[:, None]))
    turned = apply_rotary_pos_emb(heads, heads, cos, sin)[0].float().view(rows, kinds, -1, width)
    scores = turned @ keys.transpose(2, 3) * module.scaling + mask[:, None, None].to(keys)
    return scores.softmax(-1).mean((1, 2)).to(backbone.device)


def by_question(
    read: Callable[..., list[list[Any]]] | Callable[..., list[Tensor]],
    backbone: Backbone,
    prefix: Prefix,
    texts: Sequence[Sequence[Text]],
    chunk: Chunk,
) -> list[Any]:
    """The outputs of a function of `reading.answers` for texts of each clip; under pruning, each after its own prefix.

    The chunk bounds the texts read at once; it changes no answer.
    """
    if prefix.pruning is None:
        return list(read(backbone, prefix, texts, chunk=chunk))
    asked = [(clip, text) for clip, row in enumerate(texts) for text in row]

    def answered(some: Sequence[tuple[int, Text]]) -> list[Any]:
        questions = [text[0] if isinstance(text, tuple) else text for _, text in some]
        own = prefix.of_questions(backbone, [clip for clip, _ in some], questions)
        lasts = [[(text[0][-1:], text[1]) if isinstance(text, tuple) else text[-1:]] for _, text in some]
        return [row[0] for row in read(backbone, own, lasts, chunk=chunk)]

    longest = prefix.length + max(len(text[0] if isinstance(text, tuple) else text) for _, text in asked)
    weight = question_bytes(backbone.shape, longest, backbone.dtype.itemsize)
    found = chain.from_iterable(chunk.each(asked, answered, weight, GENERATED // longest))
    return [[next(found) for _ in row] for row in texts]
