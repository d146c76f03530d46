"""Questions in chunks that fit in memory: the same answers, bounded memory, linear time."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from random_models import save
from videopool.errors import out_of_memory
from videopool.models import load_backbone
from videopool.reading.answers import continuation_logprobs, greedy_answers, next_token_logits, prefill, question_chunk
from videopool.reading.chunks import Chunk

LACK = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried ..."
    ),
    "python": MemoryError(),
}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return load_backbone(str(save(tmp_path_factory.mktemp("model"), "llava")))


def asked_of(backbone, *counts):
    """The text before the clips, and so many different questions of different lengths on each."""
    words = ["is", "any", "red", "star", "or", "blue", "circle", "there", "before", "the", "green", "cross", "moves"]
    texts = [[" ".join(words[i % 7 : 9 + i % 5]) for i in range(count)] for count in counts]
    split = [[backbone.split_prompt(f"USER: <image>\n{text} ASSISTANT:") for text in row] for row in texts]
    return split[0][0][0], [[after for _, after in row] for row in split]


def read(backbone, chunk=None):
    """All outputs for 7, 1 and 3 questions on three clips."""
    before, asked = asked_of(backbone, 7, 1, 3)
    tokens = torch.randn(3, 20, backbone.shape.dim, generator=torch.Generator().manual_seed(0))
    rated = [[(question, [question[:3], question[:1]]) for question in row] for row in asked]
    logits = next_token_logits(backbone, prefill(backbone, before, tokens), asked, chunk)
    likely = continuation_logprobs(backbone, prefill(backbone, before, tokens), rated, chunk)
    return logits, likely, greedy_answers(backbone, prefill(backbone, before, tokens), asked, 6, chunk)


def same(found, expected):
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-4)
    assert found[2] == expected[2]


@pytest.mark.parametrize("most", [1, 2, 5, 7])
def test_the_size_of_a_chunk_changes_no_answer(backbone, monkeypatch, most):
    whole, seen, each = read(backbone), [], Chunk.each

    def counted(chunk, items, work, weight=1, limit=None):
        return each(chunk, items, lambda part: seen.append(len(part)) or work(part), weight, limit)

    monkeypatch.setattr(Chunk, "each", counted)
    chunk = question_chunk(backbone, 1)
    if most > 1:
        chunk.each = lambda items, work, weight, limit: counted(chunk, items, work, weight, most)
        chunk.size = 10**12
    same(read(backbone, chunk), whole)
    assert max(seen) == most


@pytest.mark.parametrize("error", LACK.values(), ids=LACK)
def test_lack_of_memory_halves_the_chunk_and_goes_on(backbone, monkeypatch, capsys, error):
    whole, llm, calls = read(backbone), backbone.llm, []

    def short_of_memory(embeddings, **options):
        """Has room for three questions of each clip; the second layer finds none, when the first has its cache."""
        calls.append(embeddings.shape[1])
        if embeddings.shape[1] > 60:
            options["past_key_values"].layers[0].update(*[torch.zeros(len(embeddings), 2, 5, 16)] * 2)
            raise error
        return llm(embeddings, **options)

    monkeypatch.setattr(backbone, "llm", short_of_memory)
    same(read(backbone, question_chunk(backbone, 10**12)), whole)
    assert "out of memory with 7 questions of each clip at once; going on with 3" in capsys.readouterr().err
    assert max(calls) > 60
    monkeypatch.setattr(backbone, "llm", lambda *given, **options: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)):
        read(backbone)


def test_other_errors_are_not_lack_of_memory():
    with pytest.raises(RuntimeError) as lack:
        torch.empty(1 << 60)
    assert out_of_memory(lack.value)
    chunk = Chunk(4, "things")
    with pytest.raises(RuntimeError, match="shape"):
        chunk.each(range(4), lambda part: (_ for _ in ()).throw(RuntimeError("wrong shape")))
    assert chunk.size == 4
    assert not out_of_memory(RuntimeError("wrong shape"))


def test_many_questions_cost_in_proportion(tmp_path):
    """Operations with attention's, which torch counts of eager attention alone; all in one row took 67 times."""
    backbone, flops = load_backbone(str(save(tmp_path, "llava")), attention="eager"), {}
    for count in (50, 500):
        before, asked = asked_of(backbone, count)
        # Which share no more than a word; 50 of 20 words fill a row.
        asked = [[[*divmod(number, 30), *2 * text][:20] for number, text in enumerate(asked[0])]]
        prefix = prefill(backbone, before, torch.zeros(1, 20, backbone.shape.dim))
        with FlopCounterMode(display=False) as counter:
            next_token_logits(backbone, prefix, asked)
        flops[count] = counter.get_total_flops()
    assert 9 < flops[500] / flops[50] < 13


def test_generated_answers_share_one_cache_of_their_clip(backbone):
    """25 questions on a clip of 500 tokens: the prefix is there once, each question adds what it does not share."""
    before, asked = asked_of(backbone, 25)
    prefix = prefill(backbone, before, torch.randn(1, 500, backbone.shape.dim))
    ends, backbone.end_ids = backbone.end_ids, frozenset({-1})
    try:
        greedy_answers(backbone, prefix, asked, 4)
    finally:
        backbone.end_ids = ends
    keys = prefix.cache.layers[0].keys
    assert keys.shape[0] == 1
    beginnings = {tuple(text[: end + 1]) for text in asked[0] for end in range(len(text))}
    assert keys.shape[2] == prefix.length + len(beginnings) + 25 * 3
