"""What a process of several devices raised, told by its parent."""

import re
from importlib import import_module

import torch
from torch.multiprocessing.spawn import ProcessException, ProcessRaisedException

from videopool.errors import UserError
from videopool.results import PointFailed

_KIND = re.compile(r"^([A-Za-z_][\w.]*)(?:: |:?$)")  # begins what Python prints of an exception


class DeviceFailed(RuntimeError):
    """A process of several devices raised an error of the program; its trace is in that of the cause."""


def device_failure(error: ProcessException, devices: int) -> Exception:
    """What to raise for the end of a process before its time.

    An error that its user can mend is told as one, lack of memory too; any other with the words of the process.

    Args:
        error: of the parent: a process raised something, or ended by a signal.
        devices: how many processes there were.
    """
    told = f"a process of trainer.devices={devices} ended"
    if not isinstance(error, ProcessRaisedException):
        return PointFailed(f"{told}: {error}")
    kind, message = _raised(str(error))
    if issubclass(kind_of := _class(kind), UserError):
        return PointFailed(message)
    if issubclass(kind_of, (MemoryError, torch.OutOfMemoryError)):
        return MemoryError(message)
    return DeviceFailed(f"{told}: {kind}{': ' if message else ''}{message}")


def _raised(trace: str) -> tuple[str, str]:
    """Class and message of the exception that a printed trace ends with; of the first cause, where it quotes one."""
    lines = trace.splitlines()
    frames = [place for place, line in enumerate(lines) if line.startswith("  File ")]
    for place in range(frames[-1] + 1 if frames else 0, len(lines)):
        if found := _KIND.match(lines[place]):
            message = "\n".join([lines[place][found.end() :], *lines[place + 1 :]])
            return found[1], message.strip()
    return "Exception", " ".join(trace.split())


def _class(name: str) -> type[BaseException]:
    """The class that a name with its module stands for; Exception if it cannot be found."""
    module, _, own = name.rpartition(".")
    try:
        found = getattr(import_module(module or "builtins"), own, None)
    except ImportError:
        found = None
    return found if isinstance(found, type) and issubclass(found, BaseException) else Exception
