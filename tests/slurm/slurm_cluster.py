"""A SLURM of one node on this machine, without accounting: daemons with a folder of their own, ended together."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
PACKAGES = "slurm-wlm munge"  # of Debian
CONF = """
ClusterName=check
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={ctld}
SlurmdPort={slurmd}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
ReturnToService=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
"""


def missing() -> str:
    """Why there can be no cluster here; "" if there can."""
    if os.getuid():
        return "slurmd needs root"
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"no {', '.join(lacking)}: apt-get install {PACKAGES}" if lacking else ""


def until(true: Callable[[], object], seconds: float = 60, what: str = "") -> None:
    """Wait until a function says so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what or true
        time.sleep(0.2)


class Cluster:
    """The daemons, and the environment in which SLURM's programs find them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.daemons = folder, []
        for name in ("state", "spool"):
            (folder / name).mkdir()
        ports = {}
        for name in ("ctld", "slurmd"):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                ports[name] = free.getsockname()[1]
        host = socket.gethostname().partition(".")[0]
        (folder / "slurm.conf").write_text(CONF.format(folder=folder, host=host, **ports))
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o400)
        self.env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        munge = [f"--{name}={folder}/munge.{end}" for name, end in (
            ("key-file", "key"), ("socket", "socket"), ("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed"),
        )]  # fmt: skip
        self._start("munged", "--foreground", "--force", *munge)
        until((folder / "munge.socket").exists)
        self._start("slurmctld", "-D", "-i")
        self._start("slurmd", "-D", "-N", host)
        self.host = host
        until(lambda: "idle" in self.ask("sinfo", "-h", "-o", "%T"), 60, "the node is not idle")

    def _start(self, *command: str) -> None:
        with open(self.folder / f"{command[0]}.out", "w") as file:
            self.daemons.append(subprocess.Popen(command, env=self.env, stdout=file, stderr=file))

    def ask(self, *command: str) -> str:
        """What a program of SLURM prints, with its errors."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    def jobs(self) -> dict[str, str]:
        """The states of jobs that have not ended."""
        rows = [line.split() for line in self.ask("squeue", "-h", "-r", "-o", "%i %T").splitlines()]
        return {row[0]: row[1] for row in rows if len(row) == 2}

    def remains(self, job: str) -> bool:
        """Whether processes of a job are left on the node; SLURM holds a job that it starts beside them."""
        return not subprocess.run(
            ["pgrep", "-f", rf"slurmstepd: \[{job}\."], capture_output=True, check=False
        ).returncode

    def clear(self) -> None:
        """End all jobs."""
        self.ask("scancel", "--user=root")
        until(lambda: not self.jobs(), 60, "jobs do not end")

    def close(self) -> None:
        """End the jobs and the daemons."""
        try:
            self.clear()
        finally:
            for daemon in reversed(self.daemons):
                daemon.terminate()
            for daemon in reversed(self.daemons):
                try:
                    daemon.wait(20)
                except subprocess.TimeoutExpired:
                    daemon.kill()
