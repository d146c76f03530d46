"""Stands for Python's program: hands its start to the server of forked.py, which has imported the libraries.

`python -IS handed.py ADDRESS PYTHON WORD...` does what `PYTHON WORD...` does, in a process forked from the server: it
passes on its open files, working directory, environment and signals, and ends as that process does. What is no module,
script or code, Python itself runs.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import sys

PASSED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH")
FLAGS = {"-B", "-P", "-u"}  # others need an interpreter of their own


def ask(address: str, request: dict, files: list[int]) -> tuple[socket.socket, int]:
    """Have the server start a process with these files; gives what tells its exit code, and its number."""
    caller = socket.socket(socket.AF_UNIX)
    caller.connect(address)
    socket.send_fds(caller, [b"\n"], files)
    caller.sendall(json.dumps(request).encode() + b"\n")
    return caller, number(caller)


def number(caller: socket.socket) -> int:
    """The next number that the server sends."""
    if not (sent := caller.recv(4)):
        raise ConnectionError("the server of forked.py has ended")
    return int.from_bytes(sent, "big", signed=True)


def open_files() -> list[int]:
    """The numbers of the files that this process was given."""
    given = []
    for each in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # the folder itself
            given += [each] if os.get_inheritable(each) else []
    return given


def main(address: str, python: str, *words: str) -> None:
    flags = next((n for n, word in enumerate(words) if word not in FLAGS), len(words))
    if words[flags : flags + 1] == () or (words[flags][:1] == "-" and words[flags] not in ("-m", "-c")):
        os.execv(python, [python, *words])
    signals = [signal.Signals[name] for name in PASSED]
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    given = open_files()
    request = {
        "flags": words[:flags],
        "words": words[flags:],
        "cwd": os.getcwd(),
        "env": dict(os.environ),
        "files": given,
        "limit": resource.getrlimit(resource.RLIMIT_NOFILE),
        "caller": os.getpid(),
        "new_session": os.getsid(0) == os.getpid(),
        "ignored": [each for each in signals if signal.getsignal(each) is signal.SIG_IGN],
    }
    caller, process = ask(address, request, given)
    for each in set(signals) - set(request["ignored"]):
        signal.signal(each, lambda received, _: os.kill(process, received))
    for each in given:
        os.close(each)  # the end of a pipe is told when that process closes it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    code = number(caller)
    if code < 0:  # a signal ended it
        with contextlib.suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
