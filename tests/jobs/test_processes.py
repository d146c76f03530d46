"""Points in several processes: devices of one point, launchers, kills, two commands at once."""

import json
import os
import signal
import subprocess
import time
from contextlib import contextmanager

import pytest
from torch.utils.data import Dataset

from conftest import TASKS
from videopool.inference.predict import Batches
from videopool.results import load_study
from videopool.runtime.interrupts import StopRequest

KILLER = """
import os, signal
from videopool.pooling import Average

class Killer(Average):
    def pool(self, grid, context=None):
        flag = os.environ["KILL_FLAG"]
        if grid.shape[-1] > 3 and not os.path.exists(flag):  # not when it is only looked at
            if os.environ["KILL_ONCE"] == "yes":
                with open(flag, "w") as file:
                    file.write(os.environ["CUDA_VISIBLE_DEVICES"])
            os.kill(os.getpid(), signal.SIGKILL)
        return super().pool(grid, context)
"""


# Two GPUs, until they are shared out: the work itself is done without.
GPUS = """
import os, torch
torch.cuda.device_count = lambda: 0 if "VIDEOPOOL_GPUS" in os.environ else 2
"""


def records(folder):
    lines = folder.joinpath("records.jsonl").read_text().splitlines()
    found = {json.loads(line)["id"]: json.loads(line) for line in lines}
    assert len(found) == len(lines)
    return found


def only(folder):
    (point,) = [path.parent for path in folder.glob("*/metrics.json")]
    return point


def test_devices_change_no_record(videopool, tmp_path):
    """One point on one device and data-parallel on two: the same records, and the time of both is told."""
    words = ["frames.num=4", "logger=none", "trainer.accelerator=cpu", "job.max_clips=4", "benchmark.limit=1"]
    videopool(*words, "study=one")
    videopool(*words, "study=two", "trainer.devices=2")
    one, two = only(tmp_path / "results" / "one"), only(tmp_path / "results" / "two")
    assert records(one) == records(two)
    assert one.name == two.name
    assert json.loads((two / "metrics.json").read_text())["seconds"]["prefill"] > 0
    decoded = [json.loads((point / "metrics.json").read_text())["frames_decoded"] for point in (one, two)]
    assert decoded[0] == decoded[1] > 0
    assert not list(two.glob(".device*"))


class Clips(Dataset):
    """Stands for clips; notes each that is read, and gives the process that read it."""

    def __init__(self, folder, count):
        self.folder, self.count = folder, count

    def __len__(self):
        return self.count

    def __getitem__(self, place):
        (self.folder / str(place)).touch()
        time.sleep(0.05)  # leaves the other process a clip
        return os.getpid()

    @property
    def read(self):
        return sorted(int(path.name) for path in self.folder.iterdir())


def test_loader_processes_share_a_batch_and_stay_ahead(tmp_path):
    clips, stop, waited = Clips(tmp_path, 40), StopRequest(), []

    @contextmanager
    def clock(kind):
        waited.append(kind)
        yield

    batches = Batches(clips, 8, stop, 2, clock)
    assert len(batches) == 5
    asked = iter(batches)
    for number in (1, 2):
        readers = next(asked)
        assert len(readers) == 8
        assert len(set(readers) - {os.getpid()}) == 2
        assert waited == ["wait"] * number
        until = time.monotonic() + 60
        while len(clips.read) < 8 * (number + 2) and time.monotonic() < until:
            time.sleep(0.01)
        assert clips.read == list(range(8 * (number + 2)))  # two batches ahead, and no more
    stop.ask()
    assert list(asked) == [[], [], []]
    assert clips.read == list(range(32))


def test_seconds_by_kind_add_up(videopool, tmp_path):
    """To the point's elapsed time; loader processes' own work is beside it, and what the model waits for is in it."""
    for workers in (0, 2):
        videopool("frames.num=4", f"job.workers={workers}", "benchmark.limit=1", f"study=w{workers}")
        metrics = json.loads((only(tmp_path / "results" / f"w{workers}") / "metrics.json").read_text())
        seconds = metrics["seconds"]
        assert ("wait" in seconds) == (workers > 0)
        beside = seconds["decode"] + seconds["preprocess"] if workers else 0
        assert sum(seconds.values()) - beside == pytest.approx(metrics["elapsed_seconds"], abs=0.05)


@pytest.mark.parametrize("scoring", ["likelihood", "generate"])
def test_a_point_needs_no_more_devices_than_batches(videopool, tmp_path, scoring):
    """Fewer batches than devices, from the beginning or as a kill near the end leaves them: the same records."""
    words = ["frames.num=1", "logger=none", "trainer.accelerator=cpu", "benchmark.limit=1", "job.max_clips=4"]
    words += [f"benchmark.scoring={scoring}", "benchmark.max_new_tokens=2", "job.workers=1"]
    videopool(*words, "study=one")
    wanted = records(only(tmp_path / "results" / "one"))
    many = [*words, "study=many", "trainer.devices=3"]
    videopool(*many)
    point = only(tmp_path / "results" / "many")
    assert records(point) == wanted
    for left in (1, len({record["clip"] for record in wanted.values()}) // 2, 0):
        kept = (point / "records.jsonl").read_text().splitlines(keepends=True)
        (point / "records.jsonl").write_text("".join(kept[: len(kept) - left]))
        (point / ".device-2.json").write_text('{"seconds": {"prefill": 1e6}, "frames": {}}')  # of one that was killed
        (point / "metrics.json").unlink()
        videopool(*many)
        assert records(point) == wanted
        assert json.loads((point / "metrics.json").read_text())["seconds"].get("prefill", 0) < 1e5
    assert "kept" in videopool(*many).stdout


RAISES = """
from videopool.pooling import Average

class Raises(Average):
    def pool(self, grid, context=None):
        if grid.shape[-1] > 3:  # not when it is only looked at
            raise ValueError("wrong here")
        return super().pool(grid, context)
"""


def test_what_a_device_raises_ends_the_point_and_is_told(videopool, tmp_path):
    """Its loader processes, which ignore SIGTERM, do not keep it."""
    (tmp_path / "raises.py").write_text(RAISES)
    words = ["pooling._target_=raises.Raises", "frames.num=1", "logger=none", "trainer.accelerator=cpu", "study=r"]
    words += ["trainer.devices=2", "benchmark.limit=2", "job.max_clips=1", "job.workers=1"]
    done = videopool(*words, check=1, timeout=200)
    assert "raises.py, line 7): ValueError: wrong here" in done.stderr


def test_a_killed_device_costs_what_was_in_hand(videopool, forked, tmp_path, data_dir):
    words = [
        "frames.num=2",
        "logger=none",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "job.max_clips=1",
        "study=k",
        "benchmark.limit=null",
        "+benchmark.tasks=[existence,object_count,moving_count,event_order]",
    ]
    small = ["benchmark.clips=60", "benchmark.per_task=8", f"data_dir={data_dir}", f"results_dir={tmp_path}/results"]
    process = forked.start([*words, *small], tmp_path)
    folder, deadline = tmp_path / "results" / "k", time.monotonic() + 120
    while not any(len(p.read_bytes()) > 2000 for p in folder.glob("*/records.jsonl")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    children = subprocess.run(["ps", "--ppid", str(process.pid), "-o", "pid="], capture_output=True, text=True).stdout
    os.kill(int(children.split()[-1]), signal.SIGKILL)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "a process of trainer.devices=2 ended" in told
    assert "Traceback" not in told
    kept = records(next(folder.glob("*/run.json")).parent)
    videopool(*words)
    done = records(only(folder))
    assert len(done) == 32
    assert all(done[sample] == record for sample, record in kept.items())


@pytest.mark.parametrize(
    ("launcher", "once"), [("joblib", "yes"), pytest.param("submitit_local", "no", marks=pytest.mark.soak)]
)
def test_a_killed_process_does_not_take_the_sweep_along(videopool, tmp_path, launcher, once):
    """A point whose process is killed once is done again; one that is killed each time is given up, and only it.

    Each process sees a GPU of its own.
    """
    if launcher == "submitit_local":
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    (tmp_path / "killer.py").write_text(KILLER)
    (tmp_path / "sitecustomize.py").write_text(GPUS)
    jobs = ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else []
    done = videopool(
        "-m", f"hydra/launcher={launcher}", *jobs, "study=k", "frames.num=2", "logger=none", "job.workers=0",
        "pooling._target_=videopool.pooling.NoPooling,killer.Killer", check=None, timeout=500,
        env={"KILL_FLAG": str(tmp_path / "flag"), "KILL_ONCE": once, "CUDA_VISIBLE_DEVICES": "5,6,7"},
    )  # fmt: skip
    assert ("a process of the sweep was killed" if launcher == "joblib" else "ended without a result") in done.stderr
    assert "Traceback" not in done.stderr
    table = load_study(tmp_path / "results" / "k")
    status = dict(zip(table.pooling, table.status, strict=True))
    assert status["none"] == "complete"
    if once == "yes":
        assert (done.returncode, status["average time"]) == (0, "complete")
        assert (tmp_path / "flag").read_text() in ("5", "6")
        assert not list((tmp_path / "results" / "k" / ".sweep").glob("starts-*"))
    else:
        assert done.returncode == 1
        assert "its job ended 2 times without a result" in done.stderr
        assert status["average time"] != "complete"
    assert (tmp_path / "results" / "k" / "sweep.csv").is_file()


def test_two_commands_share_a_study(tmp_path, data_dir, videopool, forked):
    """Each point is done by one of them; both wait for all, and both end well."""
    videopool("study=warm", "frames.num=1", "logger=none")  # renders the clips
    small = ["benchmark.clips=60", "benchmark.per_task=8", f"data_dir={data_dir}", f"results_dir={tmp_path}/results"]
    words = ["-m", "study=two", "pooling=none,average", "frames.num=1,2", "benchmark.limit=2", "logger=none", TASKS]
    both = [forked.start([*words, *small], tmp_path) for _ in range(2)]
    told = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    table = load_study(tmp_path / "results" / "two")
    assert list(table.status) == ["complete"] * 4
    for folder in (tmp_path / "results" / "two").glob("*/metrics.json"):
        assert len(records(folder.parent)) == 4 * 2
