"""A process per device. Each reads the weights for itself, so that no tensor passes between processes."""

import os
import re
import threading
import time
from collections.abc import Callable
from pydoc import locate
from typing import Any, TypeVar

import torch
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import ProcessException, ProcessRaisedException, start_processes

from videopool.errors import UserError, out_of_memory
from videopool.results import PointFailed
from videopool.runtime.interrupts import end_loaders_at_exit, ignore_interrupts
from videopool.runtime.progress import be_silent
from videopool.runtime.ranks import DEVICE
from videopool.runtime.streams import endure, quiet

GRACE = 1.0  # seconds for the other processes to end, once one has failed
PATIENCE = 1.0  # seconds between two checks that the first process is alive
Result = TypeVar("Result")
_KIND = re.compile(r"^([A-Za-z_][\w.]*)(?:: |:?$)")  # begins a printed exception


def on_devices(work: Callable[[int], Result], devices: int, method: str) -> list[Result]:
    """Call `work` with the number of each device, in a process of its own. Returns the results, in any order.

    A process that is spawned (`method`) gets `work` pickled: a module's function with small arguments.
    Raises what device_failure() gives for the first process that raised or was killed; all others are ended.
    """
    from lightning_fabric.plugins.environments.lightning import find_free_network_port  # takes seconds to import

    results: Any = get_context(method).SimpleQueue()
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port()), "NODE_RANK": "0"}
    given = (work, devices, meeting, results, os.getpid())
    started: Any = start_processes(_serve, given, devices, join=False, start_method=method)
    try:
        while not started.join(grace_period=GRACE):
            pass
    except ProcessException as error:
        raise device_failure(error, devices) from error
    finally:
        for process in started.processes:
            process.kill()
    return [results.get() for _ in range(devices)]


def _serve(
    device: int, work: Callable[[int], object], devices: int, meeting: dict[str, str], results: Any, parent: int
) -> None:
    """Do a device's work, leaving signals and talk to the process that started this one."""
    own = {DEVICE: device + 1, "LOCAL_RANK": device, "RANK": device, "WORLD_SIZE": devices}
    os.environ.update(meeting, **{name: str(value) for name, value in own.items()})
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # OpenMP refuses transformers' threads after a fork
    quiet()
    endure()
    be_silent()
    ignore_interrupts()
    end_loaders_at_exit()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // devices))
    results.put(work(device))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PATIENCE)
    os._exit(1)


class DeviceFailed(RuntimeError):
    """A process of several devices raised an error of the program; the cause holds its traceback."""


def device_failure(error: ProcessException, devices: int) -> Exception:
    """The exception to raise for a process that raised or was killed, from the text that its parent has of it.

    A user's error and lack of memory keep their kind.
    """
    ended = f"a process of trainer.devices={devices} ended"
    if not isinstance(error, ProcessRaisedException):
        return PointFailed(f"{ended}: {error}")
    name, message = _raised(str(error))
    kind = locate(name)
    if not isinstance(kind, type):  # not found
        kind = Exception
    if issubclass(kind, UserError):
        return PointFailed(message)
    if issubclass(kind, (MemoryError, torch.OutOfMemoryError)) or out_of_memory(RuntimeError(message)):
        return MemoryError(message)
    return DeviceFailed(f"{ended}: {name}{': ' if message else ''}{message}")


def _raised(trace: str) -> tuple[str, str]:
    """Class and message of the exception that ends a printed traceback; of the first cause, where it quotes one."""
    lines = trace.splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith("  File ")]
    for number in range(frames[-1] + 1 if frames else 0, len(lines)):
        if match := _KIND.match(lines[number]):
            return match[1], "\n".join([lines[number][match.end() :], *lines[number + 1 :]]).strip()
    return "Exception", " ".join(trace.split())
