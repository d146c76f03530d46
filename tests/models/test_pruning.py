"""Places of tokens, and tokens dropped after a layer, against transformers' forward of one whole sequence at a time."""

import copy
from functools import partial

import pytest
import torch

from random_models import save
from videopool.models import load_backbone
from videopool.models.prefix import by_question
from videopool.models.reading import continuation_logprobs, greedy_answers, next_token_logits, prefill, question_chunk
from videopool.models.sizes import Pruning

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
    folder = str(save(tmp_path_factory.mktemp(request.param), request.param))
    return load_backbone(folder), load_backbone(folder, attention="eager")


def tokens_of(backbone):
    """Nine tokens for each of two clips, finished by the family's separators."""
    return backbone.finish(torch.randn(2, 9, backbone.shape.dim, generator=torch.Generator().manual_seed(1)))


def split(backbone, text):
    return backbone.split_prompt(f"USER: {backbone.image_token}\n{text} ASSISTANT:")


def placed(backbone, places=PLACES):
    """Positions of tokens, separators, and of what follows them."""
    behind = WHOLE + torch.arange(backbone.separators + 1)
    return torch.cat([places, behind.expand(len(places), -1)], dim=1)


@torch.inference_mode()
def plainly(backbone, before, tokens, ids, positions=None, pruning=None, asked=None):
    """Logits [after the last of the ids], from one sequence without any cache, by transformers' own forward.

    `asked` is how many of the ids are the question: the attention of its last token says which tokens stay.
    """
    ids = torch.tensor([[*before, *ids]])
    around = backbone.embed(ids)
    start, count = len(before), len(tokens)
    states = torch.cat([around[:, :start], tokens[None], around[:, start:]], dim=1)
    place = torch.arange(states.shape[1])
    if positions is not None:
        ends = start + int(positions[-1]) + torch.arange(states.shape[1] - start - count)
        place = torch.cat([place[:start], start + positions[:-1], ends])
    model = backbone.language_model
    if pruning is not None:
        ones = torch.ones(1, len(place))
        out = model(
            inputs_embeds=states, position_ids=place[None], attention_mask=ones, output_attentions=True,
            output_hidden_states=True, use_cache=False,
        )  # fmt: skip
        pooled = count - backbone.separators
        row = out.attentions[pruning.layer - 1][0].mean(0)[start + count + asked - 1, start : start + pooled]
        stay = sorted(sorted(range(pooled), key=lambda i: -float(row[i]))[: max(1, int(pruning.share * pooled))])
        kept = [*range(start), *(start + i for i in stay), *range(start + pooled, len(place))]
        states, place = out.hidden_states[pruning.layer][:, kept], place[kept]
        model = copy.copy(model)
        model._modules = {**model._modules, "layers": model.layers[pruning.layer :]}
    ones = torch.ones(1, len(place))
    hidden = model(inputs_embeds=states, position_ids=place[None], attention_mask=ones, use_cache=False)
    return backbone.logits(hidden.last_hidden_state[0])


def answer_plainly(backbone, before, tokens, ids, steps, **more):
    answer = []
    for _ in range(steps):
        token = int(plainly(backbone, before, tokens, [*ids, *answer], asked=len(ids), **more)[-1].argmax())
        if token in backbone.end_ids:
            break
        answer.append(token)
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
