"""A headless Chromium, driven by its DevTools protocol over two pipes; no package is needed for that."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SWITCHES = ("--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage")
QUIET = ("--disable-extensions", "--disable-background-networking", "--disable-sync", "--disable-component-update")
PATIENCE = 60.0  # seconds for an answer


def find_browser() -> str:
    """The program; skips the test where there is none."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        pytest.skip(f"no headless browser: none of {', '.join(NAMES)} is installed")
    return found


class Browser:
    """One page in one browser process.

    Attributes:
        events: all that the page told so far, as (method, parameters).
    """

    def __enter__(self) -> "Browser":
        self._profile = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        theirs, self._to = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in os.pipe())
        self._from, back = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in os.pipe())
        sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
        self._process = subprocess.Popen(
            [find_browser(), *SWITCHES, *QUIET, *sandbox, f"--user-data-dir={self._profile.name}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=lambda: (os.dup2(theirs, 3), os.dup2(back, 4)),
        )
        os.close(theirs)
        os.close(back)
        self._unread, self._number, self._session = b"", 0, None
        self.events: list[tuple[str, dict]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self.send("Browser.close")  # ends its helpers too
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
        os.close(self._to)
        os.close(self._from)
        self._profile.cleanup()

    def send(self, method: str, **parameters: object) -> dict:
        """Give an order and wait for its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        left = json.dumps(message).encode() + b"\0"
        while left:
            left = left[os.write(self._to, left) :]
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append((answer["method"], answer["params"]))

    def _read(self) -> dict:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._from], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the browser does not answer"
            found = os.read(self._from, 1 << 20)
            assert found, "the browser has ended"
            self._unread += found
        line, _, self._unread = self._unread.partition(b"\0")
        return json.loads(line)

    def open(self, path: Path) -> None:
        """Show a file and wait until all of it is there."""
        self.send("Page.navigate", url=path.resolve().as_uri())
        self.run("new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', done))")

    def run(self, script: str) -> object:
        """The value of a JavaScript expression in the page; of a promise, what it comes to."""
        found = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def look(self, width: int, dark: bool = False) -> None:
        """Give the page a width in pixels and a colour scheme."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def requests(self) -> list[str]:
        """Addresses that the page asked for, but those of data that it holds itself."""
        asked = [
            parameters["request"]["url"] for name, parameters in self.events if name == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith("data:")]

    def complaints(self) -> list[dict]:
        """Errors and warnings of the console."""
        names = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [parameters for name, parameters in self.events if name in names]
