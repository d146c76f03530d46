"""Points as jobs of submitit: of a SLURM whose programs say what the test wants, and of this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
from test_processes import records

from conftest import SMALL
from videopool.runtime.outcome import FAILED, Outcome
from videopool.runtime.preemption import leaving_when_asked

pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
from submitit.core.job_environment import SignalHandler
from submitit.core.utils import DelayedSubmission, JobPaths
from submitit.slurm.slurm import SlurmJobEnvironment

SBATCH = """#!/bin/sh
echo sbatch >> calls
if [ -e refused ]; then cat refused >&2; exit 1; fi
echo "Submitted batch job $(wc -l < calls)"
"""
WORDS = ("-m", "hydra/launcher=submitit_slurm", "study=s", "logger=none", "frames.num=1,2")
SLOW = """
import os, time
from videopool.pooling import Average

class Slow(Average):
    def pool(self, grid, context=None):
        if grid.shape[-1] > 3 and not os.path.exists("hurry"):  # not when it is only looked at
            time.sleep(0.5)
        return super().pool(grid, context)
"""


@pytest.fixture
def start(tmp_path, forked):
    """Starts the program where sbatch numbers its jobs from 1 and squeue shows the file `queue`."""
    for name, text in {"sbatch": SBATCH, "srun": "", "squeue": "#!/bin/sh\ncat queue\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "queue").touch()
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    started = []

    def run(*words, path=path):
        started.append(forked.start(words or WORDS, tmp_path, env={"PATH": path}))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()


def says(process, words):
    deadline = time.monotonic() + 60
    while words not in (text := "".join(path.read_text() for path in process.folder.glob("[12]"))):
        assert process.poll() is None, text
        assert time.monotonic() < deadline, text
        time.sleep(0.05)


def calls(tmp_path):
    return (tmp_path / "calls").read_text().count("sbatch")


def test_jobs_without_a_result_are_tried_once_more_and_explained(start, tmp_path):
    """Point 0 fails before it begins, then for want of memory; point 1 is cancelled."""
    (tmp_path / "queue").write_text("1_0|FAILED|NonZeroExitCode\n1_1|CANCELLED|None\n2|OUT_OF_MEMORY|OutOfMemory\n")
    jobs = tmp_path / "results" / "s" / ".sweep" / ".submitit"
    for job, line in {"1_0": "line 9: module: command not found", "2": "oom-kill event"}.items():
        (jobs / job).mkdir(parents=True)
        (jobs / job / f"{job}_0_log.out").write_text(f"submitit INFO (x) - Starting\n{line}\nsrun: error: task 0\n")
    process = start()
    out, err = process.communicate(60)
    assert process.returncode == 1, err
    assert calls(tmp_path) == 2
    assert "submitted 2 points: job 1 (2 tasks); logs in results/s/.sweep/.submitit" in out
    assert "submitted 1 point: job 2;" in out
    log = "its log: results/s/.sweep/.submitit/1_0/1_0_0_log.out\n    line 9: module: command not found\n"
    assert f"[0] job 1_0 ended without a result (FAILED); {log}" in err
    assert "    oom-kill event\n" in err
    assert "srun: error" not in err
    limit = "(OUT_OF_MEMORY); hydra.launcher.mem_gb sets the limit"
    assert f"[0] FAILED  frames.num=1: its job ended 2 times without a result {limit}" in err
    assert "[1] FAILED  frames.num=2: its job was cancelled" in err
    assert "Traceback" not in err


def test_a_command_that_is_stopped_tells_of_its_jobs_and_finds_them_again(start, tmp_path):
    (tmp_path / "queue").write_text("1_0|RUNNING|None\n1_1|PENDING|Resources\n")
    process = start()
    says(process, "submitted 2 points")
    os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate(60)
    assert process.returncode == 130
    told = "jobs go on: 1 RUNNING, 1 PENDING (Resources). This ends them: scancel 1; the same command waits for them."
    assert told in err
    process = start(*WORDS[:-1], "frames.num=2,1")  # the order of points does not matter
    says(process, "waiting for what an earlier command submitted: job 1 (2 tasks)")
    note = json.loads((tmp_path / "results/s/.sweep/.submitit/1_0/point.json").read_text())
    outcome = {"number": 0, "job": "evaluate", **asdict(Outcome(FAILED, "one", "no clip"))}  # as the job notes it
    with open(note["outcomes"], "a") as file:
        file.write(json.dumps(outcome) + "\n")
    (tmp_path / "queue").write_text("1_0|COMPLETED|None\n1_1|CANCELLED|None\n")
    _, err = process.communicate(60)
    assert process.returncode == 1
    assert calls(tmp_path) == 1
    assert "[1] FAILED  one: no clip\n" in err
    assert "[0] FAILED  frames.num=2: its job was cancelled\n" in err


def test_what_the_cluster_refuses_is_one_line(start, tmp_path):
    (tmp_path / "refused").write_text("sbatch: error: no such partition\nsbatch: error: Batch job failed: Invalid\n")
    process = start()
    _, err = process.communicate(60)
    assert process.returncode == 2
    assert err == "videopool: no job is submitted: no such partition; Batch job failed: Invalid\n"
    process = start(path=str(tmp_path / "nowhere"))
    _, err = process.communicate(60)
    assert (process.returncode, len(err.splitlines())) == (2, 1)
    assert 'Could not detect "srun"' in err


@pytest.mark.parametrize("name", ["submitit_slurm", "joblib"])
def test_a_launcher_is_refused_for_one_point(start, tmp_path, name):
    process = start(f"hydra/launcher={name}", "logger=none")
    _, err = process.communicate(60)
    assert process.returncode == 2
    assert err == f"videopool: hydra/launcher={name} starts the points of a sweep; add -m, for one point too\n"
    assert not (tmp_path / "results").exists()


def children(process):
    """The processes below one, at any depth."""
    listed = subprocess.run(["ps", "--ppid", str(process), "-o", "pid="], capture_output=True, text=True, check=False)
    found = [int(number) for number in listed.stdout.split()]
    return [*found, *(below for one in found for below in children(one))]


def test_a_preempted_job_goes_on(tmp_path, data_dir, forked, monkeypatch):
    """Every process of a job, which starts from nothing, gets the signal; those of its loader too.

    The job that goes on is forked.
    """
    (tmp_path / "slow.py").write_text(SLOW)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ -e hurry ] && exec {forked.python} "$@"\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(forked, "_python", str(python))
    words = ["-m", "hydra/launcher=submitit_local", "pooling._target_=slow.Slow", "frames.num=2", *SMALL, "study=s"]
    words += ["results_dir=results", f"data_dir={data_dir}", "job.workers=2", "job.max_clips=1"]
    process = forked.start(words, tmp_path, anew=True)
    folder, deadline = tmp_path / "results" / "s", time.monotonic() + 120
    while not any(len(path.read_bytes().splitlines()) > 3 for path in folder.glob("*/records.jsonl")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kept = len(records(next(folder.glob("*/records.jsonl")).parent))
    controller = children(process.pid)[0]
    job = children(controller)
    assert len(job) >= 3  # two of them loaders
    for one in job:
        os.kill(one, signal.SIGUSR2)
    (tmp_path / "hurry").touch()
    out = "".join(process.communicate(timeout=200))
    assert process.returncode == 0, out
    assert out.count("submitted 1 point") == 1
    (log,) = folder.glob(".sweep/.submitit/*/*_log.*out*")
    (point,) = [path.parent for path in folder.glob("*/metrics.json")]
    assert len(records(point)) > kept
    logged = "".join(path.read_text() for path in log.parent.glob("*_log.*"))
    assert logged.count("Requeued job") == 1
    assert "Traceback" not in logged
    assert "ConfigStore" not in logged


def test_a_job_at_its_last_time_limit_says_so():
    """submitit's handler in a job of a minute that may not be requeued: the work is stopped, and the point fails."""
    delayed = DelayedSubmission(print)
    delayed.set_timeout(timeout_min=1, max_num_timeout=0)
    handler = SignalHandler(SlurmJobEnvironment(), JobPaths("."), delayed).checkpoint_and_try_requeue
    before = signal.signal(signal.SIGUSR2, handler)

    def work():
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(30)
        return Outcome("complete", "point")

    try:
        outcome = leaving_when_asked(work, "point")
        assert signal.getsignal(signal.SIGUSR2) == handler
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert outcome.status == FAILED
    assert "its job came to its time limit too often" in outcome.message
