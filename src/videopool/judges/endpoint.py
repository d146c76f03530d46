"""A judge behind an OpenAI-compatible server."""

from collections.abc import Sequence
from typing import Any

from videopool.chat import ChatEndpoint, ChatError, Reply
from videopool.judges.protocol import PROTOCOL


class EndpointJudge:
    """A model on a server, asked at temperature 0.

    Args:
        model: as the server calls it.
        max_tokens: of a verdict.
        endpoint: see ChatEndpoint.

    Raises:
        ChatError: one of these is wrong.
    """

    def __init__(self, model: str, max_tokens: int, **endpoint: Any) -> None:
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
            raise ChatError(f"judge.max_tokens must be a whole number of at least 1, got {max_tokens!r}")
        self.endpoint = ChatEndpoint("judge", model=model, **endpoint)
        self.warning = self.endpoint.warning
        self.max_tokens = max_tokens
        self.id = f"openai:{model}@{self.endpoint.base_url}:{max_tokens}:v{PROTOCOL}"
        self.label = f"openai {model}"
        self.concurrency = self.endpoint.concurrency
        self.retries = self.endpoint.retries
        self.backoff = self.endpoint.backoff

    def check(self) -> None:
        """Raises ChatError if the key is not there."""
        self.endpoint.require_key()

    def reply(self, messages: Sequence[dict[str, str]]) -> Reply:
        """One reply. Raises RequestFailed or ChatError."""
        return self.endpoint.complete(messages, self.max_tokens)

    def close(self) -> None:
        """Close the connections."""
        self.endpoint.close()
