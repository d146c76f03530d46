"""Chat: client for OpenAI-compatible servers.

The key is read from the environment for each request, sent in one header, and removed from all text of the server,
because that text is stored.
"""

import base64
import io
import ipaddress
import json
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import numpy as np
from PIL import Image

from videopool.errors import UserError

if TYPE_CHECKING:
    import httpx

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MOST_WAIT = 300.0  # seconds that a server may ask to wait
AGAIN = {408, 409, 425, 429}  # status codes to retry, beside those from 500
LONGEST_REASON = 200  # characters of a server's error
MOST_BACKOFF = 60.0  # seconds
LEAST_IN_A_ROW = 10  # failures after which a server is given up
POLL_SECONDS = 0.1
TOO_LONG = re.compile(r"context_length_exceeded|context (length|window|size)|(prompt|input|request) is too long", re.I)
LIMIT = re.compile(r"context (?:length|window|size)\D{,20}(\d+)", re.I)
TOKENS = re.compile(r"(\d+) (?:input )?tokens", re.I)
FORMATS = ("jpeg", "png")  # of frames

Task = TypeVar("Task")
Result = TypeVar("Result")


class ChatError(UserError, ValueError):
    """A server or judge that cannot be used as configured: one line, with what to do."""


class RequestFailed(Exception):
    """No usable reply, and why. `again`: a later one may come; `wait`: seconds that the server asks to wait, or 0."""

    def __init__(self, reason: str, again: bool = True, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.again, self.wait = again, wait


class TooLong(RequestFailed):
    """A request that does not fit the model's context: `tokens` of a `limit`, as far as they are known."""

    def __init__(self, reason: str, tokens: int | None = None, limit: int | None = None) -> None:
        super().__init__(reason, again=False)
        self.tokens, self.limit = tokens, limit


class NoText(RequestFailed):
    """A reply without text; the same request would get the same reply."""


def check_number(key: str, value: object, low: float, whole: bool = False) -> None:
    """Raises ChatError unless a setting is a finite number of at least `low`, with `whole` an integer."""
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not low <= number < math.inf or (whole and not isinstance(value, int)):
        kind = "a whole number" if whole else "a number"
        raise ChatError(f"{key} must be {kind} of at least {low:g}, got {value!r}")


@dataclass(frozen=True)
class Reply:
    """A model's reply."""

    text: str  # of its first choice
    prompt_tokens: int = 0  # as the server counts them; 0 if it does not
    completion_tokens: int = 0
    model: str = ""  # the server's name for it, which may be more exact than the requested one


class ChatEndpoint:
    """A model on a server. Raises ChatError for a wrong argument.

    Errors name `group`, a configuration group. conf/judge/openai.yaml explains the other arguments.
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
        address = _address(group, base_url)
        if not isinstance(model, str) or not model.strip():
            raise ChatError(f"{group}.model={model!r}: name the model as the server calls it")
        if key_env is not None and not (isinstance(key_env, str) and VARIABLE.fullmatch(key_env)):
            # The message leaves the value out: it might be the key itself.
            raise ChatError(f"{group}.key_env must be the name of an environment variable, or null; not the key")
        check_number(f"{group}.timeout", timeout, 0.001)
        check_number(f"{group}.concurrency", concurrency, 1, whole=True)
        check_number(f"{group}.retries", retries, 0, whole=True)
        check_number(f"{group}.backoff", backoff, 0)
        self.group, self.model, self.key_env = group, model, key_env
        self.base_url = base_url.strip().rstrip("/")
        self.host = f"{address.hostname}:{address.port}" if address.port else str(address.hostname)
        self.timeout, self.concurrency, self.retries, self.backoff = timeout, concurrency, retries, backoff
        self.requests = 0
        self.warning = ""  # one line if listeners on the network can read the key
        if key_env is not None and _unencrypted(address):
            self.warning = (
                f"{group}.base_url is plain http: the key in {key_env} and all that is asked go to {self.host} "
                f"unencrypted; use https, or {group}.key_env=null"
            )
        self._lock = threading.Lock()

    @cached_property
    def _client(self) -> "httpx.Client":
        import httpx

        limits = httpx.Limits(max_connections=self.concurrency)
        # No redirects: they would take the key elsewhere.
        return httpx.Client(timeout=self.timeout, limits=limits, follow_redirects=False)

    def require_key(self) -> str:
        """The key; "" for a server without keys. Raises ChatError if the environment lacks it."""
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
        """Ask once, at temperature 0, with messages in the API's form and at most `max_tokens` of reply.

        Raises RequestFailed for no usable reply; ChatError if no request can succeed: no key, a refused key, no such
        address or model.
        """
        import httpx

        key = self.require_key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        body = {"model": self.model, "messages": list(messages), "temperature": 0, "max_tokens": max_tokens}
        with self._lock:
            self.requests += 1
            client = self._client
        deadline = time.monotonic() + self.timeout
        content = bytearray()
        try:
            with client.stream("POST", f"{self.base_url}/chat/completions", json=body, headers=headers) as response:
                for piece in response.iter_bytes():
                    content += piece
                    if time.monotonic() > deadline:  # httpx's timeout is per piece
                        raise httpx.ReadTimeout("")
        except httpx.TimeoutException as error:
            raise RequestFailed(f"no whole reply within {self.timeout:g} s") from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise RequestFailed(_without(key, f"connection to {self.host} failed: {reason}")) from error
        if response.status_code != 200:
            raise self._error(response.status_code, response.headers, _without(key, _reason(bytes(content))))
        return _reply(bytes(content), key)

    def close(self) -> None:
        """Close the connections."""
        if client := self.__dict__.pop("_client", None):
            client.close()

    def _error(self, status: int, headers: Mapping[str, str], reason: str) -> Exception:
        message = f"{self.host} answers {status}" + (f": {reason}" if reason else "")
        if status in (401, 403):
            return ChatError(f"{message} (check the key in {self.key_env})")
        if status == 404:
            return ChatError(f"{message} (check {self.group}.base_url and {self.group}.model)")
        if 300 <= status < 400:
            return ChatError(f"{message} (it redirects; say its own address with {self.group}.base_url=...)")
        if status in (400, 413, 422) and TOO_LONG.search(reason):
            limit = next(map(int, LIMIT.findall(reason)), None)
            tokens = {int(number) for number in TOKENS.findall(reason)} - {limit}
            return TooLong(message, max(tokens, default=None), limit)
        wait = _retry_after(headers.get("retry-after", ""))
        if wait > MOST_WAIT:
            return RequestFailed(f"{message} (and asks to wait {wait:.0f} s)", again=False)
        return RequestFailed(message, again=status in AGAIN or status >= 500, wait=wait)


def _address(group: str, base_url: object) -> SplitResult:
    """The parts of an address. Raises ChatError unless it is a plain http or https address."""
    form = "give an address as in https://api.openai.com/v1"
    try:
        parts = urlsplit(str(base_url).strip())
        _ = parts.port
    except ValueError as error:
        raise ChatError(f"{group}.base_url is no address ({error}); {form}") from error
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ChatError(f"{group}.base_url must hold neither user, password nor query: a key belongs in key_env")
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", str(base_url)):
        raise ChatError(f"{group}.base_url={base_url!r}: {form}")
    return parts


def _unencrypted(address: SplitResult) -> bool:
    """Whether requests leave this machine as plain http."""
    host = str(address.hostname).rstrip(".")
    local = host == "localhost" or host.endswith(".localhost")
    with suppress(ValueError):
        local = local or ipaddress.ip_address(host).is_loopback
    return address.scheme == "http" and not local


def _without(key: str, text: str) -> str:
    return text.replace(key, "[key]") if key else text


def _reason(content: bytes) -> str:
    """The server's reason of an error, in one short line."""
    text = content.decode("utf-8", errors="replace")
    with suppress(ValueError, KeyError, TypeError):
        error = json.loads(text)["error"]
        text = str(error["message"] if isinstance(error, dict) else error)
        if isinstance(error, dict) and TOO_LONG.search(str(error.get("code"))) and not TOO_LONG.search(text):
            text = f"{error['code']}: {text}"
    return " ".join(text.split())[:LONGEST_REASON]


def _reply(content: bytes, key: str) -> Reply:
    try:
        completion = json.loads(content)
        text = completion["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise RequestFailed("a reply that is no chat completion") from error
    if not isinstance(text, str):
        raise NoText("a reply without text")
    text = text.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be written to a file
    usage = completion.get("usage")
    counts = [usage.get(name) if isinstance(usage, dict) else 0 for name in ("prompt_tokens", "completion_tokens")]
    prompt, answer = (count if type(count) is int and count >= 0 else 0 for count in counts)
    return Reply(_without(key, text), prompt, answer, _without(key, str(completion.get("model") or "")))


def _retry_after(text: str) -> float:
    """Seconds of a Retry-After header, which holds seconds or a date; 0 for anything else."""
    if re.fullmatch(r"\d+(\.\d+)?", text.strip()):
        return float(text)
    with suppress(ValueError, TypeError):  # TypeError: a date without time zone
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    return 0.0


def image_part(frame: np.ndarray, format: str, quality: int, max_side: int) -> dict[str, object]:
    """A frame, uint8 [height, width, 3], as a data URL, as JPEG of a quality in 1..100 or as PNG.

    A frame with a side above `max_side` pixels is scaled down (Lanczos), keeping its proportions.
    """
    image = Image.fromarray(frame)
    scale = max_side / max(image.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, format, **({"quality": quality} if format == "jpeg" else {}))
    text = base64.b64encode(file.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/{format};base64,{text}"}}


def ask_all(
    group: str,
    tasks: Iterable[Task],
    attempt: Callable[[Task], Result],
    concurrency: int,
    retries: int,
    backoff: float,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Task, Result | RequestFailed]]:
    """Results of tasks as they come, from at most `concurrency` threads.

    A failed attempt is repeated up to `retries` times: after backoff * 2^n seconds times a random number in 0.5 .. 1.5
    (which spreads attempts that failed together), or after the wait that the server asked for, if that is longer.

    Errors name `group`, a configuration group. `attempt` raises RequestFailed if there is no usable reply. `stopped` is
    polled; once it is true, running attempts end and no task begins.

    Raises ChatError of an attempt, or after so many failed tasks in a row that the others would fail too.
    """
    over = threading.Event()

    def work(task: Task) -> Result | RequestFailed:
        failures = 0
        while True:
            try:
                return attempt(task)
            except RequestFailed as error:
                pause = max(error.wait, min(MOST_BACKOFF, backoff * 2**failures) * random.uniform(0.5, 1.5))
                failures += 1
                if failures > retries or not error.again or over.wait(pause):
                    return error

    waiting, failed_in_a_row = iter(tasks), 0
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix=group)
    running: dict[Future[Result | RequestFailed], Task] = {}
    try:
        while True:
            if stopped():
                over.set()
            free = 0 if over.is_set() else concurrency - len(running)
            running |= {pool.submit(work, task): task for task in islice(waiting, free)}
            if not running:
                return
            for future in wait(running, POLL_SECONDS, FIRST_COMPLETED).done:
                task, result = running.pop(future), future.result()
                if not isinstance(result, TooLong):  # which says nothing about the others
                    failed_in_a_row = failed_in_a_row + 1 if isinstance(result, RequestFailed) else 0
                yield task, result
                if failed_in_a_row >= max(LEAST_IN_A_ROW, 2 * concurrency) and not over.is_set():
                    raise ChatError(
                        f"{group}: no usable reply to {failed_in_a_row} requests in a row, so it is given up ({result})"
                    )
    finally:
        over.set()
        pool.shutdown(wait=True, cancel_futures=True)
