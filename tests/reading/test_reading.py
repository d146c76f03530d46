"""Shared prefixes, packed questions and padded answers against the plain path: one sequence at a time."""

import pytest
import torch
from transformers import LlavaForConditionalGeneration

from videopool.models import ModelError, load_backbone
from videopool.reading.answers import continuation_logprobs, greedy_answers, next_token_logits, prefill
from videopool.shapes.mini import mini_config, mini_image_processor
from videopool.shapes.tokenizer import build_tokenizer

QUESTIONS = [
    ["how many objects are there ?", "what colour is the star ? (A) red (B) blue", "is there any red star ?"],
    ["what is the background ?"],
    ["which object moves ? (A) circle (B) star (C) cross", "where does the square move ?"],
]


def save_random_model(folder, seed=0, **text):
    """A LLaVA of the mini model's size with random weights, as transformers saves it."""
    tokenizer = build_tokenizer()
    config = mini_config(tokenizer)
    for name, value in text.items():
        setattr(config.text_config, name, value)
    torch.manual_seed(seed)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    mini_image_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[{}, {"num_key_value_heads": 2}], ids=["heads", "grouped heads"])
def backbone(request, tmp_path_factory):
    return load_backbone(str(save_random_model(tmp_path_factory.mktemp("model"), **request.param)))


def split(backbone, question):
    return backbone.split_prompt(f"USER: <image>\n{question} ASSISTANT:")


def plain_sequence(backbone, tokens, question):
    before, after = split(backbone, question)
    parts = [backbone.embed(torch.tensor([before])), tokens[None], backbone.embed(torch.tensor([after]))]
    return torch.cat(parts, dim=1)


@torch.inference_mode()
def plain_answer(backbone, embedded, steps):
    answer = []
    for _ in range(steps):
        token = int(backbone.logits(backbone.llm(embedded, use_cache=False).last_hidden_state[0, -1]).argmax())
        if token in backbone.end_ids:
            break
        answer.append(token)
        embedded = torch.cat([embedded, backbone.embed(torch.tensor([[token]]))], dim=1)
    return answer


@pytest.mark.parametrize("visual", [0, 1, 50, 300])
def test_shared_prefix_equals_the_plain_path(backbone, visual):
    tokens = torch.randn(len(QUESTIONS), visual, backbone.shape.dim, generator=torch.Generator().manual_seed(visual))
    before = split(backbone, "x")[0]
    ids = [[split(backbone, question)[1] for question in row] for row in QUESTIONS]
    packed = next_token_logits(backbone, prefill(backbone, before, tokens), ids)
    answers = greedy_answers(backbone, prefill(backbone, before, tokens), ids, max_new_tokens=6)
    for clip, row in enumerate(QUESTIONS):
        for place, question in enumerate(row):
            embedded = plain_sequence(backbone, tokens[clip], question)
            with torch.inference_mode():
                expected = backbone.logits(backbone.llm(embedded, use_cache=False).last_hidden_state[0, -1])
            torch.testing.assert_close(packed[clip][place], expected, rtol=1e-4, atol=1e-4)
            assert answers[clip][place] == plain_answer(backbone, embedded, 6)


def test_how_likely_continuations_are_equals_the_plain_path(backbone):
    """Of one and of several tokens: one sequence at a time, token by token, in float64."""
    tokens = torch.randn(2, 20, backbone.shape.dim, generator=torch.Generator().manual_seed(0))
    asked = [
        [
            ("where does the star move ?", ["left", "right", "up", "down"]),
            ("what is there ?", ["star then circle", "star"]),
        ],
        [("how does the background change ?", ["grass to sand", "sand to grass", "night to water"])],
    ]
    before = split(backbone, "x")[0]
    pairs = [[backbone.continued(f"USER: <image>\n{q} ASSISTANT:", rest) for q, rest in row] for row in asked]
    found = continuation_logprobs(backbone, prefill(backbone, before, tokens), pairs)
    for clip, row in enumerate(asked):
        for place, (question, rest) in enumerate(row):
            embedded = plain_sequence(backbone, tokens[clip], question)
            for option, mean in zip(rest, found[clip][place], strict=True):
                ids = backbone.tokenizer.encode(option, add_special_tokens=False)
                whole = torch.cat([embedded, backbone.embed(torch.tensor([ids]))], dim=1)
                with torch.inference_mode():
                    hidden = backbone.llm(whole, use_cache=False).last_hidden_state[0, -len(ids) - 1 : -1]
                    logits = backbone.logits(hidden).double()
                each = [float(row[i] - torch.logsumexp(row, 0)) for row, i in zip(logits, ids, strict=True)]
                assert mean == pytest.approx(sum(each) / len(each), abs=1e-4)


def test_continuations_begin_where_tokens_part(backbone):
    question, (one, two) = backbone.continued("USER: <image>\nwhat ? ASSISTANT:", ["red star", "red"])
    assert backbone.tokenizer.decode(question).endswith(":")
    assert [len(one), len(two)] == [2, 1]
    with pytest.raises(ModelError, match="adds no token"):
        backbone.continued("USER: <image>\nwhat ? ASSISTANT:", ["red", ""])


def test_nothing_may_stand_before_the_question(backbone):
    """No visual tokens, and a prompt that begins with their place."""
    nothing, ids = torch.zeros(1, 0, backbone.shape.dim), split(backbone, QUESTIONS[0][0])[1]
    (logits,) = next_token_logits(backbone, prefill(backbone, [], nothing), [[ids]])
    embedded = backbone.embed(torch.tensor([ids]))
    with torch.inference_mode():
        expected = backbone.logits(backbone.llm(embedded, use_cache=False).last_hidden_state[0, -1])
    torch.testing.assert_close(logits[0], expected, rtol=1e-4, atol=1e-4)
    ((answer,),) = greedy_answers(backbone, prefill(backbone, [], nothing), [[ids]], 6)
    assert answer == plain_answer(backbone, embedded, 6)


def test_answers_end_at_the_end_token(backbone):
    tokens = torch.randn(1, 9, backbone.shape.dim)
    before, after = split(backbone, QUESTIONS[0][0])
    (full,) = greedy_answers(backbone, prefill(backbone, before, tokens), [[after]], 8)[0]
    ends, backbone.end_ids = backbone.end_ids, frozenset({full[2]})
    try:
        (short,) = greedy_answers(backbone, prefill(backbone, before, tokens), [[after]], 8)[0]
    finally:
        backbone.end_ids = ends
    assert short == full[: full.index(full[2])]


def test_tower_features_are_those_of_transformers(backbone):
    pixels = torch.randn(70, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    grid = backbone.grid(backbone.features(pixels))
    assert grid.shape == (70, 12, 12, 128)
    with torch.inference_mode():
        expected = backbone.model.model.get_image_features(pixels[60:62]).pooler_output
    projected = backbone.project(grid[60:62]).flatten(1, 2)
    torch.testing.assert_close(projected, torch.stack(list(expected)), rtol=1e-4, atol=1e-4)


def test_whole_model_equals_transformers_forward(backbone):
    """One image, unpooled: our parts in a row are transformers' forward."""
    pixels = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    before, after = split(backbone, QUESTIONS[0][1])
    tokens = backbone.project(backbone.grid(backbone.features(pixels))).flatten(1, 2)
    ours = next_token_logits(backbone, prefill(backbone, before, tokens), [[after]])[0][0]
    image = [backbone.model.config.image_token_id] * 144
    with torch.inference_mode():
        theirs = backbone.model(input_ids=torch.tensor([[*before, *image, *after]]), pixel_values=pixels).logits[0, -1]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_letters_behind_a_prompt_are_single_tokens(backbone):
    ids = backbone.next_token_ids(" ASSISTANT: (", "ABCD")
    assert backbone.tokenizer.convert_ids_to_tokens(ids) == ["a", "b", "c", "d"]
    with pytest.raises(ModelError, match="not one token"):
        backbone.next_token_ids(" ASSISTANT: (", ["red circle"])


def test_too_many_tokens_are_told(tmp_path):
    backbone = load_backbone(str(save_random_model(tmp_path, max_position_embeddings=64)))
    with pytest.raises(ModelError, match="do not fit"):
        prefill(backbone, [1], torch.zeros(1, 64, 128))


def test_bad_models_end_in_one_line(tmp_path):
    save_random_model(tmp_path / "good")
    cases = {
        "empty": "no config.json",
        "broken": "no configuration",
        "other": "not supported",
        "missing": "missing keys",
    }
    for name in cases:
        (tmp_path / name).mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    for file in (tmp_path / "good").iterdir():
        (tmp_path / "missing" / file.name).write_bytes(file.read_bytes())
    from safetensors.torch import load_file, save_file

    weights = load_file(tmp_path / "good" / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layers.1.self_attn.q_proj" not in name}
    save_file(kept, tmp_path / "missing" / "model.safetensors", metadata={"format": "pt"})
    for name, words in cases.items():
        with pytest.raises(ModelError, match=words) as caught:
            load_backbone(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="is no folder"):
        load_backbone("./nowhere")
    with pytest.raises(ModelError, match="choose one of float32"):
        load_backbone(str(tmp_path / "good"), dtype="int8")
