"""Several devices for one point: what their processes are given, and what they do not take for their own."""

import json
import os
import shutil
import signal
import time

import pytest
import torch
from omegaconf import OmegaConf

from videopool.inference.devices import on_devices
from videopool.inference.gpus import GPUS, VISIBLE, share_gpus, take_gpus
from videopool.runtime.kills import STARTS

# As in a job of SLURM with one task, where Lightning would take the devices for tasks that there are not.
SLURM = {
    "SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "points", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_NODELIST": "a1", "SLURM_STEP_NUM_TASKS": "1",
}  # fmt: skip
# Allows fewer open files than the model has tensors, and notes how much shared memory a process has.
FRUGAL = """
import os, resource
from videopool.pooling import Average

resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

class Frugal(Average):
    def pool(self, grid, context=None):
        with open("/proc/self/maps") as file:
            shared = [line.split()[0].split("-") for line in file if "/dev/shm" in line or "/torch_" in line]
        size = sum(int(end, 16) - int(begin, 16) for begin, end in shared)
        with open(os.environ["SEEN"], "a") as file:
            file.write(f"{os.getpid()} {size}\\n")
        return super().pool(grid, context)
"""


def records(study):
    (file,) = study.glob("*/records.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    found = {line["id"]: line for line in lines}
    assert len(found) == len(lines)
    return file, found


def test_spawned_processes_share_no_weights(videopool, tmp_path):
    """As on GPUs; in a job of SLURM; what is left of a point is uneven: the records of one device."""
    (tmp_path / "frugal.py").write_text(FRUGAL)
    words = ["frames.num=1", "trainer.accelerator=cpu", "job.workers=0", "benchmark.limit=5", "job.max_clips=2"]
    words += ["pooling._target_=frugal.Frugal"]
    env = {**SLURM, "SEEN": str(tmp_path / "seen")}
    videopool(*words, "study=one", env=env)
    _, wanted = records(tmp_path / "results" / "one")
    shutil.copytree(tmp_path / "results" / "one", tmp_path / "results" / "two")
    file, _ = records(tmp_path / "results" / "two")
    clips = list(dict.fromkeys(record["clip"] for record in wanted.values()))
    kept = [line for line in file.read_text().splitlines(keepends=True) if json.loads(line)["clip"] not in clips[-5:]]
    file.write_text("".join(kept))
    (file.parent / "metrics.json").unlink()
    (tmp_path / "seen").unlink()
    videopool(*words, "study=two", "trainer.devices=2", "trainer.strategy=ddp_spawn", env=env)
    assert 0 < len(kept) < len(wanted)
    assert records(tmp_path / "results" / "two")[1] == wanted
    seen = [tuple(map(int, line.split())) for line in (tmp_path / "seen").read_text().splitlines()]
    assert len({process for process, _ in seen}) >= 2
    assert max(size for _, size in seen) < 1e5


@pytest.mark.parametrize(
    ("job", "started"),
    [("evaluate", {**SLURM, "SLURM_STEP_NUM_TASKS": "2"}), ("finetune", {"LOCAL_RANK": "1", "WORLD_SIZE": "2"})],
)
def test_processes_that_others_started_for_the_devices_are_refused(videopool, job, started):
    done = videopool(f"job={job}", "trainer.accelerator=cpu", "trainer.devices=2", env=started, check=1, small=False)
    assert "this is one of 2 processes of one command; start one" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def wait_for(found, seconds=60):
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_processes_of_devices_end_with_the_one_that_started_them(tmp_path):
    def work(device):
        (tmp_path / str(os.getpid())).touch()
        time.sleep(60)

    first = os.fork()
    if not first:
        on_devices(work, 2, "fork")
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    wait_for(lambda: not any(os.path.exists(f"/proc/{path.name}/exe") for path in tmp_path.iterdir()))


def launched(devices=1, **launcher):
    name = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
    given = {"launcher": {"_target_": name, **launcher}}
    return OmegaConf.create({"hydra": given, "trainer": {"accelerator": "auto", "devices": devices}, "model": {}})


def test_each_process_of_a_launcher_sees_gpus_of_its_own(tmp_path, monkeypatch):
    """Three processes and two pairs of GPUs: the third waits until another ends."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 5)
    for name, value in {VISIBLE: "3,4,5,6,7", STARTS: str(tmp_path / "starts"), GPUS: ""}.items():
        monkeypatch.setenv(name, value)  # taken back at the end, as what is set below
    share_gpus(launched(devices=2, n_jobs=2))
    processes = []

    def started():
        process = os.fork()
        if not process:
            take_gpus()
            (tmp_path / f"{os.getpid()}").write_text(os.environ[VISIBLE])
            time.sleep(60)
        processes.append(process)
        return tmp_path / str(process)

    try:
        one, two, three = started(), started(), started()
        wait_for(lambda: sum(path.exists() for path in (one, two, three)) == 2)
        time.sleep(0.2)
        (late,) = [path for path in (one, two, three) if not path.exists()]
        early = [path for path in (one, two, three) if path != late]
        assert {path.read_text() for path in early} == {"3,4", "5,6"}
        os.kill(int(early[0].name), signal.SIGKILL)
        wait_for(late.exists)
        assert late.read_text() == early[0].read_text()
    finally:
        for process in processes:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


@pytest.mark.parametrize(("jobs", "devices", "fit"), [(-1, 1, 2), (3, 1, 2), (2, 2, 1), (1, 3, 0)])
def test_more_processes_than_gpus_are_refused(monkeypatch, capsys, jobs, devices, fit):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SystemExit) as raised:
        share_gpus(launched(devices, n_jobs=jobs))
    assert raised.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"hydra.launcher.n_jobs={jobs}: {fit} at most, with 2 GPUs and trainer.devices={devices}" in told
    assert GPUS not in os.environ
