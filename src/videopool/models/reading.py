"""What a language model makes of visual tokens and questions: next-token scores, and greedy answers.

The keys and values of a clip's prefix (text before the image, then the visual tokens) are computed once;
all questions of the clip are read behind it. For next-token scores and given answers they stand in one row, each blind
to the others, so that the prefix is not copied for each; for answers of its own each question has a row of its own.

Shapes: before [P0] ids; tokens [B, N, D]; questions[b][q] a list of ids; prefix length P = P0 + N.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from videopool.models.backbone import Backbone
from videopool.models.merging import Merged, additive
from videopool.models.stages import check_context


@dataclass
class Prefix:
    """A batch of clips, read. Used up by one call of next_token_logits, continuation_logprobs or greedy_answers."""

    cache: DynamicCache
    length: int
    batch: int


@torch.inference_mode()
def prefill(backbone: Backbone, before: Sequence[int], tokens: Tensor) -> Prefix:
    """Read the text before the image and the visual tokens [B, N, D] of clips with equally many of them."""
    batch = tokens.shape[0]
    ids = torch.tensor([list(before)], dtype=torch.long, device=backbone.device).expand(batch, -1)
    embedded = torch.cat([backbone.embed(ids), tokens.to(backbone.device, backbone.dtype)], dim=1)
    check_context(backbone.name, backbone.shape.context, embedded.shape[1])
    cache = DynamicCache(config=backbone.model.config.text_config)
    if embedded.shape[1]:  # a blind model may have nothing to read before the question
        backbone.llm(embedded, past_key_values=cache, use_cache=True)
    return Prefix(cache, embedded.shape[1], batch)


def _behind(
    backbone: Backbone, prefix: Prefix, texts: Sequence[Sequence[Sequence[int]]]
) -> tuple[Tensor, list[list[int]]]:
    """Hidden states [B, L, D] of texts in one row behind their clip, blind to each other, and where each begins."""
    device = backbone.device
    length = max(sum(len(text) for text in row) for row in texts)
    ids = torch.zeros(prefix.batch, length, dtype=torch.long)
    owner = torch.full((prefix.batch, length), -1)
    places = torch.zeros(prefix.batch, length, dtype=torch.long)
    first: list[list[int]] = []
    for row, row_texts in enumerate(texts):
        at, begins = 0, []
        for number, text in enumerate(row_texts):
            size = len(text)
            check_context(backbone.name, backbone.shape.context, prefix.length + size)
            ids[row, at : at + size] = torch.tensor(list(text))
            owner[row, at : at + size] = number
            places[row, at : at + size] = torch.arange(size)
            begins.append(at)
            at += size
        first.append(begins)
    same = owner[:, :, None] == owner[:, None, :]
    allowed = torch.ones(prefix.batch, length, prefix.length + length, dtype=torch.bool)
    allowed[:, :, prefix.length :] = same & torch.ones(length, length, dtype=torch.bool).tril()
    hidden = backbone.llm(
        backbone.embed(ids.to(device)),
        attention_mask=additive(allowed.to(device), backbone.dtype),
        position_ids=(places + prefix.length).to(device),
        past_key_values=prefix.cache,
        use_cache=True,
    ).last_hidden_state
    return hidden, first


@torch.inference_mode()
def next_token_logits(backbone: Backbone, prefix: Prefix, questions: Sequence[Sequence[Sequence[int]]]) -> list[Tensor]:
    """Logits [questions of the clip, vocabulary] (float32, CPU) for the token behind each question, by clip."""
    hidden, first = _behind(backbone, prefix, questions)
    last = [[at + len(q) - 1 for at, q in zip(*pair, strict=True)] for pair in zip(first, questions, strict=True)]
    return [backbone.logits(hidden[row, ends]).cpu() for row, ends in enumerate(last)]


Continued = tuple[Sequence[int], Sequence[Sequence[int]]]  # a question, and its continuations


@torch.inference_mode()
def continuation_logprobs(
    backbone: Backbone, prefix: Prefix, asked: Sequence[Sequence[Continued]]
) -> list[list[list[float]]]:
    """How likely the continuations of each question are: mean log-probability of their tokens, by clip.

    The mean and not the sum, so that long answers are not unlikely for their length (Brown et al. 2020,
    arXiv 2005.14165, section 2.4).

    Raises:
        ValueError: a question or a continuation is empty.
    """
    if any(not question or not all(rest) for row in asked for question, rest in row):
        raise ValueError("a question or one of its continuations has no token")
    texts = [[[*question, *one] for question, rest in row for one in rest] for row in asked]
    hidden, first = _behind(backbone, prefix, texts)
    found: list[list[list[float]]] = []
    for place, row in enumerate(asked):
        begins = iter(first[place])
        means: list[list[float]] = []
        for question, rest in row:
            of_question = []
            for one in rest:
                start = next(begins) + len(question) - 1
                logits = backbone.logits(hidden[place, start : start + len(one)])
                wanted = torch.tensor(list(one), device=logits.device)
                of_question.append(float(logits.log_softmax(-1).gather(1, wanted[:, None]).mean()))
            means.append(of_question)
        found.append(means)
    return found


@torch.inference_mode()
def greedy_answers(
    backbone: Backbone, prefix: Prefix, questions: Sequence[Sequence[Sequence[int]]], max_new_tokens: int
) -> list[list[list[int]]]:
    """Greedy continuation of each question, without the end token, by clip.

    Questions are padded on the right and padding is masked, so an answer does not depend on its neighbours.
    """
    device = backbone.device
    flat = [(row, list(question)) for row, row_questions in enumerate(questions) for question in row_questions]
    rows = torch.tensor([row for row, _ in flat], device=device)
    lengths = torch.tensor([len(question) for _, question in flat], device=device)
    longest = int(lengths.max())
    check_context(backbone.name, backbone.shape.context, prefix.length + longest + max_new_tokens)
    prefix.cache.batch_select_indices(rows)
    ids = torch.zeros(len(flat), longest, dtype=torch.long)
    for row, (_, question) in enumerate(flat):
        ids[row, : len(question)] = torch.tensor(question)
    steps = torch.arange(longest, device=device)
    real = steps[None] < lengths[:, None]  # [Q, longest]
    seen = torch.cat([torch.ones(len(flat), prefix.length, dtype=torch.bool, device=device), real], dim=1)
    causal = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
    allowed = seen[:, None, :].repeat(1, longest, 1)
    allowed[:, :, prefix.length :] &= causal
    hidden = backbone.llm(
        backbone.embed(ids.to(device)),
        attention_mask=additive(allowed, backbone.dtype),
        position_ids=(steps + prefix.length)[None].expand(len(flat), -1),
        past_key_values=prefix.cache,
        use_cache=True,
    ).last_hidden_state
    current = backbone.logits(hidden[torch.arange(len(flat), device=hidden.device), lengths - 1]).argmax(-1)
    answers = _continue(backbone, current, prefix.cache, seen, prefix.length + lengths, max_new_tokens)
    by_clip: list[list[list[int]]] = [[] for _ in questions]
    for (row, _), answer in zip(flat, answers, strict=True):
        by_clip[row].append(answer)
    return by_clip


@torch.inference_mode()
def generate(backbone: Backbone, merged: Merged, max_new_tokens: int) -> list[list[int]]:
    """Greedy continuation of each row of a merged batch, without the end token, whatever side it is padded on."""
    check_context(backbone.name, backbone.shape.context, int(merged.mask.sum(-1).max()) + max_new_tokens)
    cache = DynamicCache(config=backbone.model.config.text_config)
    hidden = backbone.llm(
        merged.embeddings,
        attention_mask=merged.mask,
        position_ids=merged.positions,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    lengths = merged.mask.sum(-1)
    last = (merged.mask * torch.arange(1, merged.mask.shape[1] + 1, device=merged.mask.device)).argmax(-1)
    current = backbone.logits(hidden[torch.arange(len(hidden), device=hidden.device), last]).argmax(-1)
    return _continue(backbone, current, cache, merged.mask == 1, lengths, max_new_tokens)


def _readable(backbone: Backbone, tokens: Tensor) -> Tensor:
    """New tokens as they are read back: one that stands for visual tokens has none here, and is read as id 0.

    So does the PLLaVA reference; the row of such a token in the embedding was never trained.
    """
    places = torch.tensor(sorted(set(backbone.media_ids.values())), device=tokens.device)
    return tokens.masked_fill(torch.isin(tokens, places), 0).to(backbone.device)


def _continue(
    backbone: Backbone, current: Tensor, cache: DynamicCache, seen: Tensor, lengths: Tensor, max_new_tokens: int
) -> list[list[int]]:
    """Greedy steps from the first new token of each row on.

    Args:
        current: [Q] the first new tokens.
        cache: keys and values of what was read.
        seen: [Q, K] which of them are not padding.
        lengths: [Q] how many were read: the position of the first new token.
    """
    rows = len(current)
    answers: list[list[int]] = [[] for _ in range(rows)]
    open_rows = set(range(rows))
    for step in range(max_new_tokens):
        for row in sorted(open_rows):
            token = int(current[row])
            if token in backbone.end_ids:
                open_rows.discard(row)
            else:
                answers[row].append(token)
        if not open_rows or step + 1 == max_new_tokens:
            break
        seen = torch.cat([seen, torch.ones(rows, 1, dtype=torch.bool, device=seen.device)], dim=1)
        hidden = backbone.llm(
            backbone.embed(_readable(backbone, current)[:, None]),
            attention_mask=additive(seen[:, None, :], backbone.dtype),
            position_ids=(lengths + step)[:, None],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        current = backbone.logits(hidden[:, -1]).argmax(-1)
    return answers
