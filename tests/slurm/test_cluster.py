"""Points as jobs of a real SLURM: what ends well, what is refused, stopped, killed, requeued, cancelled."""

import json
import re

import pytest

from slurm.slurm_cluster import until
from videopool.results import load_study
from videopool.results.point import TRAINING_LOG

pytestmark = pytest.mark.slurm
SLOW = ("pooling._target_=slow.Slow", "job.max_clips=1")


def records(folder):
    """The records of each point, which name no sample twice."""
    points = []
    for path in sorted(folder.glob("results/s/*/records.jsonl")):
        ids = [row["id"] for row in rows_of(path)]
        assert len(set(ids)) == len(ids)
        points.append(ids)
    return points


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def lines(folder):
    """How many records there are by now."""
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("results/s/*/records.jsonl"))


def statuses(folder):
    return sorted(load_study(folder / "results" / "s").status)


def logs(folder):
    return "".join(path.read_text() for path in folder.glob("results/s/.sweep/.submitit/*/*_log.out"))


def submitted(text):
    """The numbers of the jobs, or arrays, that a command submitted."""
    return [int(number) for number in re.findall(r"submitted \d+ points?: job (\d+)", text)]


def start_now(cluster, seconds=300):
    """A requeued job waits for two minutes, in which its first run ends: not here."""
    until(lambda: "PENDING" in cluster.jobs().values(), seconds, "no job is requeued")
    for job, state in cluster.jobs().items():
        if state == "PENDING":
            cluster.ask("scontrol", "update", f"jobid={job}", "starttime=now")


def test_sweep(command, tmp_path, record_property):
    """a sweep of four points"""
    text = command("pooling=none,average", "frames.num=2,4").ends(0)
    (array,) = submitted(text)
    assert f"submitted 4 points: job {array} (4 tasks); logs in results/s/.sweep/.submitit" in text
    assert sorted(re.findall(r"\[(\d)\]   done ", text)) == ["0", "1", "2", "3"]
    assert statuses(tmp_path) == ["complete"] * 4
    assert "ConfigStore" not in logs(tmp_path)
    assert not list(tmp_path.glob("results/s/.sweep/*s-*"))
    record_property("seen", "one array; each end printed; logs without warnings; exit 0")


def test_refused(command, cluster, record_property):
    """a partition, GPUs, a constraint that do not exist"""
    seen = []
    for words in ("partition=nosuch", "gpus_per_node=99", "constraint=a100"):
        text = command("pooling=none,average", f"hydra.launcher.{words}").ends(2)
        (line,) = [line for line in text.splitlines() if line.startswith("videopool: ")]
        assert "no job is submitted: " in line
        seen.append(line.rpartition(": ")[2])
    assert not cluster.jobs()
    record_property("seen", "exit 2: " + "; ".join(seen))


def test_no_srun(command, tmp_path, record_property):
    """a machine without SLURM's programs"""
    text = command("pooling=none,average", env={"PATH": str(tmp_path)}).ends(2)
    assert 'Could not detect "srun"' in text
    record_property("seen", text.splitlines()[-1])


def test_alone(command, record_property):
    """a launcher without -m"""
    text = command("hydra/launcher=submitit_slurm", slurm=False).ends(2)
    record_property("seen", f"exit 2: {text.strip()}")


@pytest.mark.parametrize(
    ("word", "cause"),
    [
        ("hydra.launcher.setup=['module load nosuch || exit 1']", "module: command not found"),
        ("+hydra.launcher.additional_parameters.mem=100M", "memory"),
    ],
)
def test_no_start(command, tmp_path, record_property, word, cause):
    """a job that dies before its point begins: setup; memory"""
    text = command("pooling=none,average", word).ends(1, 600)
    assert sum(int(count) for count in re.findall(r"submitted (\d+) point", text)) == 4
    assert cause in text
    assert "ended 2 times without a result" in text
    log = re.search(r"its log: (\S+)", text)[1]
    assert cause in (tmp_path / log).read_text()
    shown = next(line.strip() for line in text.splitlines() if cause in line and "=" not in line)
    record_property("seen", f"two submissions a point, then exit 1; shown: {shown}")


def test_preempted(command, cluster, tmp_path, record_property):
    """USR2 while a point is evaluated, two loader processes"""
    run = command(*SLOW, "frames.num=4", "job.workers=2")
    until(lambda: lines(tmp_path) > 5, 300)
    (job,) = cluster.jobs()
    cluster.ask("scancel", "--signal=USR2", job)
    start_now(cluster)
    kept = lines(tmp_path)
    text = run.ends(0)
    assert len(submitted(text)) == 1
    (ids,) = records(tmp_path)
    assert cluster.ask("scontrol", "show", "job", job).count("Restarts=1") == 1
    record_property("seen", f"requeued with {kept} records, went on to {len(ids)}; one submission; exit 0")


def test_partition(command, cluster, tmp_path, record_property):
    """preemption by a partition of higher priority"""
    run = command(*SLOW, "frames.num=4", "job.workers=2", "hydra.launcher.partition=low")
    until(lambda: lines(tmp_path) > 5, 300)
    cluster.ask("sbatch", "-p", "high", "-c", "8", "-o", "/dev/null", "--wrap", "sleep 1")
    start_now(cluster)
    kept = lines(tmp_path)
    text = run.ends(0)
    assert len(submitted(text)) == 1
    (ids,) = records(tmp_path)
    record_property("seen", f"requeued with {kept} records, went on to {len(ids)}; one submission; exit 0")


@pytest.mark.parametrize("name", ["USR1", "USR2"])
def test_training(command, cluster, tmp_path, record_property, name):
    """USR1, USR2 while a point is trained"""
    words = ["job=finetune", "training.steps=30", "job.checkpoint_every=1000", "training.lora.rank=4", "job.workers=2"]
    words += ["training_data.sources.shapes.clips=60", "training_data.sources.shapes.per_task=8", "frames.num=2"]
    run = command(*words, "training.global_batch=4", "training.micro_batch=4")

    def steps():
        return [row["step"] for path in tmp_path.glob(f"results/s/*/{TRAINING_LOG}") for row in rows_of(path)]

    until(lambda: len(steps()) > 3, 300)
    (job,) = cluster.jobs()
    cluster.ask("scancel", f"--signal={name}", job)
    start_now(cluster)
    kept = len(set(steps()))
    text = run.ends(0, 600)
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    assert sorted(set(steps())) == list(range(1, 31))
    assert len(submitted(text)) == 1
    record_property("seen", f"requeued behind step {kept}, went on to 30; no hpc_ckpt; exit 0")


def test_time_limit(command, cluster, tmp_path, record_property):
    """the time limit, twice; then the same command with more time"""
    limit = ["hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=20"]
    run = command(*SLOW, "frames.num=4", *limit, env={"SLOW": "5"})
    start_now(cluster)
    text = run.ends(1, 600)
    assert "came to its time limit too often" in text
    assert len(submitted(text)) == 1
    before = lines(tmp_path)
    text = command(*SLOW, "frames.num=4", env={"SLOW": "0"}).ends(0)
    record_property("seen", f"requeued once, given up with {before} records and the reason, exit 1; then exit 0")


def test_cancelled(command, cluster, tmp_path, record_property):
    """scancel of one point"""
    words = (*SLOW, "frames.num=2,4", "job.workers=0")
    run = command(*words, env={"SLOW": "1"})
    until(lambda: len(list(tmp_path.glob("results/s/*/records.jsonl"))) == 2, 300)
    job = next(job for job in cluster.jobs() if job.endswith("_1"))
    cluster.ask("scancel", job)
    text = run.ends(1)
    assert "[1] FAILED  frames.num=4: its job was cancelled" in text
    assert len(submitted(text)) == 1
    text = command(*words, env={"SLOW": "0"}).ends(0)
    assert statuses(tmp_path) == ["complete"] * 2
    record_property("seen", "that point counts as cancelled, the other is done, exit 1; given again: exit 0")


def test_array_cancelled(command, cluster, tmp_path, record_property):
    """scancel of the whole array, some points pending"""
    run = command(*SLOW, "frames.num=1,2,3,4", "hydra.launcher.array_parallelism=2")
    until(lambda: lines(tmp_path) > 1, 300)
    (array,) = {job.partition("_")[0] for job in cluster.jobs()}
    cluster.ask("scancel", array)
    text = run.ends(1, 90)
    assert "0 of 4 points complete" in text
    assert submitted(text) == [int(array)]
    record_property("seen", "four points cancelled, nothing submitted again, exit 1")


@pytest.mark.parametrize("number", ["INT", "TERM"])
def test_stopped(command, cluster, tmp_path, record_property, number):
    """Ctrl-C, SIGTERM for the command; the same command again"""
    words = (*SLOW, "frames.num=1,2,4", "hydra.launcher.array_parallelism=2")
    run = command(*words, env={"SLOW": "1"})
    run.says("submitted")
    until(lambda: lines(tmp_path) > 1, 300)
    if number == "INT":
        text = run.stop()
    else:
        run.process.terminate()
        text = run.ends(130, 60)
    (array,) = submitted(text)
    assert f"scancel {array};" in text
    told = next(line for line in text.splitlines() if "scancel" in line)
    text = command(*words).ends(0)
    assert not submitted(text)
    assert f"waiting for what an earlier command submitted: job {array}" in text
    assert statuses(tmp_path) == ["complete"] * 3
    record_property("seen", f"exit 130: {told}; then no new job, exit 0")


def test_node(command, cluster, tmp_path, record_property):
    """a node that goes down and comes back"""
    run = command(*SLOW, "frames.num=4", "job.workers=0")
    until(lambda: lines(tmp_path) > 3, 300)
    (job,) = cluster.jobs()
    cluster.ask("scontrol", "update", f"nodename={cluster.host}", "state=down", "reason=test")
    until(lambda: "RUNNING" not in cluster.jobs().values(), 60)
    until(lambda: not cluster.remains(job), 60)
    cluster.ask("scontrol", "update", f"nodename={cluster.host}", "state=resume")
    start_now(cluster)
    kept = lines(tmp_path)
    text = run.ends(0)
    assert len(submitted(text)) == 1
    record_property("seen", f"requeued with {kept} records; one submission; exit 0")


TWO = ("frames.num=2", "trainer.accelerator=cpu", "trainer.devices=2", "job.max_clips=4")


def test_devices(command, tmp_path, record_property):
    """two devices for a point"""
    command(*TWO).ends(0)
    assert statuses(tmp_path) == ["complete"]
    record_property("seen", f"{len(*records(tmp_path))} records; exit 0")


def test_devices_in_a_job(command, tmp_path, record_property):
    """two devices for a point, under srun with two tasks, then with one"""
    text = command(*TWO, slurm=False, under=("srun", "-n2", "--mem=8000")).ends(1, 120)
    assert "start one (srun -n1, no torchrun)" in text
    assert not list(tmp_path.glob("results/s/*/records.jsonl"))
    command(*TWO, slurm=False, under=("srun", "-n1", "-c2", "--mem=8000")).ends(0)
    assert statuses(tmp_path) == ["complete"]
    record_property("seen", f"two tasks: refused, exit 1; one: {len(*records(tmp_path))} records, exit 0")


def test_two_commands(command, cluster, tmp_path, record_property):
    """two commands, one study"""
    words = ("pooling=none,average", "frames.num=2")
    first, second = command(*words), command(*words)
    texts = first.ends(0), second.ends(0)
    assert statuses(tmp_path) == ["complete"] * 2
    assert len(records(tmp_path)) == 2
    count = sum(int(number) for text in texts for number in re.findall(r"submitted (\d+) point", text))
    record_property("seen", f"{count} jobs for 2 points; exit 0, 0")
