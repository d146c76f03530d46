"""What the language model reads, and what it answers: next-token scores, greedy answers, hidden states.

The KV cache of a clip's prefix (text before the image, then the visual tokens) is computed once and serves all
questions of the clip. Next-token scores and given answers are read in one row, each blind to the others, so that the
prefix is not copied for each; generated answers take a row per question.

Training reads batches of whole prompts: merge() puts visual tokens in place of their placeholders. A prompt of L ids
with M placeholders becomes L - M + (all visual tokens) positions. Padding stays where it was; rows of unequal length
are padded on the batch's own side.

Shapes: before [P0] ids; tokens [B, N, D]; questions[b][q] a list of ids; prefix length P = P0 + N; ids, mask, labels
[B, L]; media[b][m] the visual tokens [N, D] of placeholder m in row b.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from videopool.models.backbone import Backbone, layer_states
from videopool.models.errors import ModelError
from videopool.models.stages import check_context

IGNORED = -100  # label of a position without loss
Ids = Sequence[int]
Continued = tuple[Ids, Sequence[Ids]]  # a question, and its continuations


class Prefix(NamedTuple):
    """The KV cache of a batch of clips; one call that reads questions uses it up."""

    cache: DynamicCache
    length: int


@dataclass(frozen=True)
class Merged:
    """A batch as the language model reads it."""

    embeddings: Tensor  # [B, L', D]
    mask: Tensor  # [B, L'] 1 for tokens, 0 for padding
    positions: Tensor  # [B, L'] rank among the unpadded positions of the row; 1 at padding
    labels: Tensor  # [B, L'] token ids, IGNORED at visual tokens and padding
    # `mask`, or with independent rounds an additive mask [B, 1, L', L']: 0 where a position (third axis) sees another
    # (fourth), the dtype's minimum elsewhere.
    attention: Tensor
    # Length of the prefix that all rows share with plain causal attention, no padding and no labels; 0 without rounds.
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

    The mask is 1 for tokens and 0 for padding, on either side (None: no padding); labels are token ids, and IGNORED
    where no loss is taken; rounds are 0 for tokens that all see, k for tokens that only round k sees, and positions
    then count the tokens that a token sees (None: causal attention). Raises ModelError if a row has more or fewer
    placeholders than media.
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
        for place, visual in zip([*places, ids.shape[1]], [*tokens, embedded[row, :0]], strict=True):
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
    if rounds is None:
        positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
        return Merged(embeddings, mask, positions, labels, mask)
    seen = (owner[:, None] == 0) | (owner[:, None] == owner[:, :, None])  # [B, query, key]
    allowed = seen & (mask == 1)[:, None] & torch.ones_like(seen[0]).tril()
    positions = (allowed.sum(-1) - 1).masked_fill(mask == 0, 1)
    # Padding sees itself, because a row of attention must see something.
    allowed |= torch.eye(mask.shape[1], dtype=torch.bool, device=device)
    predicted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)  # the label of each next position
    plain = (owner == 0) & (mask == 1) & (predicted == IGNORED)
    common = int(plain.cummin(dim=-1).values.sum(dim=-1).min())
    return Merged(embeddings, mask, positions, labels, additive(allowed, embeddings.dtype), common)


@torch.inference_mode()
def prefill(backbone: Backbone, before: Ids, tokens: Tensor) -> Prefix:
    """Read the text before the image and the visual tokens [B, N, D] of clips."""
    ids = torch.tensor([list(before)], dtype=torch.long, device=backbone.device).expand(len(tokens), -1)
    embedded = torch.cat([backbone.embed(ids), tokens.to(backbone.device, backbone.dtype)], dim=1)
    check_context(backbone.name, backbone.shape.context, embedded.shape[1])
    cache = DynamicCache(config=backbone.model.config.text_config)
    if embedded.shape[1]:  # a blind model may have nothing to read before the question
        backbone.read(embedded, cache=cache)
    return Prefix(cache, embedded.shape[1])


def _packed(backbone: Backbone, prefix: Prefix, texts: Sequence[Sequence[Ids]]) -> list[list[Tensor]]:
    """Hidden states [L, D] of texts after their clip, by clip: read in one row, blind to each other."""
    device = backbone.device
    for text in (text for row in texts for text in row):
        check_context(backbone.name, backbone.shape.context, prefix.length + len(text))
    sizes = [[len(text) for text in row] for row in texts]

    def padded(rows: Sequence[Sequence[Sequence[int]]], padding: int) -> Tensor:
        flat = [torch.tensor([number for text in row for number in text], dtype=torch.long) for row in rows]
        return pad_sequence(flat, batch_first=True, padding_value=padding)

    ids = padded(texts, 0)
    owner = padded([[[number] * size for number, size in enumerate(row)] for row in sizes], -1)
    places = padded([[range(size) for size in row] for row in sizes], 0)
    length = ids.shape[1]
    same = owner[:, :, None] == owner[:, None, :]
    allowed = torch.ones(len(ids), length, prefix.length + length, dtype=torch.bool)
    allowed[:, :, prefix.length :] = same & torch.ones(length, length, dtype=torch.bool).tril()
    mask, positions = additive(allowed.to(device), backbone.dtype), (places + prefix.length).to(device)
    hidden = backbone.read(backbone.embed(ids.to(device)), mask, positions, prefix.cache)
    return [list(states[: sum(row)].split(row)) for states, row in zip(hidden, sizes, strict=True)]


@torch.inference_mode()
def next_token_logits(backbone: Backbone, prefix: Prefix, questions: Sequence[Sequence[Ids]]) -> list[Tensor]:
    """Logits [questions of the clip, vocabulary] (float32, CPU) of the token after each question, by clip."""
    hidden = _packed(backbone, prefix, questions)
    return [backbone.logits(torch.stack([states[-1] for states in row])).cpu() for row in hidden]


@torch.inference_mode()
def continuation_logprobs(
    backbone: Backbone, prefix: Prefix, asked: Sequence[Sequence[Continued]]
) -> list[list[list[float]]]:
    """Mean log-probability of the tokens of each continuation, by question and clip.

    The mean and not the sum, so that long answers are not unlikely for their length (Brown et al. 2020, arXiv
    2005.14165, section 2.4). Raises ValueError if a question or a continuation is empty.
    """
    if any(not question or not all(rest) for row in asked for question, rest in row):
        raise ValueError("a question or one of its continuations has no token")

    def mean(states: Tensor, continuation: Ids) -> float:
        logits = backbone.logits(states[-len(continuation) - 1 : -1])
        wanted = torch.tensor(list(continuation), device=logits.device)
        return float(logits.log_softmax(-1).gather(1, wanted[:, None]).mean())

    texts = [[[*question, *continuation] for question, rest in row for continuation in rest] for row in asked]
    hidden = iter([states for row in _packed(backbone, prefix, texts) for states in row])
    return [[[mean(next(hidden), continuation) for continuation in rest] for _, rest in row] for row in asked]


@torch.inference_mode()
def greedy_answers(
    backbone: Backbone, prefix: Prefix, questions: Sequence[Sequence[Ids]], max_new_tokens: int
) -> list[list[list[int]]]:
    """Greedy continuation of each question, without the end token, by clip.

    Questions are padded on the right and padding is masked, so an answer does not depend on its neighbours.
    """
    flat = [torch.tensor(list(question)) for row in questions for question in row]
    clips = torch.tensor([clip for clip, row in enumerate(questions) for _ in row], device=backbone.device)
    ids = pad_sequence(flat, batch_first=True).to(backbone.device)
    longest = ids.shape[1]
    check_context(backbone.name, backbone.shape.context, prefix.length + longest + max_new_tokens)
    prefix.cache.batch_select_indices(clips)
    steps = torch.arange(longest, device=ids.device)
    real = steps[None] < torch.tensor([[len(question)] for question in flat], device=ids.device)  # [Q, longest]
    seen = torch.cat([real.new_ones(len(flat), prefix.length), real], dim=1)
    allowed = seen[:, None, :].repeat(1, longest, 1)
    allowed[:, :, prefix.length :] &= real.new_ones(longest, longest).tril()
    positions = (steps + prefix.length)[None].expand(len(flat), -1)
    last = real.sum(-1) - 1  # place of each question's last token
    rows = torch.arange(len(flat), device=ids.device)
    states = backbone.read(backbone.embed(ids), additive(allowed, backbone.dtype), positions, prefix.cache)[rows, last]
    # A generated placeholder is read as id 0, as in the PLLaVA reference; its own embedding was never trained.
    placeholders = torch.tensor(sorted(set(backbone.media_ids.values())), device=backbone.device)
    answers: list[list[int]] = [[] for _ in flat]
    unfinished = set(range(len(flat)))
    for step in range(1, max_new_tokens + 1):
        tokens = backbone.logits(states).argmax(-1).to(backbone.device)
        for row, token in enumerate(tokens.tolist()):
            if token in backbone.end_ids:
                unfinished.discard(row)
            elif row in unfinished:
                answers[row].append(token)
        if not unfinished or step == max_new_tokens:
            break
        seen = torch.cat([seen, seen.new_ones(len(flat), 1)], dim=1)
        embedded = backbone.embed(tokens.masked_fill(torch.isin(tokens, placeholders), 0)[:, None])
        position = (positions[rows, last] + step)[:, None]
        states = backbone.read(embedded, additive(seen[:, None, :], backbone.dtype), position, prefix.cache)[:, -1]
    written = iter(answers)
    return [[next(written) for _ in row] for row in questions]


@torch.inference_mode()
def llm_states(
    backbone: Backbone, embeddings: Tensor, layers: Sequence[int], attention_layers: Sequence[int] = ()
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Hidden states [B, L, D] after some layers of the language model, and attention [B, L] in some layers.

    Attention is that of the last position, mean over heads, float32, summing to 1. Embeddings [B, L, D] are whole
    sequences without padding. Layer 0 is the input of the first layer, i the output of the i-th, before the final norm;
    layers after the last wanted one do not run. Raises ModelError if the sequence is longer than the context, or the
    attention implementation keeps no weights.
    """
    check_context(backbone.name, backbone.shape.context, embeddings.shape[1])
    blocks: Any = backbone.language_model.layers
    attention: dict[int, Tensor] = {}

    def keep(layer: int, weights: Tensor | None) -> None:  # [B, heads, L, L]
        if weights is None:
            raise ModelError("attention weights are kept by model.attention=eager only")
        attention[layer] = weights[:, :, -1].float().mean(1)

    with ExitStack() as hooks:
        for layer in attention_layers:
            module = blocks[layer - 1].self_attn
            hooks.enter_context(module.register_forward_hook(lambda _, __, out, layer=layer: keep(layer, out[1])))
        wanted = [*layers, *attention_layers] or [0]
        states = layer_states(blocks, lambda: backbone.llm(embeddings, use_cache=False), wanted)
    return {layer: states[layer] for layer in layers}, attention
