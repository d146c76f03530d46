"""The judge on this machine, with real models of the smallest size."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from chat_server import RIGHT
from videopool.chat import ChatError, RequestFailed
from videopool.judges import Item, LocalJudge

ITEM = Item("answer", ("who runs?",), "a dog", ("the dog",))


def save_model(folder, says=None, template=None, context=512):
    """A language model with random weights; or one that says one thing whatever it is asked, and then ends."""
    words = {"<unk>": 0, "</s>": 1, RIGHT: 2, "who": 3, "dog": 4, "no": 5}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=6, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=context, bos_token_id=None, eos_token_id=1, pad_token_id=None,
        )
    )  # fmt: skip
    if says is not None:
        with torch.no_grad():
            for parameter in model.model.layers.parameters():
                parameter.zero_()
            model.model.embed_tokens.weight.zero_()
            model.model.embed_tokens.weight[:, 0] = 1
            model.model.embed_tokens.weight[words[says]] = torch.eye(16)[1]
            model.lm_head.weight.zero_()
            model.lm_head.weight[words[says], 0] = 9
            model.lm_head.weight[1, 1] = 9
    model.save_pretrained(folder)
    return folder


def judge(folder, **more):
    settings = {"identity": "0123456789abcdef", "name": "tiny", "dtype": "float32", "device": "cpu", "max_tokens": 8}
    return LocalJudge(folder, **{**settings, **more})


def test_a_model_that_says_a_verdict(tmp_path):
    made = judge(save_model(tmp_path, says=RIGHT))
    made.check()
    reply = made.reply(ITEM.messages())
    assert ITEM.verdict(reply.text).right
    assert reply.completion_tokens == 2  # the verdict, and the end
    assert reply.prompt_tokens > 20
    assert made.id == "local:tiny@0123456789ab:float32:8:v1"
    made.close()
    assert made.reply(ITEM.messages()).text == reply.text  # loaded again


def test_random_weights_say_no_verdict_and_the_same_each_time(tmp_path):
    made = judge(save_model(tmp_path))
    first, second = made.reply(ITEM.messages()), made.reply(ITEM.messages())
    assert first == second
    with pytest.raises(RequestFailed):
        ITEM.verdict(first.text)


def test_the_chat_template_is_used(tmp_path):
    template = "{% for m in messages %}who {{ m['role'] }}{% endfor %}{% if add_generation_prompt %} dog{% endif %}"
    assert judge(save_model(tmp_path, template=template)).reply(ITEM.messages()).prompt_tokens == 4


def test_what_does_not_fit_is_a_failed_request(tmp_path):
    with pytest.raises(RequestFailed, match="do not fit the judge's context of 16") as caught:
        judge(save_model(tmp_path, context=16)).reply(ITEM.messages())
    assert not caught.value.again


def test_what_is_no_language_model_is_told_before_it_is_needed(tmp_path):
    with pytest.raises(ChatError, match=r"judge.source"):
        judge(tmp_path).check()
    save_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ChatError, match="clip is no language model"):
        judge(tmp_path).check()
    with pytest.raises(ChatError, match=r"judge.dtype=int8"):
        judge(tmp_path, dtype="int8")
    with pytest.raises(ChatError, match=r"judge.max_tokens"):
        judge(tmp_path, max_tokens=0)
