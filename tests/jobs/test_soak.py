"""Twenty kills, and sweeps that share a folder while they are killed. Run by `make soak`."""

import os
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from test_processes import records

pytestmark = pytest.mark.soak

SWEEP = [
    "-m",
    "pooling=none,average,adaptive_Tx3x3",
    "frames.num=2,8",
    "logger=none",
    "job.max_clips=4",
    "features=disk",
]
COLUMNS = ["point", "fingerprint", "status", "n", "n_failed", "score", "ci_low", "ci_high"]


def start(tmp_path, data_dir, study):
    small = ["benchmark.clips=60", "benchmark.per_task=8", f"data_dir={data_dir}", f"results_dir={tmp_path}/results"]
    command = [sys.executable, "-m", "videopool", *SWEEP, f"study={study}", *small]
    out = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, start_new_session=True, **out)


def kill(process):
    """Kill a command and its processes; whether it was still running."""
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running


def check(tmp_path, study):
    whole, broken = tmp_path / "results" / "whole", tmp_path / "results" / study
    tables = [pd.read_csv(folder / "sweep.csv")[COLUMNS] for folder in (whole, broken)]
    pd.testing.assert_frame_equal(*tables)
    for path in whole.glob("*/metrics.json"):
        assert records(path.parent) == records(broken / path.parent.name)


@pytest.mark.parametrize("commands", [1, 2])
def test_twenty_kills_change_nothing(videopool, tmp_path, data_dir, commands):
    """Kills at random instants, start-up included; with two commands at once, each is killed in turn."""
    assert start(tmp_path, data_dir, "whole").wait() == 0
    rng, kills, lost = random.Random(commands), 0, 0
    study = f"broken{commands}"
    while kills < 20:
        processes = [start(tmp_path, data_dir, study) for _ in range(commands)]
        for process in processes:
            time.sleep(rng.uniform(1, 9))
            kills += kill(process)
        lines = sum(len(p.read_bytes().splitlines()) for p in (tmp_path / "results" / study).glob("*/records.jsonl"))
        assert lines >= lost, "what was written stays"
        lost = lines
        if lines == 6 * 136:  # finished early: begin anew under another name
            check_done = start(tmp_path, data_dir, study).wait()
            assert check_done == 0
            check(tmp_path, study)
            study, lost = f"{study}x", 0
    assert start(tmp_path, data_dir, study).wait() == 0
    check(tmp_path, study)
