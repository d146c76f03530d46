"""Parts of a model on several devices, and weights that are brought when they are needed."""

from functools import partial

import pytest
import torch
from accelerate import cpu_offload

from pretended import FIRST, SECOND, Devices, spread
from random_models import FAMILIES, SIDE, save
from videopool.models import load_backbone
from videopool.models.sizes import Pruning
from videopool.pooling import NoPooling, TextGuided
from videopool.reading.answers import (
    STEPS_UNCHECKED,
    continuation_logprobs,
    greedy_answers,
    llm_states,
    next_token_logits,
    prefill,
)
from videopool.reading.chunks import Chunk
from videopool.reading.module import VideoLM
from videopool.reading.prefix import by_question

LAYERS = ("model.language_model.layers.1", "model.language_model.layers.2", "model.language_model.norm", "lm_head")
SECONDS = (*LAYERS, "model.vision_tower", "model.video_tower", "model.multi_modal_projector")
NEW = 9  # tokens of an answer


@torch.inference_mode()
def outputs(backbone):
    """Everything that is read of two clips, on the CPU."""
    pixels = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    guided = VideoLM(backbone, TextGuided((2, 3, 3)))
    texts = torch.stack([backbone.text_vector("star"), backbone.text_vector("circle")])
    features = backbone.features(pixels).to(backbone.device).unflatten(0, (2, 2))
    tokens = VideoLM(backbone, NoPooling()).visual_tokens(features)
    before, after = backbone.split_prompt(f"USER: {backbone.image_token}\nis there any red star ? ASSISTANT:")
    questions = [[after, after[2:]], [after[1:]]]
    asked = [[(after, [after[:2], after[:1]])], [(after, [after[3:4]])]]
    room = Chunk(10**12, "questions")
    pruned = [
        by_question(read, backbone, prefill(backbone, before, tokens, None, Pruning(1, 0.2)), questions, room)
        for read in (next_token_logits, partial(greedy_answers, max_new_tokens=NEW))
    ]
    states, _ = llm_states(backbone, tokens, [0, 2])
    return {
        "guided": guided.visual_tokens(features, texts).cpu(),
        "logits": torch.cat(next_token_logits(backbone, prefill(backbone, before, tokens), questions)),
        "answers": [greedy_answers(backbone, prefill(backbone, before, tokens), questions, NEW), pruned[1]],
        "pruned": torch.stack([*pruned[0][0], *pruned[0][1]]),
        "likely": continuation_logprobs(backbone, prefill(backbone, before, tokens), asked),
        "states": torch.stack(list(states.values())).cpu(),
    }


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    return save(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def alone(folder):
    """On one device; without an end token, so that answers are long."""
    return outputs(endless(folder))


def endless(folder):
    backbone = load_backbone(str(folder))
    backbone.end_ids = frozenset({-1})
    return backbone


def same(found, expected):
    assert found["answers"] == expected["answers"]
    for name in expected.keys() - {"answers"}:
        torch.testing.assert_close(found[name], expected[name])


def test_parts_on_two_devices_read_and_answer_as_on_one(folder, alone):
    with Devices() as devices, torch.inference_mode():
        backbone = spread(endless(folder), SECONDS)
        assert {one.device for one in backbone.model.parameters()} >= {FIRST, SECOND}
        same(outputs(backbone), alone)
        before, after = backbone.split_prompt(f"USER: {backbone.image_token}\nis there any red star ? ASSISTANT:")
        prefixes = [prefill(backbone, before, torch.zeros(2, 9, backbone.shape.dim)) for _ in range(2)]
        devices.counts.clear()
        next_token_logits(backbone, prefixes[0], [[after, after[1:]], [after]])
        assert +devices.counts == {"copies": 1}, "of all clips and questions"
        greedy_answers(backbone, prefixes[1], [[after, after[1:]], [after]], NEW)
        assert devices.counts == {"copies": 1, "waits": NEW // STEPS_UNCHECKED + 1}, "whether all ended; the answers"


def test_tensors_of_two_devices_cannot_be_mixed():
    with Devices(), pytest.raises(AssertionError, match="of tensors on"):
        torch.zeros(2, device=FIRST) + torch.zeros(2, device=SECOND)


def test_offloaded_weights_read_and_answer_as_others(folder, alone):
    backbone = endless(folder)
    cpu_offload(backbone.model)
    assert {weight.device.type for weight in backbone.model.parameters()} == {"meta"}
    same(outputs(backbone), alone)
