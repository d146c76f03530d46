"""prompt=chat_template: the prompt is what the checkpoint's own template writes, token for token."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlavaConfig, LlavaOnevisionConfig, PreTrainedTokenizerFast

from random_models import clip, save, siglip, text
from videopool.config.errors import ConfigError
from videopool.models import Backbone
from videopool.points.chat_template import template_prompt

PARTS = "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
PARTS += "{% if c.type == 'image' %}<image>\n{% elif c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}{% endif %}"
LOOP = "{% for m in messages %}"
QWEN = (
    LOOP + "{% if loop.first and m.role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}{{ '<|im_start|>' + m.role + '\n' }}" + PARTS + "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Content as a list alone, pictures first, as llava-hf's processors have it.
ONEVISION = (
    LOOP + "{{ '<|im_start|>' + m['role'] + ' ' }}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>' }}{% endfor %}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + c['text'] }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}{% else %}{% set day = '' %}{% endif %}"
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday: {{ day }}\n\n<|eot_id|>" + LOOP + "{{ "
    "'<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}" + LOOP + "{% if m.role not in ['user', 'assistant'] %}"
    "{{ raise_exception('only user and assistant roles') }}{% endif %}"
    "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}{% else %}{{ m.content + eos_token }}{% endif %}"
    "{% endfor %}"
)
VICUNA = (
    LOOP + "{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ m.role.upper() + ': ' }}" + PARTS + "{% endfor %}{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)
TEXT_LIST = LOOP + "{{ 'Q: ' }}{% for c in m.content %}{{ c['text'] }}{% endfor %}{% endfor %}{{ '\nA:' }}"

IMAGE, STRING, LIST = "image", "string", "list"  # how the oracle's message holds the clip


def contents(kind, question, mark="image"):
    listed = {"type": "text", "text": question}, {"type": "text", "text": f"<image>\n{question}"}
    return {IMAGE: [{"type": mark}, listed[0]], STRING: f"<image>\n{question}", LIST: [listed[1]]}[kind]


def made_tokenizer(style, bos):
    """Bytes without merges, or Llama's marks for spaces; with or without a beginning-of-text token before each text."""
    special = ["<s>", "</s>", "<unk>", "<image>", "<video>", "<|im_start|>", "<|im_end|>", "<|eot_id|>"]
    if style == "bytes":
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        made = Tokenizer(models.BPE({one: number for number, one in enumerate([*special, *letters])}, []))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.decoder = decoders.ByteLevel()
    else:
        letters = ["\u2581", *map(chr, range(33, 127)), "<0x0A>"]
        vocabulary = [(one, -9.0) for one in [*special, *letters]] + [("\u2581A", -1.0), ("\u2581B", -1.0)]
        made = Tokenizer(models.Unigram(vocabulary, unk_id=2, byte_fallback=True))
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    made.add_special_tokens([AddedToken(one, normalized=False, special=True) for one in special])
    if bos:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def saved(folder, tokenizer, template, onevision=False, at="tokenizer"):
    """A folder with what a prompt needs: no weights."""
    marks = {name: tokenizer.convert_tokens_to_ids(f"<{name}>") for name in ("image", "video")}
    from transformers import LlamaConfig

    if onevision:
        config = LlavaOnevisionConfig(
            vision_config=siglip(), text_config=text(LlamaConfig, tokenizer), image_token_index=marks["image"],
            video_token_index=marks["video"],
        )  # fmt: skip
    else:
        config = LlavaConfig(
            vision_config=clip(), text_config=text(LlamaConfig, tokenizer), image_token_index=marks["image"]
        )
    config.save_pretrained(folder)
    if at == "tokenizer":
        tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    tokenizer.chat_template = template
    if at == "tokenizer_config":
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": template}))
    elif at.startswith("chat_template"):
        content = template if at.endswith("jinja") else json.dumps({"chat_template": template})
        (folder / at).write_text(content)
    return str(folder)


TEXTS = {"multiple_choice": "{question}\n{options}", "separator": "\n", "describe": "Describe."}
CASES = [
    (QWEN, IMAGE, False),
    (ONEVISION, IMAGE, True),
    (LLAMA3, STRING, False),
    (MISTRAL, STRING, False),
    (VICUNA, IMAGE, False),
    (TEXT_LIST, LIST, False),
]


@pytest.mark.parametrize("bos", [True, False], ids=["bos", "no-bos"])
@pytest.mark.parametrize("style", ["bytes", "llama"])
@pytest.mark.parametrize(
    ("template", "kind", "onevision"), CASES, ids=["qwen", "onevision", "llama3", "mistral", "vicuna", "list"]
)
def test_a_prompt_has_the_tokens_of_the_template(tmp_path, template, kind, onevision, style, bos):
    tokenizer = made_tokenizer(style, bos)
    prompt = template_prompt(saved(tmp_path, tokenizer, template, onevision), None, **TEXTS)
    question = "Who {runs} <b>?"
    mark = "<video>" if onevision else "<image>"
    message = [{"role": "user", "content": contents(kind, question, "video" if onevision else "image")}]
    # Of a template that writes the date, always the same one.
    render = partial(
        tokenizer.apply_chat_template,
        message,
        chat_template=template.replace("strftime_now('%d %b %Y')", "'26 Jul 2024'"),
        add_generation_prompt=True,
    )
    wanted = render(tokenize=True, return_dict=False)
    if bos and wanted[0] != tokenizer.bos_token_id:  # a processor adds it where the template does not
        wanted = tokenizer.encode(render(tokenize=False))
    ids = {tokenizer.convert_tokens_to_ids(word) for word in ("<image>", "<video>")}
    reader = SimpleNamespace(tokenizer=tokenizer, media_ids=dict(enumerate(ids)), _split={}, image_token=mark)
    before, after = Backbone.split_prompt(reader, prompt.text(question, image=mark))
    assert [*before, tokenizer.convert_tokens_to_ids(mark), *after] == wanted
    assert wanted.count(tokenizer.bos_token_id) <= 1
    asked = prompt.text("Who?", ["a dog", "a cat"], image=mark)
    letters = Backbone.next_token_ids(reader, prompt.answer_start, "AB")
    assert len(set(letters)) == 2
    inside = "(A) a dog\n(B) a cat" if asked.endswith(" (") else "A. a dog\nB. a cat"
    assert inside in asked
    assert asked.endswith(" (") is (template in (MISTRAL, VICUNA, TEXT_LIST))


@pytest.mark.parametrize("at", ["tokenizer", "tokenizer_config", "chat_template.json", "chat_template.jinja"])
def test_a_template_is_found_where_it_is_kept(tmp_path, at):
    folder = saved(tmp_path, made_tokenizer("bytes", True), VICUNA, at=at)
    assert template_prompt(folder, None, **TEXTS).template == "USER: {image}\n{question} ASSISTANT:"
    own = template_prompt(folder, None, option="{letter}) {text}", answer_prefix=" Option ", **TEXTS)
    assert own.text("Who?", ["a"]).endswith("Who?\nA) a ASSISTANT: Option ")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('never') }}", "never"),
        ("{% for m in messages %", "chat template cannot be used"),
        ("hello", "neither the clip nor the question"),
    ],
)
def test_without_a_usable_template_a_prompt_is_asked_for(tmp_path, template, said):
    folder = saved(tmp_path, made_tokenizer("bytes", True), template)
    with pytest.raises(ConfigError) as caught:
        template_prompt(folder, None, **TEXTS)
    assert said in str(caught.value)
    assert "say prompt=..." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_of_ones_own_is_asked_with_its_template(videopool, tmp_path):
    folder = save(tmp_path / "own", "llava")
    common = ["model=local", f"model.source={folder}", "frames.num=1", "benchmark.limit=1", "job.workers=0"]
    refused = videopool(*common, check=1).stderr
    assert "has no chat template" in refused
    for word in ("vicuna (LLaVA-1.5 and LLaVA-1.6 on Vicuna)", "qwen (LLaVA-OneVision on Qwen2)", "plain (The bundled"):
        assert word in refused
    videopool(*common, "prompt=plain", "study=plain")
    (folder / "chat_template.jinja").write_text(VICUNA)
    told = videopool("-m", *common, "pooling=none,average", "study=own").stderr
    assert told.count(f"prompt from the chat template of {folder}: ") == 1
    for path in (tmp_path / "results" / "own").glob("*/run.json"):
        run = json.loads(path.read_text())
        assert run["identity"]["prompt"]["template"] == "USER: {image}\n{question} ASSISTANT:"
        assert any(pattern.endswith(" ASSISTANT: (") for pattern in run["prompts"].values())
        assert run["point"]["prompt"] == "chat_template"
    videopool("job=plan", *common[:3])
    videopool("job=norms", *common, "study=norms", "job.stages=[llm.1]", "job.clips=2")
    (folder / "chat_template.jinja").write_text(QWEN)
    videopool(*common, "study=own")
    assert len(list((tmp_path / "results" / "own").glob("*/run.json"))) == 3  # another template, another point
