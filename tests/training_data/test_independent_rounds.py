"""Questions of one clip that do not see each other: the same as each put alone."""

import pytest
import torch

from videopool.models import load_backbone
from videopool.pooling import Adaptive
from videopool.reading.merging import IGNORED
from videopool.reading.module import VideoLM
from videopool.training_data import Conversation, ConversationLayout, Round, encode_conversation

SAID = [
    Round("what colour is the circle ?", "red"),
    Round("how many objects are there ?", "2"),
    Round("is there any blue star ? (A) yes (B) no", "(B) no"),
]
LAYOUTS = [
    ConversationLayout(user="USER: ", user_closing=" ", own_turn=False),
    ConversationLayout(user="USER:", user_closing=" ", own_turn=True),
]


@pytest.fixture(scope="module")
def model():
    return VideoLM(load_backbone("videopool:shapes/mini_llava"), Adaptive((None, 3, 3)))


def losses(model, encoded, tokens):
    """Token losses of several conversations in one batch, by conversation."""
    length = max(len(one.input_ids) for one in encoded)
    ids, labels, mask = (torch.tensor(c) for c in zip(*(one.padded(length, 0) for one in encoded), strict=True))
    rounds = None
    if any(one.rounds for one in encoded):
        rounds = torch.tensor([one.padded_rounds(length) for one in encoded])
    found, rows = model.token_losses(ids, [[one] for one in tokens], mask, labels, rounds)
    return [found[rows == row] for row in range(len(encoded))]


@pytest.mark.parametrize("long", [1, 10_000], ids=["what is common read apart", "in one"])
@pytest.mark.parametrize("dialogue", [60, 2], ids=["long dialogue", "a dialogue that answers within what others share"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=["shared turn", "own turn"])
def test_losses_and_gradients_are_those_of_each_alone(model, layout, dialogue, long, monkeypatch):
    """Beside another clip with fewer rounds and a dialogue, padded."""
    monkeypatch.setattr("videopool.reading.module.LONG", long)
    rng = torch.Generator().manual_seed(0)
    tokens = [torch.randn(n, 128, generator=rng, requires_grad=True) for n in (40, 31, dialogue)]
    talks = [
        Conversation(SAID, system="look .", message=" now", independent=True),
        Conversation(SAID[1:], independent=True),
        Conversation(SAID),
    ]
    tokenizer = model.backbone.tokenizer
    together = losses(model, [encode_conversation(talk, tokenizer, 200, layout) for talk in talks], tokens)
    gradients = torch.autograd.grad(torch.cat(together).sum(), tokens)
    alone = []
    for talk, seen in zip(talks, tokens, strict=True):
        each = [Conversation([said], talk.system, talk.message) for said in talk.rounds] if talk.independent else [talk]
        parts = [losses(model, [encode_conversation(one, tokenizer, 200, layout)], [seen])[0] for one in each]
        alone.append(torch.cat(parts))
    expected = torch.autograd.grad(torch.cat(alone).sum(), tokens)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    dialogue = encode_conversation(Conversation(SAID, "look .", " now"), tokenizer, 200, layout)
    assert (
        losses(model, [dialogue], tokens[:1])[0][2:] - together[0][2:]
    ).abs().max() > 0.1  # there they see each other


def test_what_does_not_fit_is_left_out_by_whole_rounds(model):
    tokenizer, layout = model.backbone.tokenizer, LAYOUTS[0]
    whole = encode_conversation(Conversation(SAID, independent=True), tokenizer, 200, layout)
    one = encode_conversation(Conversation(SAID[:1]), tokenizer, 200, layout)
    room = len(one.input_ids) + 3
    cut = encode_conversation(Conversation(SAID, independent=True), tokenizer, room, layout)
    assert cut.input_ids == one.input_ids
    assert cut.labels == one.labels
    assert cut.lost == len(whole.input_ids) - len(one.input_ids)
    assert set(cut.rounds) == {0, 1}
    assert [label for label in whole.labels if label != IGNORED] == tokenizer(
        "red</s>2</s>(B) no</s>", add_special_tokens=False
    ).input_ids
