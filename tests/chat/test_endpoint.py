"""The client against a server that misbehaves in all the ways that servers do."""

import base64
import io
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
from PIL import Image

from chat_server import KEY, Answer, chat_server, completion
from videopool.chat import ChatEndpoint, ChatError, RequestFailed, ask_all, image_part

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)


def endpoint(server, **more):
    return ChatEndpoint("judge", server.base_url, "tiny", **{"key_env": "TEST_KEY", "timeout": 5, **more})


def fail(answer, **more):
    with chat_server(lambda number, body: answer) as server, pytest.raises(RequestFailed) as caught:
        endpoint(server, **more).complete(MESSAGES, 9)
    assert KEY not in str(caught.value)
    return caught.value


def test_a_request_and_its_reply():
    with chat_server(lambda number, body: "fine \ud800") as server:
        made = endpoint(server)
        reply = made.complete(MESSAGES, 9)
        made.close()
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens, reply.model) == ("fine ?", 100, 7, "tiny-2026")
    assert server.asked == [{"model": "tiny", "messages": MESSAGES, "temperature": 0, "max_tokens": 9}]
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_a_server_without_a_key_gets_none():
    with chat_server(lambda number, body: Answer({**completion("x"), "usage": None, "model": None})) as server:
        reply = endpoint(server, key_env=None).complete(MESSAGES, 9)
    assert (reply.prompt_tokens, reply.model) == (0, "")
    assert "authorization" not in server.headers[0]


@pytest.mark.parametrize(
    ("answer", "again", "words"),
    [
        (Answer({"error": {"message": "slow down"}}, 429), True, "429: slow down"),
        (Answer(b"<html>oops</html>", 500), True, "500: <html>oops</html>"),
        (Answer({"error": "gone"}, 503), True, "503: gone"),
        (Answer({"error": {"message": f"bad {KEY}"}}, 400), False, "400: bad [key]"),
        (Answer(b"{not json"), True, "no chat completion"),
        (Answer({"choices": []}), True, "no chat completion"),
        (Answer([1]), True, "no chat completion"),
        (Answer(completion(None)), True, "without text"),  # type: ignore[arg-type]
        (Answer(completion("whole reply"), cut=True), True, "connection to 127.0.0.1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_failures_say_what_happened_and_whether_to_try_again(answer, again, words):
    error = fail(answer)
    assert words in str(error)
    assert error.again is again


def test_a_slow_reply_is_given_up():
    started = time.monotonic()
    error = fail(Answer(completion("late"), delay=1.5), timeout=0.3)
    assert "no whole reply within 0.3 s" in str(error)
    assert time.monotonic() - started < 1.4


def test_nobody_there():
    with chat_server(lambda number, body: "x") as server:
        pass
    with pytest.raises(RequestFailed, match="connection to 127"):
        endpoint(server).complete(MESSAGES, 9)


@pytest.mark.parametrize(
    ("header", "low", "high"), [("2", 2, 2), ("junk", 0, 0), ("-5", 0, 0), ("nan", 0, 0), ("date", 18, 20)]
)
def test_retry_after_in_seconds_or_as_a_date(header, low, high):
    if header == "date":
        header = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    error = fail(Answer({}, 429, {"retry-after": header}))
    assert low <= error.wait <= high


def test_a_wait_without_end_is_not_waited_for():
    error = fail(Answer({}, 429, {"retry-after": "86400"}))
    assert not error.again
    assert "asks to wait 86400 s" in str(error)


@pytest.mark.parametrize(("status", "words"), [(401, "the key in TEST_KEY"), (404, "judge.model"), (302, "redirects")])
def test_what_no_request_will_get_past_ends_it_all(status, words):
    told = Answer({"error": {"message": f"no: {KEY}"}}, status, {"location": "http://127.0.0.1:9/"})
    with chat_server(lambda number, body: told) as server, pytest.raises(ChatError, match=words) as caught:
        endpoint(server).complete(MESSAGES, 9)
    assert KEY not in str(caught.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"base_url": "api.openai.com/v1"}, "judge.base_url='api.openai.com/v1': give an address"),
        ({"base_url": "ftp://host/v1"}, "give an address"),
        ({"base_url": "http://host:port/v1"}, "no address"),
        ({"base_url": f"https://me:{KEY}@host/v1"}, "neither user, password nor query"),
        ({"base_url": f"https://host/v1?key={KEY}"}, "neither user, password nor query"),
        ({"model": " "}, "judge.model"),
        ({"key_env": KEY}, "name of an environment variable"),
        ({"timeout": 0}, "judge.timeout"),
        ({"timeout": float("nan")}, "judge.timeout"),
        ({"concurrency": 0}, "judge.concurrency must be a whole number of at least 1, got 0"),
        ({"concurrency": 1.5}, "judge.concurrency"),
        ({"retries": -1}, "judge.retries"),
        ({"backoff": "soon"}, "judge.backoff"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_settings_are_named_and_no_key_repeated(settings, words):
    good = {"base_url": "http://localhost/v1", "model": "tiny", "key_env": None}
    with pytest.raises(ChatError) as caught:
        ChatEndpoint("judge", **{**good, **settings})
    assert words in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(("value", "words"), [("", "is not set"), ("a\nb", "no header takes")])
def test_a_missing_or_broken_key(monkeypatch, value, words):
    monkeypatch.setenv("TEST_KEY", value)
    with pytest.raises(ChatError, match=words):
        ChatEndpoint("judge", "http://localhost/v1", "tiny", "TEST_KEY").require_key()


def ask(attempt, tasks=range(6), concurrency=2, retries=3, backoff=0.001, **more):
    return dict(ask_all("judge", tasks, attempt, concurrency, retries, backoff, **more))


def test_failed_attempts_are_made_again_and_counted():
    tried = []

    def attempt(task):
        tried.append(task)
        if task == 4:
            raise RequestFailed("never", again=False)
        if task == 5 or tried.count(task) < 3:
            raise RequestFailed("not yet")
        return task * 10

    told = ask(attempt)
    assert {task: told[task] for task in range(4)} == {task: 10 * task for task in range(4)}
    assert [str(told[4]), str(told[5])] == ["never", "not yet"]
    assert [tried.count(task) for task in range(6)] == [3, 3, 3, 3, 1, 4]


def test_waits_grow_and_the_server_s_own_counts_if_it_is_longer():
    times = []

    def attempt(task):
        times.append(time.monotonic())
        raise RequestFailed("no", wait=0.3 if len(times) == 2 else 0.0)

    ask(attempt, [0], retries=3, backoff=0.02)
    waits = np.diff(times)
    assert 0.01 <= waits[0] < 0.2
    assert waits[1] >= 0.3
    assert waits[2] >= 0.04


def test_a_server_that_never_works_is_given_up():
    tried = []

    def attempt(task):
        tried.append(task)
        raise RequestFailed("down")

    with pytest.raises(ChatError, match=r"judge: no usable reply to 1\d requests in a row, .*down"):
        ask(attempt, range(1000), retries=0)
    assert len(tried) < 20


def test_failures_now_and_then_are_not_a_row():
    def attempt(task):
        if task % 8:
            raise RequestFailed("no")
        return task

    assert len(ask(attempt, range(100), concurrency=1, retries=0)) == 100


def test_stopping_begins_nothing_new():
    tried = []
    told = ask(lambda task: tried.append(task), range(1000), stopped=lambda: len(tried) > 5)
    assert len(told) == len(tried) < 12


@pytest.mark.parametrize("format", ["jpeg", "png"])
def test_frames_become_data_urls_of_a_bounded_size(format):
    frame = np.zeros((60, 120, 3), np.uint8)
    frame[:, 60:] = (255, 0, 0)
    part = image_part(frame, format, 90, 40)
    head, _, data = part["image_url"]["url"].partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == f"data:image/{format}"
    assert (image.format, image.size) == (format.upper(), (40, 20))
    left, right = image.getpixel((5, 10)), image.getpixel((35, 10))
    assert max(left) < 20
    assert right[0] > 235
    assert max(right[1:]) < 20
    small = Image.open(
        io.BytesIO(base64.b64decode(image_part(frame, format, 90, 500)["image_url"]["url"].split(",")[1]))
    )
    assert small.size == (120, 60)


@pytest.mark.parametrize(
    ("base_url", "key_env", "warned"),
    [
        ("http://models.example/v1", "KEY", True), ("http://10.0.0.7:8000/v1", "KEY", True),
        ("HTTP://h/v1", "KEY", True),
        ("http://localhost.example/v1", "KEY", True), ("http://[fe80::1]/v1", "KEY", True),
        ("https://models.example/v1", "KEY", False), ("http://models.example/v1", None, False),
        ("http://localhost:8000/v1", "KEY", False), ("http://127.0.0.1/v1", "KEY", False),
        ("http://127.8.0.1/v1", "KEY", False),
        ("http://[::1]:80/v1", "KEY", False), ("http://a.localhost/v1", "KEY", False),
    ],
)  # fmt: skip
def test_a_key_over_plain_http_is_warned_about(base_url, key_env, warned):
    warning = ChatEndpoint("judge", base_url=base_url, model="m", key_env=key_env).warning
    assert bool(warning) is warned
    assert "\n" not in warning
    assert not warned or "judge.base_url is plain http" in warning
