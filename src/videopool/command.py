"""The command `videopool`: called from Python, resumes as a shell's. A notebook runs its study this way."""

import os
import subprocess
import sys

# Kernels of notebooks say with these that their output is a terminal; tables would be squeezed into 80 columns.
TERMINAL = ("FORCE_COLOR", "CLICOLOR_FORCE")


class CommandFailed(RuntimeError):
    """The command did not end with exit code 0."""


def run(*words: str) -> None:
    """Run `videopool` with these words in a process of its own and pass its output on, line by line.

    The process has the caller's environment and working directory; it is told that there is no terminal. Points that
    are finished are kept, so a study that is there already costs a few seconds.

    Raises:
        CommandFailed: it exited otherwise than with 0; says which words, and the last line of its output.
    """
    last = ""
    command = [sys.executable, "-m", "videopool", *words]
    around = {name: value for name, value in os.environ.items() if name not in TERMINAL}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=around) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    if process.returncode:
        raise CommandFailed(f"videopool {' '.join(words)}: exit code {process.returncode}: {last}")
