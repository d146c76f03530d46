"""The prompt of a checkpoint's own chat template (prompt=chat_template, the default of a model of your own)."""

import json
from typing import Any

from videopool.benchmarks import Prompt
from videopool.config.choices import described
from videopool.config.errors import ConfigError
from videopool.errors import one_line
from videopool.models.configuration import load_config
from videopool.models.families import family_of, kind_of
from videopool.models.source import locate
from videopool.notes import note

QUESTION = "{question}"
NAME = "chat_template"
LETTER = ("{letter}. {text}", "")  # option and answer prefix where a letter begins a line, or follows a special token
BRACKET = ("({letter}) {text}", " (")  # elsewhere, so that the letter is a token of its own
# The date that some templates write is the same every day, as the prompt is part of the fingerprint; Llama 3's default.
DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}\n"


def template_prompt(
    source: str | None, revision: str | None, option: str | None = None, answer_prefix: str | None = None, **texts: Any
) -> Prompt:
    """The prompt that a model's chat template writes for one user message of the clip and the question.

    The clip stands where the template puts an image or a video; if it puts none, on a line before the question. A
    null option or answer_prefix becomes LETTER or BRACKET. Raises ConfigError if there is no template, or it writes no
    such message; ModelError for a source that cannot be read.
    """
    if source is None:
        raise ConfigError("prompt=chat_template: a model behind an API brings its own conversation; say prompt=api")
    template, tokenizer, tokens = _read(source, revision)
    if template is None:
        unknown = "it has no chat template, so the prompt that it was trained with is unknown"
        choices = f"say prompt=..., one of {described('prompt', (NAME, 'api'))}, or a file of your own"
        raise ConfigError(f"model.source={source}: {unknown}; {choices}")
    text = _conversation(source, template, tokenizer, tokens)
    end = text.partition(QUESTION)[2]
    special = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    usual = LETTER if end[-1:].isspace() or end.endswith(tuple(special)) else BRACKET
    option, answer_prefix = option or usual[0], usual[1] if answer_prefix is None else answer_prefix
    prompt = Prompt(text, option=option, answer_prefix=answer_prefix, **texts)
    note(f"prompt from the chat template of {source}: {json.dumps(prompt.pattern(True))}", once=True)
    return prompt


def _read(source: str, revision: str | None) -> tuple[str | None, Any, list[str]]:
    """The template, the tokenizer, and its tokens that stand for images and videos."""
    from videopool.models.loading import load_tokenizer  # needs transformers

    folder, config = locate(source, revision), load_config(source, revision)
    tokenizer = load_tokenizer(source, revision)
    ids = [getattr(config, f"{kind}_token_id", None) for kind in ("video", "image")]
    tokens = [tokenizer.convert_ids_to_tokens(id) for id in ids if id is not None and id < len(tokenizer)]
    template = tokenizer.chat_template
    # Processors keep theirs in files of its own; they are for images, and come first.
    for name in ("chat_template.json", "chat_template.jinja"):
        if (file := folder / name).is_file():
            try:
                content = file.read_text(encoding="utf-8")
                template = content if file.suffix == ".jinja" else json.loads(content)[NAME]
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"model.source={source}: {file} holds no chat template ({one_line(error)})") from None
    if isinstance(template, dict):
        template = template.get("default")
    tokens += family_of(kind_of(config)).clip_words
    return template, tokenizer, tokens or ["<image>"]  # loading refuses a tokenizer without a place for the clip


def _conversation(source: str, template: str, tokenizer: Any, tokens: list[str]) -> str:
    """The conversation up to the answer, with {image} and {question}."""
    reason = "it writes neither the clip nor the question"
    options = {"chat_template": DATE + template, "add_generation_prompt": True, "tokenize": False}
    text_part, place_part = {"type": "text", "text": QUESTION}, f"{tokens[0]}\n{QUESTION}"
    # From the one that leaves most to the template.
    contents: list[Any] = [[{"type": kind}, text_part] for kind in ("video", "image")]
    contents += [place_part, [{"type": "text", "text": place_part}]]
    for content in contents:
        try:
            text = tokenizer.apply_chat_template([{"role": "user", "content": content}], **options)
        except Exception as error:  # whatever a template raises for a message that it does not know
            reason = one_line(error)
            continue
        places = [token for token in tokens if token in text]
        if text.count(QUESTION) == 1 and "'type':" not in text and sum(map(text.count, places)) == 1:
            return str(text).replace(places[0], "{image}")
    raise ConfigError(f"model.source={source}: its chat template cannot be used ({reason}); say prompt=...")
