"""What the language model reads, and what it answers: next-token scores, greedy answers, hidden states.

The KV cache of a clip's prefix (text before the image, then the visual tokens) is computed once and serves all
questions of the clip, which are read, and answered, in one row, each blind to the others: the prefix is not copied for
each. Words that questions, or a question's options, begin with are read once. Rows are cut into chunks, so that memory
is bounded and time linear in the number of questions.

Shapes: before [P0] ids; tokens [B, N, D]; questions[b][q] a list of ids; prefix length P = P0 + N.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from videopool.models.backbone import Backbone
from videopool.models.cost import GENERATED, LIKELY, question_bytes
from videopool.models.errors import ModelError
from videopool.models.passes import layer_states
from videopool.models.sizes import Pruning
from videopool.models.stages import check_context
from videopool.reading.chunks import Chunk, free_bytes
from videopool.reading.layout import Arranged, plain
from videopool.reading.positions import turned
from videopool.reading.prefix import Prefix, additive, read_layers
from videopool.reading.prompt_tree import Ids, branches, room

STEPS_UNCHECKED = 4  # tokens that an accelerator generates before the host asks whether all answers have ended
Item = TypeVar("Item")
Continued = tuple[Ids, Sequence[Ids]]  # a question, and its continuations


@torch.inference_mode()
def prefill(
    backbone: Backbone, before: Ids, tokens: Tensor, places: Tensor | None = None, pruning: Pruning | None = None
) -> Prefix:
    """Read the text before the image and the visual tokens [B, N, D] of clips, separators included.

    places: [B, N + 1] positions of the tokens and of what follows them, from the first token on; None: one after
    another. Otherwise as prefill_clips().
    """
    return prefill_clips(backbone, [before] * len(tokens), plain(tokens, backbone.separators, places), pruning)


@torch.inference_mode()
def prefill_clips(backbone: Backbone, before: Sequence[Ids], clips: Arranged, pruning: Pruning | None = None) -> Prefix:
    """Read the text before each of some clips, and the clip.

    Shorter ones are padded behind. Under pruning no layer after its own is read. Raises ModelError if the positions
    exceed the context.
    """
    device, count = backbone.device, len(before)
    starts, original = [len(ids) for ids in before], clips.positions is not None
    rows, positions = list[Tensor](), list[Tensor]()
    for clip, ids in enumerate(before):
        words, length = torch.tensor(list(ids), dtype=torch.long, device=device), clips.lengths[clip]
        rows.append(torch.cat([backbone.words(words), clips.row(clip).to(device, backbone.dtype)]))
        own = torch.arange(length) if clips.positions is None else clips.positions[clip, :length].cpu()
        text = torch.arange(len(ids))
        positions.append(torch.cat([text if own.dim() == 1 else text[:, None].expand(-1, 3), len(ids) + own]))
    prefix = Prefix(count)
    prefix.ends = [start + end for start, end in zip(starts, clips.ends, strict=True)]
    prefix.tops = [start + top for start, top in zip(starts, clips.tops or clips.ends, strict=True)]
    check_context(backbone.name, backbone.shape.context, max(prefix.tops), original)
    lengths = [len(row) for row in rows]
    embedded = pad_sequence(rows, batch_first=True)
    places = pad_sequence(positions, batch_first=True).to(device) if original or pruning is not None else None
    del rows, positions  # as large as their copies
    prefix.length = embedded.shape[1]
    if min(lengths) < prefix.length:  # padding stands behind, so nothing before it sees it
        prefix.seen = (torch.arange(prefix.length) < torch.tensor(lengths)[:, None]).to(device)
    pooled = clips.at.shape[1]
    if pruning is not None and places is not None and pruning.kept(pooled) < pooled:
        prefix.pruning, prefix.positions = pruning, places
        visual = torch.zeros(embedded.shape[:2], dtype=torch.bool)
        prefix.visual = visual.scatter(1, torch.tensor(starts)[:, None] + clips.at.cpu(), True).to(device)
        prefix.states = read_layers(backbone, slice(pruning.layer), embedded, None, turned(places), prefix.cache)
    elif embedded.shape[1]:  # a blind model may have nothing to read before the question
        used = turned(places) if original and places is not None else None
        backbone.read(embedded, positions=used, cache=prefix.cache)
    return prefix


def question_chunk(backbone: Backbone, bytes_: int | None = None) -> Chunk:
    """The memory for the questions read at once: so many bytes, or half of what is free on the model's device."""
    return Chunk(bytes_ or free_bytes(backbone.device) // 2, "questions of each clip")


@dataclass(frozen=True)
class _Tree:
    """Texts of each clip, read after it: shared beginnings once, and each blind to the words that are not its own."""

    paths: list[list[list[int]]]  # places of each token, by clip and text
    seen: Tensor  # [B, L, P + L] whether a position sees another
    hidden: Tensor  # [B, L, D]

    @classmethod
    def read(cls, backbone: Backbone, prefix: Prefix, texts: Sequence[Sequence[Ids]]) -> "_Tree":
        rows, paths = zip(*map(branches, texts), strict=True)
        nodes = pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(backbone.device)
        ids, depth, below = nodes.unbind(-1)  # [B, L]
        place = torch.arange(ids.shape[1], device=backbone.device)
        seen = (place[:, None] - place <= below[:, None]).tril()
        seen = torch.cat([prefix.visible(ids), seen], dim=-1)
        hidden = prefix.read(backbone, backbone.embed(ids), additive(seen, backbone.dtype), depth)
        return cls(list(paths), seen, hidden)


def _each(
    backbone: Backbone,
    prefix: Prefix,
    texts: Sequence[Sequence[Item]],
    fitting: tuple[int, int],
    chunk: Chunk | None,
    work: Callable[[list[Sequence[Item]]], Sequence[Sequence[Any]]],
) -> list[list[Any]]:
    """The outputs of `work` on chunks of each clip's texts, by clip and text; `fitting` from room()."""
    longest, most = fitting
    check_context(backbone.name, backbone.shape.context, max(prefix.ends) + longest)
    outputs: list[list[Any]] = [[] for _ in texts]

    def read(part: Sequence[int]) -> None:
        clips = [clip for clip, row in enumerate(texts) if len(row) > part[0]]
        prefix.rewind(clips)
        rows = [texts[clip][part[0] : part[-1] + 1] for clip in clips]
        for clip, row in zip(clips, work(rows), strict=True):
            outputs[clip] += row

    weight = len(texts) * question_bytes(backbone.shape, longest, backbone.dtype.itemsize)
    (chunk or question_chunk(backbone)).each(range(max(map(len, texts))), read, weight, most)
    return outputs


@torch.inference_mode()
def next_token_logits(
    backbone: Backbone, prefix: Prefix, questions: Sequence[Sequence[Ids]], chunk: Chunk | None = None
) -> list[Tensor]:
    """Logits [questions of the clip, vocabulary] (float32, CPU) of the token after each question, by clip.

    The chunk bounds the questions read at once; it changes no answer.
    """

    def work(texts: list[Sequence[Ids]]) -> list[list[Tensor]]:
        tree = _Tree.read(backbone, prefix, texts)
        places = [(row, path[-1]) for row, paths in enumerate(tree.paths) for path in paths]
        rows, lasts = torch.tensor(places, device=backbone.device).unbind(-1)
        logits = backbone.logits(tree.hidden[rows, lasts]).cpu()
        return [[own] for own in logits.split([len(row) for row in texts])]

    return [torch.cat(own) for own in _each(backbone, prefix, questions, room(questions, LIKELY), chunk, work)]


def continuation_logprobs(
    backbone: Backbone, prefix: Prefix, asked: Sequence[Sequence[Continued]], chunk: Chunk | None = None
) -> list[list[list[float]]]:
    """Mean log-probability of the tokens of each continuation, by question and clip; chunk as in next_token_logits().

    The mean and not the sum, so that long answers are not unlikely for their length (Brown et al. 2020, arXiv
    2005.14165, section 2.4). Raises ValueError if a question or a continuation is empty.
    """
    scores = continuation_scores(backbone, prefix, asked, chunk)
    return [[[logprob for logprob, _ in rest] for rest in row] for row in scores]


@torch.inference_mode()
def continuation_scores(
    backbone: Backbone, prefix: Prefix, asked: Sequence[Sequence[Continued]], chunk: Chunk | None = None
) -> list[list[list[tuple[float, bool]]]]:
    """As continuation_logprobs(), each with whether the continuation is what greedy decoding writes."""
    if any(not question or not all(rest) for row in asked for question, rest in row):
        raise ValueError("a question or one of its continuations has no token")

    def work(rows: list[Sequence[tuple[Ids, int]]]) -> list[list[tuple[float, bool]]]:
        tree = _Tree.read(backbone, prefix, [[text for text, _ in row] for row in rows])
        of_tokens, likeliest = list[Tensor](), list[Tensor]()
        for states, row, paths in zip(tree.hidden, rows, tree.paths, strict=True):
            texts = zip(row, paths, strict=True)
            wanted = [(path[-i - 1], text[-i]) for (text, size), path in texts for i in range(size, 0, -1)]
            before, ids = torch.tensor(wanted).unbind(-1)
            places, index = before.unique(return_inverse=True)
            logits, (index, ids) = backbone.logits(states[places]), torch.stack([index, ids]).to(states.device)
            of_tokens.append(logits[index, ids] - logits.logsumexp(-1)[index])
            likeliest.append(logits.argmax(-1)[index] == ids)
        sizes = [size for row in rows for _, size in row]
        found = torch.cat(of_tokens)
        both = torch.stack([found, torch.cat(likeliest).to(found)]).cpu()  # one copy from the device
        scores = iter([(float(own[0].mean()), bool(own[1].all())) for own in both.split(sizes, 1)])
        return [[next(scores) for _ in row] for row in rows]

    rows: list[list[tuple[Ids, int]]] = [
        [([*question, *one], len(one)) for question, rest in row for one in rest] for row in asked
    ]
    fitting = room([[text for text, _ in row] for row in rows], LIKELY)
    found = map(iter, _each(backbone, prefix, rows, fitting, chunk, work))
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
        tree, count = _Tree.read(backbone, prefix, texts), max(map(len, texts))
        # Of each question: place of its last token, its length, and 1; zeros for those that a clip does not have.
        places = [torch.tensor([(path[-1], len(path), 1) for path in paths]) for paths in tree.paths]
        last, length, real = pad_sequence(places, batch_first=True).to(device).unbind(-1)  # [B, Q]
        clips, own = torch.arange(len(texts), device=device)[:, None], torch.eye(count, device=device, dtype=torch.bool)
        # Behind the highest position, as transformers' rope_deltas have it.
        tops = torch.tensor(prefix.tops, device=device) - torch.tensor(prefix.ends, device=device)
        length = torch.maximum(length, tops[:, None])
        states, seen, finished = tree.hidden[clips, last], tree.seen[clips, last], real == 0
        written: list[Tensor] = []
        for step in range(1, max_new_tokens + 1):
            tokens = backbone.logits(states).argmax(-1)
            written.append(tokens)
            finished |= torch.isin(tokens, ends)
            if step == max_new_tokens or (step % checked == 0 and bool(finished.all())):
                break
            seen = torch.cat([seen, own.expand(len(texts), -1, -1)], dim=-1)
            fresh = backbone.embed(tokens.masked_fill(torch.isin(tokens, placeholders), 0))
            states = prefix.read(backbone, fresh, additive(seen, backbone.dtype), length + step - 1)
        answers = torch.stack(written, dim=-1).tolist()  # [B, Q, steps]
        return [
            [list(takewhile(lambda token: token not in backbone.end_ids, answer)) for answer in own[: len(asked)]]
            for own, asked in zip(answers, texts, strict=True)
        ]

    return _each(backbone, prefix, questions, room(questions, GENERATED, max_new_tokens), chunk, work)


@torch.inference_mode()
def llm_states(
    backbone: Backbone,
    embeddings: Tensor,
    layers: Sequence[int],
    attention_layers: Sequence[int] = (),
    positions: Tensor | None = None,
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Hidden states [B, L, D] after some layers of the language model, and attention [B, L] in some layers.

    Attention is that of the last position, mean over heads, float32, summing to 1. Embeddings [B, L, D] are whole
    sequences without padding, at positions [1, L] or [3, 1, L] (None: one after another). Layer 0 is the input of the
    first layer, i the output of the i-th, before the final norm; layers after the last wanted one do not run. Raises
    ModelError if the sequence is longer than the context, or the attention implementation keeps no weights.
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
        states = layer_states(blocks, lambda: backbone.llm(embeddings, position_ids=positions, use_cache=False), wanted)
    states = {layer: states[layer].to(backbone.device) for layer in layers}
    return {layer: backbone.deepened(own, embeddings, layer) for layer, own in states.items()}, attention
