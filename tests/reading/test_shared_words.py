"""Texts of a clip that begin alike are read once, and answered as transformers answers each alone."""

import random

import pytest
import torch

from random_models import FAMILIES, lora_checkpoint, save
from videopool.models import attach, load_adapter, load_backbone
from videopool.reading.answers import continuation_logprobs, greedy_answers, next_token_logits, prefill, question_chunk
from videopool.reading.chunks import Chunk

BEFORE, NEW = [1, 7], 5
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
# Of two clips: a beginning that all share, one text twice, one that another begins with, one alike to none.
BEGINNING = [9, 8, 7, 6, 9, 8]
TEXTS = [
    [[*BEGINNING, 11, 12], [*BEGINNING, 11, 13, 14], [30], [*BEGINNING, 11, 12], [*BEGINNING, 11], [12, 9, 8, 7]],
    [[*BEGINNING, 40], [11, 12]],
]
OPTIONS = [[21], [22, 23, 24], [21, 25], [21, 25, 26], [22, 23, 27, 28]]


@pytest.fixture(scope="module", params=[*FAMILIES, "lora"])
def backbone(request, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    backbone = load_backbone(str(save(folder / "model", "llava" if request.param == "lora" else request.param)))
    if request.param == "lora":
        attach(backbone, load_adapter(lora_checkpoint(backbone, folder / "adapter")[0]), 8.0)
    backbone.end_ids = frozenset({-1})
    return backbone


@pytest.fixture(scope="module")
def tokens(backbone):
    return torch.randn(2, 20, backbone.shape.dim, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def alone(backbone, visual, text):
    """Logits [L, vocabulary] of one text behind a clip, by transformers' forward."""
    parts = [backbone.embed(torch.tensor(ids)) for ids in (BEFORE, text)]
    return backbone.model(inputs_embeds=torch.cat([parts[0], visual, parts[1]])[None]).logits[0, -len(text) :]


def read_lengths(backbone, monkeypatch):
    """The positions that the language model reads from now on, by call."""
    lengths, llm = [], backbone.llm
    monkeypatch.setattr(
        backbone, "llm", lambda embeddings, **options: lengths.append(embeddings.shape[1]) or llm(embeddings, **options)
    )
    return lengths


def distinct(texts):
    """How many beginnings texts have."""
    return len({tuple(text[: end + 1]) for text in texts for end in range(len(text))})


def test_questions_with_a_common_beginning(backbone, tokens, monkeypatch):
    prefixes = [prefill(backbone, BEFORE, tokens) for _ in range(2)]
    lengths = read_lengths(backbone, monkeypatch)
    logits = next_token_logits(backbone, prefixes[0], TEXTS)
    assert lengths == [distinct(TEXTS[0])]
    answers = greedy_answers(backbone, prefixes[1], TEXTS, NEW)
    assert lengths[1:] == [distinct(TEXTS[0])] + (NEW - 1) * [len(TEXTS[0])]
    monkeypatch.undo()
    for visual, texts, found, written in zip(tokens, TEXTS, logits, answers, strict=True):
        for text, own, answer in zip(texts, found, written, strict=True):
            torch.testing.assert_close(own, alone(backbone, visual, text)[-1], **CLOSE)
            plain, written = list(text), []
            while len(written) < NEW:
                written.append(int(alone(backbone, visual, plain)[-1].argmax()))
                # A placeholder that a model writes is read as token 0: there is no image for it.
                plain.append(0 if written[-1] in backbone.media_ids.values() else written[-1])
            assert answer == written


def test_options_of_a_question(backbone, tokens, monkeypatch):
    asked = [[(text, OPTIONS) for text in TEXTS[0]], [(TEXTS[1][0], OPTIONS[1:]), (TEXTS[1][1], OPTIONS[:2])]]
    prefix = prefill(backbone, BEFORE, tokens)
    lengths = read_lengths(backbone, monkeypatch)
    found = continuation_logprobs(backbone, prefix, asked)
    assert lengths == [distinct([[*text, *option] for text, options in asked[0] for option in options])]
    monkeypatch.undo()
    for visual, row, of_row in zip(tokens, asked, found, strict=True):
        for (text, options), means in zip(row, of_row, strict=True):
            for option, mean in zip(options, means, strict=True):
                logits = alone(backbone, visual, [*text, *option])[-len(option) - 1 : -1].double()
                each = logits.log_softmax(-1)[torch.arange(len(option)), option]
                assert mean == pytest.approx(float(each.mean()), abs=1e-4)


def random_texts(rng, count, begin):
    """Texts with the same beginning, and ends that part at any place."""
    return [[*begin, *(rng.randrange(10, 13) for _ in range(rng.randrange(1, 7)))] for _ in range(count)]


@pytest.mark.parametrize("seed", range(2))
def test_chunks_that_part_shared_words_change_nothing(backbone, tokens, seed):
    rng = random.Random(seed)
    asked = [random_texts(rng, count, BEGINNING) for count in (9, 4)]
    rated = [[(text, random_texts(rng, 3, [])) for text in row] for row in asked]
    outputs = []
    for size in (1, 3, 10**6):
        chunk = question_chunk(backbone, 10**12)
        chunk.each = lambda items, work, weight, most, chunk=chunk, size=size: Chunk.each(chunk, items, work, 1, size)
        likely = continuation_logprobs(backbone, prefill(backbone, BEFORE, tokens), rated, chunk)
        logits = next_token_logits(backbone, prefill(backbone, BEFORE, tokens), asked, chunk)
        outputs.append((logits, [torch.tensor(row) for row in likely]))
    for other in outputs[:2]:
        torch.testing.assert_close(other, outputs[2], **CLOSE)


def test_options_are_read_at_once_by_what_they_add(backbone, tokens, monkeypatch):
    """Of 40 options behind 100 words all fit in one pass; with the words for each it would take five."""
    options = [[number, number] for number in range(10, 50)]
    prefix = prefill(backbone, BEFORE, tokens[:1])
    lengths = read_lengths(backbone, monkeypatch)
    continuation_logprobs(backbone, prefix, [[([5] * 100, options)]])
    assert lengths == [100 + 2 * 40]
