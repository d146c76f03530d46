"""A chat server on this machine that does what a test tells it to, and notes what it was asked."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-very-secret-0123456789"
RIGHT, WRONG = '{"pred": "yes", "score": 4}', '{"pred": "no", "score": 1}'


def completion(text: str, **more: Any) -> dict[str, Any]:
    """A chat completion as servers send it."""
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
    return {
        "model": "tiny-2026",
        "choices": [{"message": {"role": "assistant", "content": text}}],
        "usage": usage,
        **more,
    }


@dataclass
class Answer:
    """One HTTP response.

    Attributes:
        status, body, headers: of it.
        delay: seconds before it.
        cut: send only half of the body that was announced.
    """

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False


class ChatServer:
    """Answers POST /v1/chat/completions by a function of the request's number (from 0) and body.

    Attributes:
        base_url: for configuration.
        asked: bodies of all requests; headers and times of them beside.
        most_at_once: requests that were in hand together.
    """

    def __init__(self, answer: Callable[[int, dict[str, Any]], Answer | str]) -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.paths: list[str] = []
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with server._lock:
                    number = len(server.asked)
                    server.asked.append(body)
                    server.headers.append({name.lower(): value for name, value in self.headers.items()})
                    server.times.append(time.monotonic())
                    server.paths.append(self.path)
                    server._at_once += 1
                    server.most_at_once = max(server.most_at_once, server._at_once)
                try:
                    told = server.answer(number, body)
                    self.send(told if isinstance(told, Answer) else Answer(completion(told)))
                except OSError:
                    pass  # the client has had enough
                finally:
                    with server._lock:
                        server._at_once -= 1

            def send(self, told: Answer) -> None:
                time.sleep(told.delay)
                content = told.body if isinstance(told.body, bytes) else json.dumps(told.body).encode()
                self.send_response(told.status)
                for name, value in told.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                if told.cut:
                    self.wfile.write(content[: len(content) // 2])
                    self.wfile.flush()
                    self.close_connection = True
                    return
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def said(self) -> list[str]:
        """The user's text of each request."""
        return [body["messages"][-1]["content"] for body in self.asked]


@contextmanager
def chat_server(answer: Callable[[int, dict[str, Any]], Answer | str]):
    """A server while the block runs."""
    server = ChatServer(answer)
    try:
        yield server
    finally:
        server.close()
