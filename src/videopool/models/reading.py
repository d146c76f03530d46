"""What the language model reads, and what it answers: next-token scores, greedy answers, hidden states.

The KV cache of a clip's prefix (text before the image, then the visual tokens) is computed once and serves all
questions of the clip, which are read, and answered, in one row, each blind to the others: the prefix is not copied for
each. Rows are cut into chunks, so that memory is bounded and time linear in the number of questions.

Training reads batches of whole prompts: merge() puts visual tokens in place of their placeholders. A prompt of L ids
with M placeholders becomes L - M + (all visual tokens) positions. Padding stays where it was; rows of unequal length
are padded on the batch's own side.

Shapes: before [P0] ids; tokens [B, N, D]; questions[b][q] a list of ids; prefix length P = P0 + N; ids, mask, labels
[B, L]; media[b][m] the visual tokens [N, D] of placeholder m in row b.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from videopool.models.backbone import Backbone, layer_states
from videopool.models.chunks import Chunk, free_bytes
from videopool.models.cost import GENERATED, LIKELY, question_bytes
from videopool.models.errors import ModelError
from videopool.models.stages import check_context

IGNORED = -100  # label of a position without loss
STEPS_UNCHECKED = 4  # tokens that an accelerator generates before the host asks whether all answers have ended
Item = TypeVar("Item")
Ids = Sequence[int]
Continued = tuple[Ids, Sequence[Ids]]  # a question, and its continuations


class Prefix:
    """The KV cache of a batch of clips, read up to their visual tokens; a call that reads questions uses it up."""

    def __init__(self, clips: int) -> None:
        self.cache, self.length, self.clips = DynamicCache(), 0, list(range(clips))

    def rewind(self, clips: Sequence[int]) -> None:
        """Forget what was read after the prefix, and the clips that are not among these."""
        rows = [self.clips.index(clip) for clip in clips]
        layers: Any = self.cache.layers
        for layer in layers:
            if layer.is_initialized:
                kept = [states[:, :, : self.length] for states in (layer.keys, layer.values)]
                layer.keys, layer.values = kept if rows == list(range(len(self.clips))) else [one[rows] for one in kept]
        self.clips = list(clips)


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
    prefix = Prefix(len(tokens))
    if embedded.shape[1]:  # a blind model may have nothing to read before the question
        backbone.read(embedded, cache=prefix.cache)
    prefix.length = embedded.shape[1]
    return prefix


def question_chunk(backbone: Backbone, bytes_: int | None = None) -> Chunk:
    """The memory for the questions read at once: so many bytes, or half of what is free on the model's device."""
    return Chunk(bytes_ or free_bytes(backbone.device) // 2, "questions of each clip")


@dataclass
class _Row:
    """Texts of each clip that are read after it in one row, blind to each other. Q: the most texts of a clip."""

    backbone: Backbone
    prefix: Prefix
    owner: Tensor  # [B, K] number of the text, from 1, that a position after the prefix belongs to; 0 at padding

    @classmethod
    def read(cls, backbone: Backbone, prefix: Prefix, texts: Sequence[Sequence[Ids]]) -> tuple["_Row", Tensor]:
        """The row, and its hidden states [B, L, D]."""
        numbered = [
            [(token, number, place) for number, text in enumerate(row, 1) for place, token in enumerate(text)]
            for row in texts
        ]
        columns = pad_sequence([torch.tensor(row) for row in numbered], batch_first=True).to(backbone.device)
        ids, owner, places = columns.unbind(-1)  # [B, L]
        row = cls(backbone, prefix, owner[:, :0])
        return row, row.extend(ids, owner, prefix.length + places)

    def extend(self, ids: Tensor, owner: Tensor, positions: Tensor) -> Tensor:
        """Hidden states [B, L, D] of tokens [B, L] that see the prefix, their own text so far, and themselves."""
        fresh = (owner[:, :, None] == owner[:, None]).tril()
        prefix = fresh.new_ones(*owner.shape, self.prefix.length)
        allowed = torch.cat([prefix, owner[:, :, None] == self.owner[:, None], fresh], dim=-1)
        self.owner = torch.cat([self.owner, owner], dim=-1)
        mask = additive(allowed, self.backbone.dtype)
        return self.backbone.read(self.backbone.embed(ids), mask, positions, self.prefix.cache)


def _each(
    backbone: Backbone,
    prefix: Prefix,
    texts: Sequence[Sequence[Item]],
    longest: int,
    most: int,
    chunk: Chunk | None,
    work: Callable[[list[Sequence[Item]]], Sequence[Sequence[Any]]],
) -> list[list[Any]]:
    """The outputs of `work` on chunks of each clip's texts, by clip and text.

    A text has up to `longest` positions, and a chunk up to `most` of each clip, but at least one text.
    """
    check_context(backbone.name, backbone.shape.context, prefix.length + longest)
    outputs: list[list[Any]] = [[] for _ in texts]

    def read(part: Sequence[int]) -> None:
        clips = [clip for clip, row in enumerate(texts) if len(row) > part[0]]
        prefix.rewind(clips)
        rows = [texts[clip][part[0] : part[-1] + 1] for clip in clips]
        for clip, row in zip(clips, work(rows), strict=True):
            outputs[clip] += row

    weight = len(texts) * question_bytes(backbone.shape, longest, backbone.dtype.itemsize)
    (chunk or question_chunk(backbone)).each(range(max(map(len, texts))), read, weight, most // longest)
    return outputs


def _lasts(texts: Sequence[Sequence[Ids]]) -> list[list[int]]:
    """Place of each text's last token in its clip's row."""
    return [[end - 1 for end in accumulate(map(len, row))] for row in texts]


@torch.inference_mode()
def next_token_logits(
    backbone: Backbone, prefix: Prefix, questions: Sequence[Sequence[Ids]], chunk: Chunk | None = None
) -> list[Tensor]:
    """Logits [questions of the clip, vocabulary] (float32, CPU) of the token after each question, by clip.

    The chunk bounds the questions read at once; it changes no answer.
    """

    def work(texts: list[Sequence[Ids]]) -> list[list[Tensor]]:
        _, hidden = _Row.read(backbone, prefix, texts)
        places = [(row, last) for row, lasts in enumerate(_lasts(texts)) for last in lasts]
        rows, lasts = torch.tensor(places, device=hidden.device).unbind(-1)
        logits = backbone.logits(hidden[rows, lasts]).cpu()
        return [[own] for own in logits.split([len(row) for row in texts])]

    longest = max(len(text) for row in questions for text in row)
    return [torch.cat(own) for own in _each(backbone, prefix, questions, longest, LIKELY, chunk, work)]


@torch.inference_mode()
def continuation_logprobs(
    backbone: Backbone, prefix: Prefix, asked: Sequence[Sequence[Continued]], chunk: Chunk | None = None
) -> list[list[list[float]]]:
    """Mean log-probability of the tokens of each continuation, by question and clip; chunk as in next_token_logits().

    The mean and not the sum, so that long answers are not unlikely for their length (Brown et al. 2020, arXiv
    2005.14165, section 2.4). Raises ValueError if a question or a continuation is empty.
    """
    if any(not question or not all(rest) for row in asked for question, rest in row):
        raise ValueError("a question or one of its continuations has no token")

    def work(rows: list[Sequence[tuple[Ids, int]]]) -> list[list[float]]:
        texts = [[text for text, _ in row] for row in rows]
        _, hidden = _Row.read(backbone, prefix, texts)
        of_tokens = []
        for states, row, lasts in zip(hidden, rows, _lasts(texts), strict=True):
            ends = zip(lasts, row, strict=True)
            wanted = [(last - size + i, text[i - size]) for last, (text, size) in ends for i in range(size)]
            places, ids = torch.tensor(wanted, device=states.device).unbind(-1)
            logits = backbone.logits(states[places])
            of_tokens.append(logits.log_softmax(-1).gather(1, ids[:, None])[:, 0])
        sizes = [size for row in rows for _, size in row]
        means = iter([float(own.mean()) for own in torch.cat(of_tokens).cpu().split(sizes)])
        return [[next(means) for _ in row] for row in rows]

    texts: list[list[tuple[Ids, int]]] = [
        [([*question, *one], len(one)) for question, rest in row for one in rest] for row in asked
    ]
    longest = max(len(text) for row in texts for text, _ in row)
    found = map(iter, _each(backbone, prefix, texts, longest, LIKELY, chunk, work))
    return [[[next(own) for _ in rest] for _, rest in row] for own, row in zip(found, asked, strict=True)]


@torch.inference_mode()
def greedy_answers(
    backbone: Backbone,
    prefix: Prefix,
    questions: Sequence[Sequence[Ids]],
    max_new_tokens: int,
    chunk: Chunk | None = None,
) -> list[list[list[int]]]:
    """Greedy continuation of each question, without the end token, by clip; chunk as in next_token_logits().

    The questions of a clip and their answers are one row, so that all read one copy of the clip's KV cache.
    """
    device = backbone.device
    ends = torch.tensor(sorted(backbone.end_ids), device=device)
    # A generated placeholder is read as id 0, as in the PLLaVA reference; its own embedding was never trained.
    placeholders = torch.tensor(sorted(set(backbone.media_ids.values())), device=device)
    checked = 1 if device.type == "cpu" else STEPS_UNCHECKED

    def work(texts: list[Sequence[Ids]]) -> list[list[list[int]]]:
        row, hidden = _Row.read(backbone, prefix, texts)
        count = max(map(len, texts))
        # Of each question: place of its last token, position of that, whether there is such a question.
        places = [
            [(last, prefix.length + len(text) - 1, 1) for last, text in zip(lasts, own, strict=True)]
            for lasts, own in zip(_lasts(texts), texts, strict=True)
        ]
        padded = [[*own, *[(0, prefix.length, 0)] * (count - len(own))] for own in places]
        last, position, real = torch.tensor(padded, device=device).unbind(-1)  # [B, Q]
        states = hidden[torch.arange(len(texts), device=device)[:, None], last]
        owner, finished = torch.arange(1, count + 1, device=device).expand(len(texts), -1), real == 0
        written: list[Tensor] = []
        for step in range(1, max_new_tokens + 1):
            tokens = backbone.logits(states).argmax(-1)
            written.append(tokens)
            finished |= torch.isin(tokens, ends)
            if step == max_new_tokens or (step % checked == 0 and bool(finished.all())):
                break
            position = position + 1
            states = row.extend(tokens.masked_fill(torch.isin(tokens, placeholders), 0), owner, position)
        answers = torch.stack(written, dim=-1).tolist()  # [B, Q, steps]
        return [
            [list(takewhile(lambda token: token not in backbone.end_ids, answer)) for answer in own[: len(asked)]]
            for own, asked in zip(answers, texts, strict=True)
        ]

    longest = max(len(text) for row in questions for text in row) + max_new_tokens
    return _each(backbone, prefix, questions, longest, GENERATED, chunk, work)


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
    return {layer: states[layer].to(backbone.device) for layer in layers}, attention
