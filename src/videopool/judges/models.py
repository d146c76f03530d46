"""Judges that are language models: behind a server, or on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videopool.chat import ChatEndpoint, ChatError, Reply, TooLong, check_number
from videopool.judges.protocol import PROTOCOL

DTYPES = ("float32", "bfloat16", "float16")
UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError)


class EndpointJudge(ChatEndpoint):
    """A model behind an OpenAI-compatible server, asked at temperature 0.

    `max_tokens` bounds a verdict; other arguments are ChatEndpoint's. Raises ChatError for a wrong one.
    """

    def __init__(self, model: str, max_tokens: int, **endpoint: Any) -> None:
        check_number("judge.max_tokens", max_tokens, 1, whole=True)
        super().__init__("judge", model=model, **endpoint)
        self.max_tokens = max_tokens
        self.id = f"openai:{model}@{self.base_url}:{max_tokens}:v{PROTOCOL}"
        self.label = f"openai {model}"

    def check(self) -> None:
        """Raises ChatError if there is no key."""
        self.require_key()

    def reply(self, messages: Sequence[dict[str, str]]) -> Reply:
        """One reply. Raises RequestFailed or ChatError."""
        return self.complete(messages, self.max_tokens)


class LocalJudge:
    """A causal language model of Hugging Face, decoded greedily. Raises ChatError for a wrong argument.

    Requests use its tokenizer's chat template, or plain paragraphs if there is none. The identity of the model's files
    and its readable name are part of the judge's id; conf/judge/local.yaml explains the other arguments.
    """

    concurrency = 1
    retries = 1  # names the fault of the first reply: the same request would get the same reply
    backoff = 0.0

    def __init__(self, folder: Path, identity: str, name: str, dtype: str, device: str, max_tokens: int) -> None:
        if dtype not in DTYPES:
            raise ChatError(f"judge.dtype={dtype}: choose one of {', '.join(DTYPES)}")
        check_number("judge.max_tokens", max_tokens, 1, whole=True)
        self.folder, self.name, self.dtype, self.device, self.max_tokens = folder, name, dtype, device, max_tokens
        self.id = f"local:{name}@{identity.rpartition('@')[2][:12]}:{dtype}:{max_tokens}:v{PROTOCOL}"
        self.label = f"local {name}"
        self._model: Any = None
        self._tokenizer: Any = None

    def check(self) -> None:
        """Read configuration and tokenizer, without the weights. Raises ChatError if they cannot be read."""
        from transformers import AutoConfig, AutoTokenizer
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        try:
            kind = AutoConfig.from_pretrained(str(self.folder)).model_type
            self._tokenizer = AutoTokenizer.from_pretrained(str(self.folder))
        except UNREADABLE as error:
            raise self._error(error) from error
        if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise ChatError(f"judge.source={self.folder}: {kind} is no language model")

    def _load(self) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.check()
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(
                str(self.folder), dtype=getattr(torch, self.dtype), use_safetensors=True
            )
            self._model = model.to(auto if self.device == "auto" else self.device).eval()
        except UNREADABLE as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> ChatError:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return ChatError(f"judge.source={self.folder}: {lines[0][:300]}")

    def reply(self, messages: Sequence[dict[str, str]]) -> Reply:
        """The greedy reply; the first one loads the model.

        Raises TooLong if the request is too long, and ChatError if the model cannot be loaded.
        """
        import torch

        if self._model is None:
            self._load()
        tokenizer = self._tokenizer
        if templated := tokenizer.chat_template is not None:
            text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        else:
            text = "\n\n".join(message["content"] for message in messages) + "\n"
        encoded = tokenizer(text, return_tensors="pt", add_special_tokens=not templated)
        ids = encoded["input_ids"].to(self._model.device)  # [1, tokens]
        context = getattr(self._model.config, "max_position_embeddings", None)
        if context is not None and ids.shape[1] + self.max_tokens > context:
            length = ids.shape[1]
            raise TooLong(f"{length} tokens do not fit the judge's context of {context}", length, context)
        pad = tokenizer.pad_token_id
        with torch.inference_mode():
            answer = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=self.max_tokens,
                do_sample=False,
                pad_token_id=tokenizer.eos_token_id if pad is None else pad,
            )[0, ids.shape[1] :]
        return Reply(tokenizer.decode(answer, skip_special_tokens=True).strip(), ids.shape[1], len(answer), self.name)

    def close(self) -> None:
        """Free the model's memory."""
        self._model = self._tokenizer = None
