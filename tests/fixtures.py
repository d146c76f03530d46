"""Fixtures: small real files made on the spot, and the folder of shared material where there is one."""

import os
import re
import subprocess
import sys
from copy import deepcopy
from functools import cache
from multiprocessing import spawn
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.config_store import ConfigStore
from lightning_fabric.utilities import registry

from composed import composed, opened, seams, seams_as
from forked import Forked
from quick_nodes import quick_nodes
from videopool.commandline.composing import check_configurations, compose_once, parse_once
from videopool.inference import backbones

torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
GOLDENS = Path(os.environ.get("VIDEOPOOL_GOLDENS", SHARED / "goldens"))  # recordings of published code


registry.entry_points = cache(registry.entry_points)  # which each trainer reads from the files of all packages
quick_nodes()
re._MAXCACHE = 10_000  # loading a model compiles hundreds of patterns
ConfigStore.__deepcopy__ = lambda self, _: self  # as the program does: Hydra copies all studies for each composition


@pytest.fixture(autouse=True)
def unchanged_hydra():
    """Undoes what the program, called in this process, changes in Hydra: the next test composes as Hydra does."""
    before = seams()
    with seams_as(before):
        yield
        changed = seams() != before
    if changed:
        for change in (check_configurations, compose_once, parse_once):
            change.cache_clear()


@pytest.fixture
def shared():
    """A path below the shared material; skips where that is not there."""

    def path(name: str) -> Path:
        own = GOLDENS / name.removeprefix("goldens/") if name.startswith("goldens/") else SHARED / name
        if not own.exists():
            pytest.skip(f"shared/{name} is not beside this checkout")
        return own

    return path


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the embedded world is rendered, once for the tests of all workers."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "data"
    folder.mkdir(exist_ok=True)
    return folder


READ = {}


@pytest.fixture
def read_once(monkeypatch):
    """Jobs in this process copy a model that an earlier one has read from the same files: a fifth of the time."""
    load = backbones.load_backbone

    def copied(**settings):
        files = sorted(Path(settings["source"]).glob("*"))
        key = repr([settings, [(path, path.stat().st_mtime_ns) for path in files]])
        if key not in READ:
            if len(READ) == 4:
                READ.clear()
            READ[key] = load(**settings)
        read = READ[key]
        return deepcopy(read, {id(one): one for one in (read.tokenizer, read.image_processor)})

    monkeypatch.setattr(backbones, "load_backbone", copied)


SMALL = ("benchmark.clips=60", "benchmark.per_task=8", "benchmark.limit=1", "frames.num=2", "logger=none")
TASKS = "++benchmark.tasks=[existence,object_count,moving_count,event_order]"  # two of space, two of time
ALONE = "job.workers=0"  # of job=evaluate


@pytest.fixture(scope="session")
def forked(request):
    shared = getattr(request.config, "workerinput", {}).get("forked")
    server = Forked(shared or os.environ.get("VIDEOPOOL_FORKED"))  # the latter of the tests that started these
    yield server
    server.close()


@pytest.fixture
def sooner(forked: Forked, monkeypatch: pytest.MonkeyPatch):
    """Forks what a test starts with sys.executable, or has multiprocessing start from nothing."""
    monkeypatch.setattr(sys, "executable", forked.python)
    monkeypatch.setattr(spawn, "_python_exe", os.fsencode(forked.python))


@pytest.fixture
def videopool(tmp_path: Path, data_dir: Path, forked: Forked):
    """The program as a user runs it, in a process of its own, writing to tmp_path, whose modules it can import.

    It is forked, but started from nothing where libraries read its environment at their import.
    """
    # In front of what is there, not instead: that may say which checkout is tested.
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))

    def run(*words: str, timeout: float = 300, check: int | None = 0, small: bool = True, env: dict | None = None):
        own = {word.partition("=")[0] for word in words}
        own |= {"frames.num"} if "experiment" in own else set()  # which sweeps it
        own |= {TASKS.partition("=")[0]} if own & {"benchmark", "experiment", "+benchmark.tasks"} else set()
        own |= {ALONE.partition("=")[0]} if own & {"job", "experiment"} else set()
        extra = [word for word in (*SMALL, TASKS, ALONE) if small and word.partition("=")[0] not in own]
        words = (f"results_dir={tmp_path}/results", f"data_dir={data_dir}", *extra, *words)
        if not any(name.startswith(("HF_", "TRANSFORMERS_")) for name in env or {}):
            done = forked.run(words, tmp_path, path, timeout, env)
        else:
            done = subprocess.run(
                [sys.executable, "-m", "videopool", *words],
                capture_output=True,
                text=True,
                timeout=timeout,
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": path, **(env or {})},
                check=False,
            )
        if check is not None:
            assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture
def drawn(monkeypatch):
    """Reports have their figures, in all formats."""
    monkeypatch.delenv("VIDEOPOOL_FIGURES")


@pytest.fixture
def hydra_conf():
    """Composes the program's configuration from overrides."""
    with opened():
        yield composed


def numbered_frames(count: int, height: int = 64, width: int = 96) -> np.ndarray:
    """uint8 [count, height, width, 3]: eight vertical bars, black or white, are the frame's number in binary."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    for number in range(count):
        for bit in range(8):
            if number >> bit & 1:
                frames[number, :, bit * width // 8 : (bit + 1) * width // 8] = 235
    return frames


def read_number(frame: np.ndarray) -> int:
    """The number that numbered_frames drew into a frame."""
    bars = frame.mean(axis=(0, 2)).reshape(8, -1).mean(axis=1)
    return sum(1 << bit for bit in range(8) if bars[bit] > 117)
