"""The error of a process among several devices, rebuilt from the text that its parent has."""

import re
from pydoc import locate

import torch
from torch.multiprocessing.spawn import ProcessException, ProcessRaisedException

from videopool.errors import UserError, out_of_memory
from videopool.results import PointFailed

_KIND = re.compile(r"^([A-Za-z_][\w.]*)(?:: |:?$)")  # begins a printed exception


class DeviceFailed(RuntimeError):
    """A process of several devices raised an error of the program; the cause holds its traceback."""


def device_failure(error: ProcessException, devices: int) -> Exception:
    """The exception to raise for a process that raised or was killed; a user's error and lack of memory keep theirs."""
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
