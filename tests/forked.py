"""The program in processes forked from one that has imported its libraries: a start costs milliseconds, not seconds.

Run as a script it is that one: it reads one request per line, answers with the number of the process that it started,
and leaves each process's exit code in a file.
"""

import atexit
import gc
import importlib
import json
import os
import re
import runpy
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from pkgutil import walk_packages
from tempfile import mkdtemp
from typing import Any

import videopool
from videopool.app import quiet

LIBRARIES = (
    "torch", "pytorch_lightning", "transformers", "hydra", "pandas", "peft", "rich.table", "fontTools.subset",
    *(f"matplotlib.backends.backend_{name}" for name in ("agg", "pdf", "svg")), "PIL.JpegImagePlugin",
    *(f"transformers.models.{name}.modeling_{name}" for name in ("llama", "clip")), "transformers.generation.utils",
    # W&B's own folder, made when it is imported, would go with the first process.
    *(name for _, name, _ in walk_packages(videopool.__path__, "videopool.") if not re.search("_main_|tracking", name)),
)  # fmt: skip
POLL = 0.01  # seconds


class Forked:
    """Starts the program as often as asked, several at once too; waits for the libraries only once."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def run(
        self, words: Sequence[str], cwd: Path, path: str = "", timeout: float = 300, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`python -m videopool <words>` in a folder, with modules found on a path.

        Raises subprocess.TimeoutExpired, as subprocess.run() does.
        """
        process = self.start(words, cwd, path, env=env)
        try:
            out, err = process.communicate(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(list(words), process.wait(), out, err)

    def start(
        self,
        words: Sequence[str],
        cwd: Path,
        path: str = "",
        env: dict[str, str] | None = None,
        new_session: bool = False,
    ) -> "Started":
        """The same, without waiting for its end. `env`: variables besides this process's.

        A report has no figures, unless these say otherwise: drawing them takes longer than most points here.
        """
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        folder = Path(mkdtemp())
        request = {
            "words": list(map(str, words)),
            "cwd": str(cwd),
            "path": path or os.environ.get("PYTHONPATH", ""),
            "env": {"VIDEOPOOL_FIGURES": "none", **os.environ, **(env or {})},
            "folder": str(folder),
            "new_session": new_session,
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(request), file=self._server.stdin, flush=True)
        return Started(request["words"], int(self._server.stdout.readline()), folder)

    def close(self) -> None:
        if self._server is not None:
            self._server.communicate("")


class Started:
    """A process of the server, used as a subprocess.Popen."""

    def __init__(self, words: list[str], pid: int, folder: Path) -> None:
        self.words, self.pid, self.folder = words, pid, folder
        self.returncode: int | None = None

    def poll(self) -> int | None:
        code = self.folder / "code"
        if self.returncode is None and code.exists():
            self.returncode = int(code.read_text())
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.words, timeout, *self._told())
            time.sleep(POLL)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What it printed, and what it printed as errors, once it has ended."""
        self.wait(timeout)
        return self._told()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _told(self) -> tuple[str, str]:
        out, err = ((self.folder / name).read_text(encoding="utf-8") for name in ("1", "2"))
        return out, err


def serve() -> None:
    """Answer requests until there are no more, and until all processes have ended."""
    quiet()
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # threads that read weights do not survive a fork
    for name in LIBRARIES:
        importlib.import_module(name)
    warm_up()
    gc.freeze()  # a collection in a child would copy all pages
    started: dict[int, Path] = {}
    waiting = True
    while waiting or started:
        if waiting and select.select([sys.stdin], [], [], POLL)[0]:
            line = sys.stdin.readline()
            waiting = bool(line)
            if line:
                request = json.loads(line)
                process = os.fork()
                if not process:
                    become(request)
                started[process] = Path(request["folder"])
                print(process, flush=True)
        elif not waiting:
            time.sleep(POLL)
        for process in list(started):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                folder = started.pop(process)
                (folder / "code.part").write_text(str(os.waitstatus_to_exitcode(status)))
                (folder / "code.part").rename(folder / "code")


def warm_up() -> None:
    """Read what nearly every process reads: the shipped configuration, the studies, the bundled model."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from videopool.app import register_experiments
    from videopool.commandline.composing import check_configurations, compose_once
    from videopool.config.build import plain
    from videopool.inference.backbones import point_backbone
    from videopool.models import identity
    from videopool.paths import shipped

    register_experiments(shipped("experiments"))
    compose_once()
    check_configurations()
    with initialize_config_dir(str(shipped("conf")), version_base="1.3"):
        model = plain(compose("config").model)
    GlobalHydra.instance().clear()
    point_backbone(model, identity(model["source"], model["revision"], target=model.get("_target_")), None)


def become(request: dict[str, Any]) -> None:
    """Turn this process into the one asked for."""
    if request["new_session"]:
        os.setsid()
    for number in (1, 2):
        os.dup2(os.open(f"{request['folder']}/{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
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
