"""What a process of several devices raised, from the words that its parent has of it."""

import multiprocessing
import os
import traceback

import pytest
import torch
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from videopool.inference.devices import DeviceFailed, device_failure
from videopool.results import PointFailed, ResultsError
from videopool.video import UnreadableClipError


class Own(Exception):
    pass


def quoting(error):
    """As a loader process's error is told by the process it loads for."""
    try:
        raise error
    except Exception:
        name, trace = type(error).__name__, traceback.format_exc()
        return RuntimeError(f"Caught {name} in DataLoader worker process 0.\nOriginal {trace}")


def chained():
    try:
        raise KeyError("first")
    except KeyError as error:
        raise ValueError("then") from error


CASES = {
    "own": (lambda: Own("this: and that"), DeviceFailed, "Own: this: and that"),
    "empty": (lambda: AssertionError(), DeviceFailed, "ended: AssertionError"),
    "lines": (lambda: ValueError("one\ntwo: three"), DeviceFailed, "ValueError: one\ntwo: three"),
    "loader": (lambda: quoting(KeyError("name")), DeviceFailed, "KeyError: 'name'"),
    "user": (lambda: ResultsError("no room:\n    a.mp4: gone"), PointFailed, "^no room:\n    a.mp4: gone$"),
    "clip": (lambda: UnreadableClipError("a.mp4", "is empty"), PointFailed, "a.mp4"),
    "memory": (lambda: MemoryError(), MemoryError, "^$"),
    "gpu memory": (lambda: torch.OutOfMemoryError("CUDA out of memory"), MemoryError, "CUDA"),
    "chained": (chained, DeviceFailed, "ValueError: then$"),
    "killed": (lambda: os.kill(os.getpid(), 9), PointFailed, "trainer.devices=2 ended: process 0 .*SIGKILL"),
}


def fail(rank, name):
    made = CASES[name][0]()
    raise made


@pytest.mark.parametrize("name", CASES)
def test_an_error_is_told_as_what_it_is(name):
    context = start_processes(fail, (name,), 1, join=False, start_method="fork")
    with pytest.raises((ProcessRaisedException, ProcessExitedException)) as raised:
        context.join()
    told = device_failure(raised.value, 2)
    _, kind, words = CASES[name]
    assert type(told) is kind
    with pytest.raises(kind, match=words):
        raise told
    assert not multiprocessing.active_children()
