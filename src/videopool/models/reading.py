"""Language model output for visual tokens and questions: next-token scores, greedy answers, hidden states.

The KV cache of a clip's prefix (text before the image, then the visual tokens) is computed once and serves all
questions of the clip. Next-token scores and given answers are read in one row, each blind to the others, so that the
prefix is not copied for each; generated answers take a row per question.

Shapes: before [P0] ids; tokens [B, N, D]; questions[b][q] a list of ids; prefix length P = P0 + N.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from videopool.models.backbone import Backbone, layer_states
from videopool.models.errors import ModelError
from videopool.models.merging import Merged, additive
from videopool.models.stages import check_context

Ids = Sequence[int]
Continued = tuple[Ids, Sequence[Ids]]  # a question, and its continuations


@dataclass
class Prefix:
    """The KV cache of a batch of clips; one call that reads questions uses it up."""

    cache: DynamicCache
    length: int


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

    The mean and not the sum, so that long answers are not unlikely for their length (Brown et al. 2020,
    arXiv 2005.14165, section 2.4).

    Raises:
        ValueError: a question or a continuation is empty.
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
    mask = additive(allowed, backbone.dtype)
    answers = iter(_greedy(backbone, backbone.embed(ids), mask, positions, seen, prefix.cache, max_new_tokens))
    return [[next(answers) for _ in row] for row in questions]


@torch.inference_mode()
def generate(backbone: Backbone, merged: Merged, max_new_tokens: int) -> list[list[int]]:
    """Greedy continuation of each row of a merged batch, padded on either side, without the end token."""
    mask, cache = merged.mask, DynamicCache(config=backbone.model.config.text_config)
    check_context(backbone.name, backbone.shape.context, int(mask.sum(-1).max()) + max_new_tokens)
    return _greedy(backbone, merged.embeddings, mask, merged.positions, mask == 1, cache, max_new_tokens)


def _greedy(
    backbone: Backbone, embeddings: Tensor, mask: Tensor, positions: Tensor, seen: Tensor, cache: Any, most: int
) -> list[list[int]]:
    """Read embeddings [Q, L, D], and continue each row greedily by at most so many tokens.

    Args:
        mask, positions: of the embeddings, as transformers takes them.
        seen: [Q, K] false for padding among the cache's positions and the embeddings.
        cache: KV cache of the positions before the embeddings.
    """
    rows, steps = (torch.arange(size, device=seen.device) for size in positions.shape)
    last = (seen[:, -len(steps) :] * steps).argmax(-1)
    states = backbone.read(embeddings, mask, positions, cache)[rows, last]
    position = positions[rows, last]
    # A generated placeholder is read as id 0, as in the PLLaVA reference; its own embedding was never trained.
    placeholders = torch.tensor(sorted(set(backbone.media_ids.values())), device=backbone.device)
    answers: list[list[int]] = [[] for _ in rows]
    unfinished = set(range(len(rows)))
    for step in range(1, most + 1):
        tokens = backbone.logits(states).argmax(-1).to(backbone.device)
        for row, token in enumerate(tokens.tolist()):
            if token in backbone.end_ids:
                unfinished.discard(row)
            elif row in unfinished:
                answers[row].append(token)
        if not unfinished or step == most:
            break
        seen = torch.cat([seen, seen.new_ones(len(rows), 1)], dim=1)
        embeddings = backbone.embed(tokens.masked_fill(torch.isin(tokens, placeholders), 0)[:, None])
        mask = additive(seen[:, None, :], backbone.dtype)
        states = backbone.read(embeddings, mask, (position + step)[:, None], cache)[:, -1]
    return answers


@torch.inference_mode()
def llm_states(
    backbone: Backbone, embeddings: Tensor, layers: Sequence[int], attention_layers: Sequence[int] = ()
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Hidden states after some layers of the language model, and the last position's attention in some layers.

    Args:
        embeddings: [B, L, D] of whole sequences, without padding.
        layers: 0 is the input of the first layer, i the output of the i-th, before the final norm.
        attention_layers: 1 is the first layer.

    Returns:
        Hidden states [B, L, D] by layer, and attention [B, L] by layer: of the last position, mean over heads,
        float32, summing to 1. Layers after the last wanted one do not run.

    Raises:
        ModelError: the sequence is longer than the context, or the attention implementation keeps no weights.
    """
    check_context(backbone.name, backbone.shape.context, embeddings.shape[1])
    blocks: Any = backbone.language_model.layers
    attention: dict[int, Tensor] = {}

    def keep(layer: int, weights: Tensor | None) -> None:  # [B, heads, L, L]
        if weights is None:
            raise ModelError("attention weights are kept by model.attention=eager only")
        attention[layer] = weights[:, :, -1].float().mean(1)

    handles = [
        blocks[layer - 1].self_attn.register_forward_hook(lambda _, __, out, layer=layer: keep(layer, out[1]))
        for layer in attention_layers
    ]
    wanted = [*layers, *attention_layers] or [0]
    try:
        states = layer_states(blocks, lambda: backbone.llm(embeddings, use_cache=False), wanted)
    finally:
        for handle in handles:
            handle.remove()
    return {layer: states[layer] for layer in layers}, attention
