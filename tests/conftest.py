"""The environment of tests, and of the processes that run them. Fixtures are in fixtures.py."""

import gc
import os
import signal

# What its user's machine tells libraries is not what is tested; they read some of it when they are imported.
THEIRS = (
    "HF_", "HUGGING", "TRANSFORMERS_", "TOKENIZERS_", "DIFFUSERS_", "WANDB_", "SLURM_", "SBATCH_", "SRUN_", "SALLOC_",
    "SUBMITIT_", "HYDRA_", "CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "PL_",
    "LT_", "TORCH_", "TORCHELASTIC_", "PYTORCH_", "OPENAI_", "ANTHROPIC_", "CLICOLOR", "JOBLIB_", "LOKY_", "MPL",
    "DECORD_", "PYTHONWARNINGS",
)  # fmt: skip
THEIR_NAMES = (
    "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
    "FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "VIDEOPOOL_OUTCOMES",
    "VIDEOPOOL_STARTS", "VIDEOPOOL_SWEEP", "VIDEOPOOL_FIGURES", "VIDEOPOOL_LOG", "VIDEOPOOL_POINT",
    "VIDEOPOOL_VERBOSITY", "VIDEOPOOL_DEVICE", "VIDEOPOOL_GPUS",
)  # fmt: skip
for name in list(os.environ):
    if name.startswith(THEIRS) or name in THEIR_NAMES or name.lower().endswith("_proxy"):
        del os.environ[name]

gc.set_threshold(200_000, 20, 100)  # as often as Python does it, collecting takes a tenth of all tests
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup's is kept by what is started here

import re
import sys

os.environ["OMP_NUM_THREADS"] = "1"  # of processes started here: as many tests run at once as there are cores
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["GOMP_SPINCOUNT"] = "0"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # threads that read weights of a few kilobytes only wait for each other
os.environ["VIDEOPOOL_FIGURES"] = "none"  # of reports, unless a test looks at them: they take longer than most points

from forked import Forked

SERVERS: list[Forked] = []  # of the process that gives tests to workers
ASKED = re.search(r" (-n ?|--numprocesses[ =])([1-9]|auto|logical)", " ".join(sys.argv))
if ASKED and "PYTEST_XDIST_WORKER" not in os.environ:
    SERVERS.append(Forked())
    _ = SERVERS[0].python  # it imports libraries while this process does

from multiprocessing import spawn
from pathlib import Path

import pytest
from _pytest.assertion import rewrite

if not SERVERS:  # this process runs tests itself
    from fixtures import *  # noqa: F403

TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items):
    """Those of whole pages and environments come first: begun last, one of them would keep one core busy alone."""
    items.sort(key=lambda item: item.path.parent != TESTS)


def pytest_collection_finish():
    """Libraries and thousands of tests stay: no collection looks at them again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config, specs):
    """The workers are forked, as their processes are, from one that has imported the libraries."""
    if not SERVERS:
        SERVERS.append(Forked())
    for spec in specs:
        spec.python = SERVERS[0].python
    if rewrite.assertstate_key in config.stash:  # not with --assert=plain
        for path in TESTS.rglob("test_*.py"):
            rewrite_asserts(path, config)


def rewrite_asserts(path, config):
    """Pytest's own cache of a file whose asserts explain themselves; each worker would write it, at the same time."""
    cached = rewrite.get_cache_dir(path) / f"{path.stem}{rewrite.PYC_TAIL}"
    if rewrite.try_makedirs(cached.parent) and rewrite._read_pyc(path, cached) is None:
        source, code = rewrite._rewrite_test(path, config)
        rewrite._write_pyc(config.stash[rewrite.assertstate_key], code, source, cached)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput |= {"forked": str(Path(SERVERS[0].python).parent), "python": sys.executable}


def pytest_configure(config):
    if given := getattr(config, "workerinput", {}).get("python"):
        sys.executable = given  # what a test starts from nothing
        spawn.set_executable(given)


def pytest_unconfigure():
    while SERVERS:
        SERVERS.pop().close()
