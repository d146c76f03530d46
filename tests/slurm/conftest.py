"""The cluster of the slurm tests, and their table at the end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slurm.slurm_cluster import Cluster, missing, until

SLURM = (
    "-m", "hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.gpus_per_node=null",
    "hydra.launcher.mem_gb=4", "hydra.launcher.timeout_min=60",
)  # fmt: skip
SMALL = ("benchmark.clips=24", "benchmark.per_task=4", "logger=none", "study=s", "results_dir=results")
SLOW = """
import os, time
from videopool.pooling import Average

class Slow(Average):
    def pool(self, grid, context=None):
        if grid.shape[-1] > 3:  # not when it is only looked at
            time.sleep(float(os.environ.get("SLOW", "0.6")))
        return super().pool(grid, context)
"""
rows: list[tuple[str, str, float, str]] = []


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    if reason := missing():
        pytest.skip(reason)
    made = Cluster(tmp_path_factory.mktemp("slurm"))
    yield made
    made.close()


class Command:
    """A command of the program on the cluster's login node."""

    def __init__(self, words, folder, env, under=()):
        self.out = (folder / f"out-{len(list(folder.glob('out-*')))}").open("w")
        command = [*under, sys.executable, "-m", "videopool", *words]
        self.process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=self.out, stderr=subprocess.STDOUT, text=True
        )

    @property
    def text(self) -> str:
        return Path(self.out.name).read_text()

    def says(self, words: str, seconds: float = 300) -> str:
        """Its output, once the words stand in it."""
        try:
            until(lambda: words in self.text or self.process.poll() is not None, seconds)
        finally:
            assert words in self.text, self.text
        return self.text

    def ends(self, code: int, seconds: float = 600) -> str:
        """Its output at its end."""
        assert self.process.wait(seconds) == code, self.text
        assert "Traceback" not in self.text
        return self.text

    def stop(self) -> str:
        """Its output after Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.ends(130, 60)


@pytest.fixture
def command(cluster, tmp_path, data_dir):
    """Starts the program with its points as jobs of the cluster; no job is left."""
    (tmp_path / "slow.py").write_text(SLOW)
    started = []

    def start(*words, slurm=True, env=None, under=()):
        words = [*(SLURM if slurm else ()), *SMALL, f"data_dir={data_dir}", *words]
        started.append(Command(words, tmp_path, {**cluster.env, "COLUMNS": "200", **(env or {})}, under))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
    cluster.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call" and item.get_closest_marker("slurm"):
        seen = next((value for name, value in item.user_properties if name == "seen"), "")
        failed = "" if report.passed else str(call.excinfo.value).splitlines()[0]
        rows.append((item.function.__doc__.strip(), report.outcome, report.duration, seen or failed))
    return report


def pytest_terminal_summary(terminalreporter):
    if rows:
        version = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True, check=False).stdout.strip()
        terminalreporter.write_line(f"\n{version}, one node, no accounting, {os.cpu_count()} cores")
        width = max(len(row[0]) for row in rows)
        for case, outcome, seconds, seen in rows:
            terminalreporter.write_line(f"{case:{width}}  {outcome:6}  {seconds:4.0f} s  {seen}")
