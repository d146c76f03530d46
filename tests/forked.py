"""The program in processes forked from one that has imported its libraries: a start costs milliseconds, not seconds.

Run as a script it is that one: it reads a request a line, and answers with the process that it started, then with its
exit code.
"""

import atexit
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videopool.app import quiet

LIBRARIES = (
    "torch", "pytorch_lightning", "transformers", "hydra", "pandas", "matplotlib.figure", "rich.table",
    "videopool.jobs.run", "videopool.jobs.evaluate", "videopool.jobs.report", "videopool.figures",
)  # fmt: skip


class Forked:
    """Starts the program as often as asked; waits for the libraries only once."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def run(self, words: Sequence[str], cwd: Path, path: str, timeout: float) -> subprocess.CompletedProcess[str]:
        """`python -m videopool <words>` in a folder, with modules found on a path.

        Raises:
            subprocess.TimeoutExpired: as subprocess.run().
        """
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        told = [cwd / f".{name}" for name in ("stdout", "stderr")]
        request = {
            "words": list(words),
            "cwd": str(cwd),
            "path": path,
            "env": dict(os.environ),
            "told": list(map(str, told)),
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(request), file=self._server.stdin, flush=True)
        process = int(self._server.stdout.readline())
        late = threading.Event()

        def end() -> None:
            late.set()
            os.kill(process, signal.SIGKILL)

        timer = threading.Timer(timeout, end)
        timer.start()
        code = int(self._server.stdout.readline())
        timer.cancel()
        out, err = (path.read_text(encoding="utf-8") for path in told)
        for path in told:
            path.unlink()
        if late.is_set():
            raise subprocess.TimeoutExpired(list(words), timeout, out, err)
        return subprocess.CompletedProcess(list(words), code, out, err)

    def close(self) -> None:
        if self._server is not None:
            self._server.communicate("")


def serve() -> None:
    """Answer requests until there are no more."""
    quiet()
    for name in LIBRARIES:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        process = os.fork()
        if not process:
            become(request)
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def become(request: dict[str, Any]) -> None:
    """Turn this process into the one asked for."""
    for number, path in zip((1, 2), request["told"], strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"], PYTHONPATH=request["path"])
    sys.path[:0] = [request["cwd"], *request["path"].split(os.pathsep)]
    sys.argv = ["videopool", *request["words"]]
    code = 0
    try:
        runpy.run_module("videopool", run_name="__main__", alter_sys=True)
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        atexit._run_exitfuncs()  # os._exit() leaves them out
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
