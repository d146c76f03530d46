"""Python in processes forked from one that has imported the program's libraries: a start costs milliseconds.

Run as a script it is that one. It forks a process for each who asks at its address, and tells its exit code.
"""

import atexit
import fcntl
import gc
import importlib
import io
import json
import multiprocessing.spawn
import os
import re
import resource
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import traceback
import types
import warnings
import weakref
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from pkgutil import walk_packages
from tempfile import mkdtemp
from typing import Any, NamedTuple, NoReturn

import handed

# Libraries are imported inside functions: in the process that starts the server, they would delay it.

ALONE = ("__main__", "harness.model")  # which runs the program, and which needs lmms-eval
LIBRARIES = (
    "torch", "pytorch_lightning", "transformers", "hydra", "pandas", "peft", "rich.table", "fontTools.subset",
    *(f"matplotlib.backends.backend_{name}" for name in ("agg", "pdf", "svg")), "PIL.JpegImagePlugin",
    *(f"transformers.models.{name}.modeling_{name}" for name in ("llama", "clip")), "transformers.generation.utils",
    "requests", "wandb.sdk.launch", "wandb.sdk.lib.gitlib",  # which wandb.init() imports
    "av.subtitles.stream", "multiprocessing.popen_fork", "multiprocessing.sharedctypes", "pandas.core.methods.to_dict",
    "pandas.io.formats.csvs", "torch.profiler._cupti_monitor",  # imported where they are first used
)  # fmt: skip
# Overrides of all kinds: Hydra's parser takes ten times as long for the first of its kind.
TYPICAL = [
    "results_dir=../a-b_0/c.1/results",
    "++benchmark.tasks=[existence,event_order]",
    "benchmark.limit=null",
    "frames.num=4",
    "logger=none",
    "name='none, average'",
    "pooling=chain",
    "pooling.steps=[{_target_: videopool.pooling.Average, axis: time}]",
    "+model.more=a:0.5",
    "seed=1e-3",
]
SPARE = 500  # of the numbers of files: more than a process has


class Forked:
    """Starts the program as often as asked, several at once too; waits for the libraries only once."""

    def __init__(self, folder: str | None = None) -> None:
        """`folder`: of another one's server, which is used then."""
        self._own = folder is None
        self._folder, self._python = Path(folder or mkdtemp()), sys.executable
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def python(self) -> str:
        """A program that does what Python does, sooner."""
        program = self._folder / "python"
        if self._own and self._server is None:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(self._address)
                listener.listen()
                self._server = subprocess.Popen(
                    [self._python, __file__, str(listener.fileno()), str(program)],
                    stdin=subprocess.PIPE,
                    pass_fds=[listener.fileno()],
                )
            start = shlex.join([self._python, "-IS", handed.__file__, self._address, self._python])
            program.write_text(f'#!/bin/sh\nexec {start} "$@"\n')
            program.chmod(0o755)
        return str(program)

    @property
    def _address(self) -> str:
        return str(self._folder / "address")

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
        anew: bool = False,
    ) -> "Started":
        """The same, without waiting for its end. `env`: variables besides this process's.

        What it starts from nothing is forked too, but `anew`.
        """
        words, variables = list(map(str, words)), {**os.environ, **(env or {})}
        request = {
            "words": ["-m", "videopool", *words],
            "cwd": str(cwd),
            "env": variables | ({"PYTHONPATH": path} if path else {}),
            "new_session": new_session,
            **({"python": self._python} if anew else {}),
        }
        folder = Path(mkdtemp(dir=Path(self.python).parent))
        with open(os.devnull) as nothing, (folder / "1").open("a") as out, (folder / "2").open("a") as err:
            asked = handed.ask(self._address, request, [nothing.fileno(), out.fileno(), err.fileno()])
        return Started(words, folder, *asked)

    def close(self) -> None:
        if self._server is not None:
            self._server.communicate(b"")
        if self._own:
            shutil.rmtree(self._folder)


class Started:
    """A process of the server, used as a subprocess.Popen."""

    def __init__(self, words: list[str], folder: Path, caller: socket.socket, pid: int) -> None:
        self.words, self.folder, self.pid, self._caller = words, folder, pid, caller
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        if self.returncode is None:
            if not select.select([self._caller], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.words, timeout, *self._told())
            self.returncode = handed.number(self._caller)
            self._caller.close()
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What it printed, and what it printed as errors, once it has ended."""
        self.wait(timeout)
        return self._told()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def _told(self) -> tuple[str, str]:
        out, err = ((self.folder / name).read_text(encoding="utf-8") for name in ("1", "2"))
        return out, err


class Process(NamedTuple):
    """One that the server forked."""

    number: int
    caller: socket.socket
    ended: int  # a file that can be read then


def serve(listener: socket.socket, python: str) -> None:
    """Fork a process for each caller until this one's input ends; that ends them too."""
    found = [path for path in sys.path[1:] if path not in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    sys.executable = python  # what starts processes from nothing starts them here
    prepare()
    started: list[Process] = []
    ready: list[Any] = []
    while sys.stdin not in ready:
        ready = select.select([listener, sys.stdin, *(file for one in started for file in one[1:])], [], [])[0]
        for process in started[:]:
            if process.ended in ready:
                code = os.waitstatus_to_exitcode(os.waitpid(process.number, 0)[1])
                with suppress(OSError):
                    process.caller.sendall(code.to_bytes(4, "big", signed=True))
                process.caller.close()
                os.close(process.ended)
                started.remove(process)
            elif process.caller in ready:  # the caller is no more
                os.kill(process.number, signal.SIGKILL)
        if listener in ready:
            caller, _ = listener.accept()
            files = socket.recv_fds(caller, 1, SPARE)[1]
            if not (request := caller.makefile("rb").readline()):  # it was killed
                continue
            request = json.loads(request)
            if request["words"][:2] == ["-m", "videopool"]:
                warm_up()
            number = os.fork()
            if not number:
                become(request, files, found)
            for file in files:
                os.close(file)
            with suppress(OSError):
                caller.sendall(number.to_bytes(4, "big", signed=True))
            started.append(Process(number, caller, os.pidfd_open(number)))
    for process in started:
        os.kill(process.number, signal.SIGKILL)
        os.waitpid(process.number, 0)


def prepare() -> None:
    """Import the libraries, and the program."""
    import videopool
    from videopool.app import quiet

    gc.set_threshold(50_000, 20, 100)  # as the program does
    gc.disable()  # what is imported stays
    quiet()
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # threads that read weights do not survive a fork
    own = [name for _, name, _ in walk_packages(videopool.__path__, "videopool.") if not name.endswith(ALONE)]
    for name in (*LIBRARIES, *own):
        importlib.import_module(name)

    import torch
    from lightning_fabric.utilities import registry

    from quick_nodes import quick_nodes

    registry.entry_points = cache(registry.entry_points)  # which each trainer reads from the files of all packages
    quick_nodes()
    re._MAXCACHE = 10_000  # type: ignore[attr-defined]  # loading a model compiles hundreds of patterns
    for one, kept in list(weakref.finalize._registry.items()):
        if kept.func is torch.library._del_library:  # which would take each operator apart when a process ends
            one.detach()
    gc.freeze()  # a collection in a child would copy all pages
    gc.enable()


@cache
def warm_up() -> None:
    """Read what nearly every command reads: the shipped configuration, the studies, the report, the bundled model."""
    import numpy as np
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from PIL import Image

    from videopool.app import register_experiments
    from videopool.commandline.composing import check_configurations, compose_once
    from videopool.commandline.groups import content_of
    from videopool.config.build import plain
    from videopool.features.source import software
    from videopool.inference.backbones import point_backbone
    from videopool.inference.predict import trainer_of
    from videopool.models import identity
    from videopool.paths import shipped
    from videopool.reports.page import TEMPLATES, _environment
    from videopool.results.manifest import versions

    Image.preinit()
    register_experiments(shipped("experiments"))
    compose_once()
    check_configurations()
    OverridesParser.create().parse_overrides(TYPICAL)
    with initialize_config_dir(str(shipped("conf")), version_base="1.3"):
        config = compose("config")
    GlobalHydra.instance().clear()
    for path in shipped("conf").rglob("*.yaml"):
        content_of(path)
    for path in TEMPLATES.glob("*.html"):
        _environment().get_template(path.name)
    model = plain(config.model)
    identified = identity(model["source"], model["revision"], target=model.get("_target_"))
    point_backbone(model, identified, None).preprocess(np.zeros((1, 8, 8, 3), np.uint8))
    trainer_of(config)
    software(config.job.reader)
    versions()
    gc.freeze()


def become(request: dict[str, Any], files: list[int], found: list[str]) -> NoReturn:
    """Turn this process into the one asked for, with modules found where Python finds them."""
    if request["new_session"]:
        os.setsid()
    for number in request.get("ignored", ()):
        signal.signal(number, signal.SIG_IGN)
    spare = [fcntl.fcntl(file, fcntl.F_DUPFD, SPARE) for file in files]
    os.closerange(0, SPARE)
    for number, file in zip(request.get("files", (0, 1, 2)), spare, strict=True):
        os.dup2(file, number)
        os.close(file)
    if limit := request.get("limit"):
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    open_streams("-u" in request.get("flags", ()) or bool(os.environ.get("PYTHONUNBUFFERED")))
    if caller := request.get("caller"):
        own_parent = os.getppid
        os.getppid = lambda: int(Path(f"/proc/{caller}/stat").read_text().rpartition(")")[2].split()[1])
        os.register_at_fork(after_in_child=lambda: setattr(os, "getppid", own_parent))
    own_folders()
    sys.executable = request.get("python", sys.executable)
    multiprocessing.spawn.set_executable(sys.executable)
    kind, *words = request["words"]
    first = {"-m": request["cwd"], "-c": ""}.get(kind, os.path.dirname(os.path.abspath(kind)))
    folders = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:] = [*([] if "-P" in request.get("flags", ()) else [first]), *folders, *found]
    sys.modules.pop("sitecustomize", None)
    with suppress(ImportError):
        importlib.import_module("sitecustomize")
    code = 0
    try:
        run(kind, words)
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        if isinstance(ending.code, str):
            print(ending.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()  # os._exit() leaves them out
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with suppress(OSError, ValueError):
                    stream.flush()
        os._exit(code)


def open_streams(at_once: bool) -> None:
    """Make sys.stdin, sys.stdout and sys.stderr of this process's files, as Python does when it starts."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            file = open(number, f"{mode}b", 0 if at_once and mode == "w" else -1, closefd=False)  # noqa: SIM115
        except OSError:  # the caller closed it
            setattr(sys, name, None)
            continue
        lines, errors = name == "stderr" or os.isatty(number), "backslashreplace" if name == "stderr" else "strict"
        stream = io.TextIOWrapper(file, "utf-8", errors, None, lines, at_once and mode == "w")
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def own_folders() -> None:
    """Give this process temporary folders of its own in place of those that W&B made at its import."""
    from wandb.sdk.artifacts.artifact import Artifact
    from wandb.sdk.data_types._private import MEDIA_TMP

    for folder, suffix in ((MEDIA_TMP, "wandb-media"), (Artifact._TMP_DIR, "wandb-artifacts")):
        folder._finalizer.detach()
        folder.__init__(suffix)


def run(kind: str, words: list[str]) -> None:
    """What Python does with its words: a module's, some code's, or a script's."""
    if kind == "-m":
        warnings.filterwarnings("ignore", ".* found in sys.modules after import of package", RuntimeWarning)
        if words[0] == "ipykernel_launcher":
            from pandas import set_option

            set_option("display.max_columns", 20)  # as when it is imported in a kernel
        sys.argv = words
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = [kind, *words[1:]]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(words[0], "<string>", "exec"), vars(main))
    else:
        sys.argv = [kind, *words]
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
