"""A judge on this machine: a Hugging Face language model, read greedily."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videopool.chat import ChatError, Reply, RequestFailed
from videopool.judges.protocol import PROTOCOL

DTYPES = ("float32", "bfloat16", "float16")


class LocalJudge:
    """A causal language model with its tokenizer's chat template, or plain paragraphs where it has none.

    Args:
        folder: of the model.
        identity: of its files, part of the judge's id.
        name: readable, part of the id too.
        dtype: of the weights.
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        max_tokens: of a verdict.

    Raises:
        ChatError: one of these is wrong.
    """

    concurrency = 1
    retries = 1  # which says what was wrong: the same request has the same reply
    backoff = 0.0

    def __init__(self, folder: Path, identity: str, name: str, dtype: str, device: str, max_tokens: int) -> None:
        if dtype not in DTYPES:
            raise ChatError(f"judge.dtype={dtype}: choose one of {', '.join(DTYPES)}")
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
            raise ChatError(f"judge.max_tokens must be a whole number of at least 1, got {max_tokens!r}")
        self.folder, self.name, self.dtype, self.device, self.max_tokens = folder, name, dtype, device, max_tokens
        self.id = f"local:{name}@{identity.rpartition('@')[2][:12]}:{dtype}:{max_tokens}:v{PROTOCOL}"
        self.label = f"local {name}"
        self._model: Any = None
        self._tokenizer: Any = None

    def check(self) -> None:
        """Read configuration and tokenizer, but no weights. Raises ChatError if they cannot be read."""
        from transformers import AutoConfig, AutoTokenizer
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        try:
            kind = AutoConfig.from_pretrained(str(self.folder)).model_type
            self._tokenizer = AutoTokenizer.from_pretrained(str(self.folder))
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
            raise self._error(error) from error
        if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise ChatError(f"judge.source={self.folder}: {kind} is no language model")

    def _load(self) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.check()
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(
                str(self.folder), dtype=getattr(torch, self.dtype), use_safetensors=True
            )
            self._model = model.to(device).eval()
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> ChatError:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return ChatError(f"judge.source={self.folder}: {lines[0][:300]}")

    def reply(self, messages: Sequence[dict[str, str]]) -> Reply:
        """The greedy reply; the model is loaded for the first one.

        Raises:
            RequestFailed: the request is too long.
            ChatError: the model cannot be loaded.
        """
        import torch

        if self._model is None:
            self._load()
        ids = self._ids(messages)
        room = getattr(self._model.config, "max_position_embeddings", None)
        if room is not None and ids.shape[1] + self.max_tokens > room:
            raise RequestFailed(f"{ids.shape[1]} tokens do not fit the judge's context of {room}", again=False)
        pad = self._tokenizer.pad_token_id
        with torch.inference_mode():
            told = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=self.max_tokens,
                do_sample=False,
                pad_token_id=self._tokenizer.eos_token_id if pad is None else pad,
            )[0, ids.shape[1] :]
        text = self._tokenizer.decode(told, skip_special_tokens=True)
        return Reply(text.strip(), ids.shape[1], len(told), self.name)

    def _ids(self, messages: Sequence[dict[str, str]]) -> Any:
        """Token ids of a request [1, tokens], on the model's device."""
        if self._tokenizer.chat_template is not None:
            text = self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
            special = False
        else:
            text, special = "\n\n".join(message["content"] for message in messages) + "\n", True
        found = self._tokenizer(text, return_tensors="pt", add_special_tokens=special)
        return found["input_ids"].to(self._model.device)

    def close(self) -> None:
        """Forget the model, so that its memory is free for the next point's."""
        self._model = self._tokenizer = None
