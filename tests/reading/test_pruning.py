"""Places of tokens, and tokens dropped after a layer, against transformers' forward of one whole sequence at a time."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch

from plain_reading import plainly
from random_models import SIDE, save
from videopool.models import load_backbone
from videopool.models.cost import layer_mean_tokens, prefill_flops, prefix_flops
from videopool.models.shape import own_shape
from videopool.models.sizes import Pruning
from videopool.models.texts import Stamps
from videopool.pooling import NoPooling, Subsample
from videopool.reading.answers import continuation_logprobs, greedy_answers, next_token_logits, prefill, question_chunk
from videopool.reading.chunks import Chunk
from videopool.reading.layout import arrange
from videopool.reading.module import VideoLM
from videopool.reading.prefix import Prefix, by_question

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
FAMILIES = ("llava", "llava_onevision")
ASKED = [
    ["is there any red star ?", "what is the background ? (A) grass (B) sand", "where does the square move ?"],
    ["how many objects are there ?"],
]
OPTIONS = ["left", "grass to sand", "star then circle"]
WHOLE = 40  # places of the grid
PLACES = torch.tensor([[0, 3, 4, 11, 12, 20, 19, 30, 39], [1, 2, 3, 5, 8, 13, 21, 34, 38]])  # one out of order


@pytest.fixture(scope="module", params=FAMILIES)
def models(request, tmp_path_factory):
    """A random model as the program reads it, and one that keeps its attention."""
    torch.manual_seed(24)  # of OneVision, one answer holds a placeholder
    folder = str(save(tmp_path_factory.mktemp(request.param), request.param))
    return load_backbone(folder), load_backbone(folder, attention="eager")


def tokens_of(backbone):
    """Nine tokens for each of two clips, finished by the family's separators."""
    return finished(backbone, torch.randn(2, 9, backbone.shape.dim, generator=torch.Generator().manual_seed(1)))


def finished(backbone, tokens):
    """Behind the tokens, the family's newline."""
    return arrange(backbone, tokens, (1, 3, 3), [Stamps([0.0], 1.0)] * len(tokens)).states


def split(backbone, text):
    return backbone.split_prompt(f"USER: {backbone.image_token}\n{text} ASSISTANT:")


def placed(backbone, places=PLACES):
    """Positions of tokens, separators, and of what follows them."""
    behind = WHOLE + torch.arange(backbone.separators + 1)
    return torch.cat([places, behind.expand(len(places), -1)], dim=1)


def answer_plainly(backbone, before, tokens, ids, steps, **more):
    """A placeholder that a model writes is read as token 0: there is no image for it."""
    answer, written = [], []
    for _ in range(steps):
        token = int(plainly(backbone, before, tokens, [*ids, *written], asked=len(ids), **more)[-1].argmax())
        if token in backbone.end_ids:
            break
        answer.append(token)
        written.append(0 if token in backbone.media_ids.values() else token)
    return answer


def read(backbone, before, ids, places=None, pruning=None, chunk=None):
    """Logits, mean log-probabilities of OPTIONS and greedy answers to all questions."""
    tokens, chunk = tokens_of(backbone), chunk or question_chunk(backbone)
    options = [backbone.tokenizer.encode(text, add_special_tokens=False) for text in OPTIONS]

    def ask(work, texts):
        return by_question(work, backbone, prefill(backbone, before, tokens, places, pruning), texts, chunk)

    rated = [[(question, options) for question in row] for row in ids]
    return (
        ask(next_token_logits, ids),
        ask(continuation_logprobs, rated),
        ask(partial(greedy_answers, max_new_tokens=5), ids),
    )


CASES = {
    "places": (True, None),
    "pruned": (False, Pruning(1, 0.34)),
    "pruned late": (False, Pruning(2, 0.5)),
    "both": (True, Pruning(2, 0.25)),
    "all stay": (False, Pruning(1, 1.0)),
    "one stays": (True, Pruning(1, 0.01)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_answers_are_those_of_transformers(models, case, attention):
    slow = models[1]
    backbone = slow if attention == "eager" else models[0]
    (original, pruning), tokens = CASES[case], tokens_of(slow)
    before = split(slow, "x")[0]
    ids = [[split(slow, text)[1] for text in row] for row in ASKED]
    places = placed(slow) if original else None
    logits, likely, answers = read(backbone, before, ids, places, pruning)
    for clip, row in enumerate(ids):
        more = {"positions": None if places is None else places[clip], "pruning": pruning}
        for number, question in enumerate(row):
            expected = plainly(slow, before, tokens[clip], question, asked=len(question), **more)[-1]
            torch.testing.assert_close(logits[clip][number], expected, **CLOSE)
            assert answers[clip][number] == answer_plainly(slow, before, tokens[clip], question, 5, **more)
            for option, mean in zip(OPTIONS, likely[clip][number], strict=True):
                rest = slow.tokenizer.encode(option, add_special_tokens=False)
                every = plainly(slow, before, tokens[clip], [*question, *rest], asked=len(question), **more)
                each = every[-len(rest) - 1 : -1].log_softmax(-1)[range(len(rest)), rest]
                assert mean == pytest.approx(float(each.mean()), abs=1e-4)


def test_each_question_keeps_tokens_of_its_own(models):
    """And the choice matters: other tokens give other answers."""
    backbone = models[0]
    before, tokens = split(backbone, "x")[0], tokens_of(backbone)
    ids = [split(backbone, text)[1] for text in ASKED[0]]
    prefix = prefill(backbone, before, tokens[:1], placed(backbone)[:1], Pruning(1, 0.34))
    own = prefix.of_questions(backbone, [0] * 3, ids)
    sizes = {layer.keys.shape[2] for layer in own.cache.layers[1:]}
    longest = max(map(len, ids))
    assert own.cache.layers[0].keys.shape[2] == prefix.length + longest
    assert sizes == {prefix.length - 6 + longest}
    values = own.cache.layers[1].values[:, :, len(before) : len(before) + 3]
    assert not torch.allclose(values[0], values[1])
    usual = read(backbone, before, [ids, ids[:1]])[0]
    for changed in ({"places": placed(backbone)}, {"pruning": Pruning(1, 0.34)}):
        other = read(backbone, before, [ids, ids[:1]], **changed)[0]
        assert (torch.stack(list(other[0])) - torch.stack(list(usual[0]))).abs().amax() > 1e-2


@pytest.mark.parametrize("room", [1, 10**12])
def test_the_size_of_a_chunk_changes_no_answer(models, room):
    backbone = models[0]
    before, ids = split(backbone, "x")[0], [[split(backbone, text)[1] for text in row] for row in ASKED]
    places, pruning = placed(backbone), Pruning(1, 0.34)
    whole = read(backbone, before, ids, places, pruning)
    parts = read(backbone, before, ids, places, pruning, question_chunk(backbone, room))
    for found, expected in zip(parts[0], whole[0], strict=True):
        torch.testing.assert_close(torch.stack(found), torch.stack(expected), **CLOSE)
    torch.testing.assert_close(parts[1], whole[1], **CLOSE)
    assert parts[2] == whole[2]


def test_lack_of_memory_halves_the_questions(models, monkeypatch, capsys):
    backbone = models[0]
    before, ids = split(backbone, "x")[0], [[split(backbone, text)[1] for text in row] for row in ASKED]
    whole, of_questions = read(backbone, before, ids, None, Pruning(2, 0.5)), Prefix.of_questions

    def short_of_memory(prefix, own, clips, questions):
        if len(questions) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return of_questions(prefix, own, clips, questions)

    monkeypatch.setattr(Prefix, "of_questions", short_of_memory)
    parts = read(backbone, before, ids, None, Pruning(2, 0.5), question_chunk(backbone, 10**12))
    assert parts[2] == whole[2]
    assert "out of memory with 4 questions" in capsys.readouterr().err


def test_a_blind_model_has_nothing_to_prune(models):
    backbone = models[0]
    nothing = finished(backbone, torch.zeros(1, 0, backbone.shape.dim))
    before, ids = split(backbone, ASKED[0][0])
    ((pruned,),) = by_question(
        next_token_logits, backbone, prefill(backbone, before, nothing, None, Pruning(1, 0.5)), [[ids]], Chunk(1, "")
    )
    ((usual,),) = next_token_logits(backbone, prefill(backbone, before, nothing), [[ids]])
    assert torch.equal(pruned, usual)


def test_of_equal_attention_the_first_tokens_stay(models):
    """Keys of zero: all positions draw the same."""
    backbone = copy.deepcopy(models[0])
    before, tokens = split(backbone, "x")[0], tokens_of(backbone)[:1]
    for weights in backbone.language_model.layers[0].self_attn.k_proj.parameters():
        weights.data.zero_()
    prefix = prefill(backbone, before, tokens, None, Pruning(1, 0.34))
    own = prefix.of_questions(backbone, [0], [split(backbone, ASKED[0][0])[1]])
    plain = prefill(backbone, before, tokens[:, :3], None)
    start = len(before)
    kept, first = own.cache.layers[1].values[:, :, start : start + 3], plain.cache.layers[1].values[:, :, start:]
    torch.testing.assert_close(kept, first[:, :, :3], **CLOSE)


def test_layers_read_as_many_tokens_as_counted(models):
    """Positions that enter each layer, counted by hooks, without those of the text."""
    backbone, pruning = models[0], Pruning(1, 0.34)
    before, ids = split(backbone, ASKED[0][0])
    tokens, seen = tokens_of(backbone)[:1], []
    blocks = backbone.language_model.layers
    hooks = [block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1])) for block in blocks]
    prefill(backbone, before, tokens, None, pruning).of_questions(backbone, [0], [ids])
    for hook in hooks:
        hook.remove()
    visual = sum(seen) - len(blocks) * (len(before) + len(ids))
    assert layer_mean_tokens(backbone.shape, tokens.shape[1], pruning) == pytest.approx(visual / len(blocks))


def test_hand_counts_of_layers_and_operations():
    shape = own_shape({"source": "videopool:shapes/mini_llava"})
    assert shape.layers == 5
    assert layer_mean_tokens(shape, 2304) == 2304
    assert layer_mean_tokens(shape, 2304, Pruning(1, 0.0625)) == 576  # (2304 + 4 * 144) / 5
    assert layer_mean_tokens(shape, 1152, Pruning(1, 0.375)) == 576  # (1152 + 4 * 432) / 5
    assert layer_mean_tokens(replace(shape, separators=1), 11, Pruning(2, 0.25)) == pytest.approx((2 * 11 + 3 * 3) / 5)
    one = replace(shape, layers=1)
    by_hand = 2 * prefill_flops(one, 2304 + 30) + 3 * prefill_flops(one, 230 + 30)
    assert prefix_flops(shape, 2304, Pruning(2, 0.1), 30) == pytest.approx(by_hand)
    assert prefix_flops(shape, 2304) == prefill_flops(shape, 2304)
    assert (layer_mean_tokens(shape, 0, Pruning(2, 0.1)), prefix_flops(shape, 0, Pruning(2, 0.1))) == (0, 0)


def test_separators_stand_behind_the_grid(models):
    """Two clips of two frames of 6 x 6 patches, of which five stay."""
    backbone = models[0]
    lm = VideoLM(backbone, Subsample(5, "highest_norm"))
    pixels = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    features = backbone.features(pixels).unflatten(0, (2, 2))
    clips = VideoLM(backbone, lm.pooling, original=True).arranged(features)
    tokens, places = clips.states, torch.cat([clips.positions, torch.tensor(clips.ends)[:, None]], 1)
    assert torch.equal(tokens, lm.visual_tokens(features))
    whole = VideoLM(backbone, NoPooling()).visual_tokens(features)
    for grid, own, at in zip(whole, tokens, places.tolist(), strict=True):
        assert at[5:] == list(range(72, 72 + backbone.separators + 1))
        torch.testing.assert_close(grid[at[:-1]], own)
        assert at == sorted(at) != list(range(len(at)))
