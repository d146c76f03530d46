"""What stands for Python's program in these tests does what that does."""

import os
import signal
import subprocess
import sys
import time

import pytest

TOLD = """
import os, signal, sys
print(sys.argv[1:], sys.path[0], os.getcwd(), os.getppid(), __name__, os.environ["SAID"], input(), os.isatty(0))
print("an error", file=sys.stderr)
{}
"""
ENDINGS = {"sys.exit(3)": 3, "sys.exit('why')": 1, "1 / 0": 1, "os.kill(os.getpid(), signal.SIGTERM)": -15, "": 0}


@pytest.mark.parametrize(("ending", "code"), ENDINGS.items())
@pytest.mark.parametrize("kind", ["code", "module", "script"])
def test_a_process_is_what_python_would_start(forked, tmp_path, kind, ending, code):
    (tmp_path / "told.py").write_text(TOLD.format(ending))
    words = {"code": ["-c", TOLD.format(ending)], "module": ["-m", "told"], "script": [str(tmp_path / "told.py")]}[kind]
    env = {**os.environ, "SAID": "é"}
    one, other = (
        subprocess.run([python, *words, "a b", ""], input="in\n", capture_output=True, text=True, cwd=tmp_path, env=env)
        for python in (sys.executable, forked.python)
    )
    assert one.returncode == other.returncode == code
    assert one.stdout == other.stdout
    assert one.stderr.splitlines()[:1] == other.stderr.splitlines()[:1] == ["an error"]
    assert one.stderr.splitlines()[-1] == other.stderr.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGKILL])
def test_signals_reach_the_process_and_a_kill_ends_it(forked, number):
    slow = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with subprocess.Popen([forked.python, "-c", slow], stdout=subprocess.PIPE, text=True) as program:
        process = int(program.stdout.readline())
        assert process != program.pid
        program.send_signal(number)
        assert program.wait(30) == -number
    until = time.monotonic() + 30
    while os.path.exists(f"/proc/{process}"):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_what_needs_an_interpreter_of_its_own_gets_it(forked):
    done = subprocess.run(
        [forked.python, "-S", "-c", "import sys; print('torch' in sys.modules)"], stdout=-1, text=True
    )
    assert done.stdout == "False\n"
