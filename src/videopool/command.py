"""The command `videopool`: called from Python, resumes as a shell's. A notebook runs its study this way."""

import os
import subprocess
import sys

# Jupyter kernels set these although there is no terminal; tables would be squeezed into 80 columns.
TERMINAL = ("FORCE_COLOR", "CLICOLOR_FORCE")


class CommandFailed(RuntimeError):
    """The command ended with another exit code than 0."""


def run(*words: str) -> None:
    """Run `videopool` with these words in a process of its own and print its output line by line.

    The process has the caller's environment, without colours, and working directory. Finished points are kept, so a
    finished study costs a few seconds.

    Raises CommandFailed for another exit code than 0, with the words and the last line of output.
    """
    last = ""
    command = [sys.executable, "-m", "videopool", *words]
    env = {name: value for name, value in os.environ.items() if name not in TERMINAL}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line.strip() or last
    if process.returncode:
        raise CommandFailed(f"videopool {' '.join(words)}: exit code {process.returncode}: {last}")
