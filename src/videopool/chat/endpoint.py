"""One OpenAI-compatible server: POST <base_url>/chat/completions, and what can go wrong on the way.

The key is read from the environment when a request is made, sent in one header, and taken out of whatever the
server says, since that is stored.
"""

import ipaddress
import json
import math
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from videopool.chat.errors import ChatError, NoText, RequestFailed

if TYPE_CHECKING:
    import httpx

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MOST_BYTES = 8 << 20  # of a reply
MOST_WAIT = 300.0  # seconds that a server may ask to wait
AGAIN = {408, 409, 425, 429}  # beside those from 500
USELESS = {401, 403, 404}  # for every request, not only for this one
TOLD = 200  # characters of what a server says about an error


@dataclass(frozen=True)
class Reply:
    """What a model said.

    Attributes:
        text: of its first choice.
        prompt_tokens, completion_tokens: as the server counts them; 0 if it does not.
        model: as the server names it, which may be more exact than what was asked for.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model: str = ""


class ChatEndpoint:
    """A model on a server.

    Args:
        group: the configuration group that errors name.
        base_url: up to and without /chat/completions.
        model: as the server calls it.
        key_env: the environment variable that holds the key; None for a server that takes none.
        timeout: seconds for one request.
        concurrency: requests at once.
        retries: after a request that failed.
        backoff: seconds before the first retry, doubled for each more.

    Raises:
        ChatError: one of these is wrong.

    Attributes:
        exposes_key: whether the key goes to another machine unencrypted.
    """

    def __init__(
        self,
        group: str,
        base_url: str,
        model: str,
        key_env: str | None,
        timeout: float = 60.0,
        concurrency: int = 4,
        retries: int = 5,
        backoff: float = 1.0,
    ) -> None:
        self.group = group
        self.host = _host(group, base_url)
        self.base_url = base_url.strip().rstrip("/")
        self.url = f"{self.base_url}/chat/completions"
        self.exposes_key = key_env is not None and _in_the_open(self.url)
        if not isinstance(model, str) or not model.strip():
            raise ChatError(f"{group}.model={model!r}: name the model as the server calls it")
        if key_env is not None and not (isinstance(key_env, str) and VARIABLE.fullmatch(key_env)):
            # Not repeated here: it might be the key itself.
            raise ChatError(f"{group}.key_env must be the name of an environment variable, or null; not the key")
        self.model = model
        self.key_env = key_env
        self.timeout = _number(f"{group}.timeout", timeout, 0.001)
        self.concurrency = int(_number(f"{group}.concurrency", concurrency, 1, whole=True))
        self.retries = int(_number(f"{group}.retries", retries, 0, whole=True))
        self.backoff = _number(f"{group}.backoff", backoff, 0)
        self.requests = 0
        self._lock = threading.Lock()
        self._made: httpx.Client | None = None

    @property
    def warning(self) -> str:
        """One line if whoever listens on the way can read the key; else ""."""
        if not self.exposes_key:
            return ""
        return (
            f"{self.group}.base_url is plain http: the key in {self.key_env} and all that is asked go to {self.host} "
            f"unencrypted; use https, or {self.group}.key_env=null"
        )

    def require_key(self) -> None:
        """Raises ChatError if the environment lacks the key."""
        self._key()

    def _key(self) -> str:
        if self.key_env is None:
            return ""
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise ChatError(
                f"{self.group}.key_env={self.key_env}: this environment variable is not set; put the key for "
                f"{self.host} there, or say {self.group}.key_env=null if the server takes none"
            )
        if not (key.isascii() and key.isprintable()):
            raise ChatError(f"{self.group}.key_env={self.key_env}: the key there has characters that no header takes")
        return key

    def complete(self, messages: Sequence[Mapping[str, Any]], max_tokens: int) -> Reply:
        """Ask once, at temperature 0.

        Args:
            messages: of the conversation, as the API takes them.
            max_tokens: of the reply.

        Raises:
            RequestFailed: no usable reply.
            ChatError: no request will get one: no key, a refused key, no such address or model.
        """
        import httpx

        key = self._key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        body = {"model": self.model, "messages": list(messages), "temperature": 0, "max_tokens": max_tokens}
        with self._lock:
            self.requests += 1
            client = self._client()
        deadline = time.monotonic() + self.timeout
        try:
            with client.stream("POST", self.url, json=body, headers=headers) as response:
                content = self._read(response, deadline)
        except httpx.TimeoutException as error:
            raise RequestFailed(f"no whole reply within {self.timeout:g} s") from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise RequestFailed(_clean(f"connection to {self.host} failed: {reason}", key)) from error
        if response.status_code != 200:
            raise self._error(response, _clean(_said(content), key))
        return _reply(content, key)

    def _client(self) -> "httpx.Client":
        """Connections, kept between requests. A redirect is not followed: it would take the key elsewhere."""
        import httpx

        if self._made is None:
            limits = httpx.Limits(max_connections=self.concurrency)
            self._made = httpx.Client(timeout=self.timeout, limits=limits, follow_redirects=False)
        return self._made

    def close(self) -> None:
        """Close the connections."""
        if self._made is not None:
            self._made.close()
            self._made = None

    def _read(self, response: "httpx.Response", deadline: float) -> bytes:
        """A response's body. The client's own timeout is for each piece of it."""
        content = bytearray()
        for piece in response.iter_bytes():
            content += piece
            if time.monotonic() > deadline:
                raise RequestFailed(f"no whole reply within {self.timeout:g} s")
            if len(content) > MOST_BYTES:
                raise RequestFailed(f"a reply of more than {MOST_BYTES} bytes", again=False)
        return bytes(content)

    def _error(self, response: "httpx.Response", said: str) -> Exception:
        status = response.status_code
        reason = f"{self.host} answers {status}" + (f": {said}" if said else "")
        if status in USELESS:
            hint = {404: f"{self.group}.base_url and {self.group}.model"}.get(status, f"the key in {self.key_env}")
            return ChatError(f"{reason} (check {hint})")
        if 300 <= status < 400:
            return ChatError(f"{reason} (it redirects; say its own address with {self.group}.base_url=...)")
        wait = _retry_after(response.headers.get("retry-after", ""))
        if wait > MOST_WAIT:
            return RequestFailed(f"{reason} (and asks to wait {wait:.0f} s)", again=False)
        return RequestFailed(reason, again=status in AGAIN or status >= 500, wait=wait)


def _host(group: str, base_url: object) -> str:
    """Name and port of the server. Raises ChatError for what is no plain http address."""
    form = "give an address as in https://api.openai.com/v1"
    try:
        parts = urlsplit(str(base_url).strip())
        port = parts.port
    except ValueError as error:
        raise ChatError(f"{group}.base_url is no address ({error}); {form}") from error
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ChatError(f"{group}.base_url must hold neither user, password nor query: a key belongs in key_env")
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", str(base_url)):
        raise ChatError(f"{group}.base_url={base_url!r}: {form}")
    return parts.hostname + (f":{port}" if port else "")


def _in_the_open(url: str) -> bool:
    """Whether requests leave this machine as plain http."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme != "http" or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def _number(key: str, value: object, low: float, whole: bool = False) -> float:
    right = isinstance(value, int) or (isinstance(value, float) and not whole and math.isfinite(value))
    if not right or isinstance(value, bool) or float(str(value)) < low:
        kind = "a whole number" if whole else "a number"
        raise ChatError(f"{key} must be {kind} of at least {low:g}, got {value!r}")
    return float(str(value))


def _clean(text: str, key: str) -> str:
    return text.replace(key, "[key]") if key else text


def _said(content: bytes) -> str:
    """What a server says about an error, in one short line."""
    text = content.decode("utf-8", errors="replace")
    try:
        error = json.loads(text)["error"]
        text = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        pass
    return " ".join(text.split())[:TOLD]


def _reply(content: bytes, key: str) -> Reply:
    try:
        told = json.loads(content)
        text = told["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise RequestFailed("a reply that is no chat completion") from error
    if not isinstance(text, str):
        raise NoText("a reply without text")
    text = text.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be written to a file
    usage = told.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    prompt, completion = (_count(counts.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    return Reply(_clean(text, key), prompt, completion, _clean(str(told.get("model") or ""), key))


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _retry_after(text: str) -> float:
    """Seconds of a Retry-After header, which holds seconds or a date; 0 for anything else."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return 0.0
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
