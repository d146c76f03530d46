"""The points of a multirun as jobs of submitit: submitted, watched, tried again; found again by the next command."""

import hashlib
import json
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf import OmegaConf

from videopool.runtime import log, sweep
from videopool.runtime.outcome import FAILED, Outcome
from videopool.runtime.progress import Advance, begin_sweep, progress
from videopool.runtime.telling import label, line_of

MOST_SUBMISSIONS = 2  # of one point, besides those that the cluster itself ended:
BLAMELESS = ("PREEMPTED", "NODE_FAIL")
LOOK = 0.5  # seconds between two looks at the outcomes
SELDOM, SOONEST, LATEST = 0.1, 2.0, 30.0  # seconds between two calls of squeue: a share of those waited, its limits
LINES = 4  # of a job's log
NOTE = "point.json"  # beside a job's log: which point it has, where it notes the outcome, and the outcome
GONE = ""  # state of a job that the queue does not know any more
# States after which a job does not run again.
ENDED = (
    GONE, "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
    "REVOKED", "TIMEOUT",
)  # fmt: skip
HINTS = {"TIMEOUT": "hydra.launcher.timeout_min", "OUT_OF_MEMORY": "hydra.launcher.mem_gb"}
CHATTER = re.compile(r"submitit (INFO|WARNING|ERROR) |srun: |Traceback |\s*$")  # log lines that give no cause


@dataclass
class Point:
    """A point of the multirun, and its job."""

    number: int
    words: list[str]  # overrides
    task: str  # what the program does: job.name
    digest: str  # of the configuration
    submissions: int = 0  # that count
    job: Any = None  # of submitit
    outcomes: str = ""  # the file in which the job notes its outcome
    noted: int = 0  # the point's number there
    ended: float = 0.0  # when the job was first seen to have ended


class Jobs:
    """What both launchers do; mixed into one of hydra_submitit_launcher."""

    late = 0.0  # seconds until the outcome of a job that has ended can be read here
    _EXECUTOR: str
    params: dict[str, Any]
    config: Any
    hydra_context: Any

    def states(self, points: Sequence[Point]) -> Mapping[str, str] | None:
        """The state of each point's job by its id, in SLURM's words; None: not asked now, or no answer."""
        raise NotImplementedError

    def leave(self, points: Sequence[Point]) -> None:
        """End the jobs of these points with this command, or say that they go on."""
        raise NotImplementedError

    def find(self, points: Sequence[Point]) -> None:
        """Give points the jobs that an earlier command submitted for them, and that have not ended."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Do each point in a job. Returns when all have an outcome. Raises HydraException if jobs are refused."""
        points = [self._point(number, words) for number, words in enumerate(job_overrides, initial_job_idx)]
        begin_sweep(0)  # the points are shown here
        waiting = points[:]
        try:
            self.find(points)
            if found := [point for point in points if point.job]:
                log.say(f"waiting for what an earlier command submitted: {_listed(found)}")
            self._submit([point for point in points if not point.job])
            with progress("points", len(points)) as advance:
                self._wait(waiting, advance)
        except BaseException:
            self.leave(waiting)
            raise
        status = {outcome["number"]: outcome["status"] for outcome in sweep.ended()}
        return [JobReturn(_return_value=status[point.number], status=JobStatus.COMPLETED) for point in points]

    def _point(self, number: int, words: Sequence[str]) -> Point:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(words))
        plain: Any = OmegaConf.to_container(config)
        del plain["hydra"]
        digest = hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()
        return Point(number, list(words), str(config.job.name), digest)

    def _submit(self, points: Sequence[Point]) -> None:
        """Submit a job for each point, together as one array."""
        if not points:
            return
        import submitit
        from hydra.core.singleton import Singleton
        from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

        def named(name: str) -> str:
            return name if name in BaseQueueConf.__dataclass_fields__ else f"{self._EXECUTOR}_{name}"

        options = {named(name): value for name, value in self.params.items()}
        folder = options.pop("submitit_folder")
        first = {name: options.pop(name) for name in [named("max_num_timeout")] if name in options}
        state = Singleton.get_state()
        rows = [(point.words, "hydra.sweep.dir", point.number, str(point.number), state) for point in points]
        try:
            executor = submitit.AutoExecutor(folder, self._EXECUTOR, **first)
            executor.update_parameters(**options)
            function: Any = self
            with redirect_stderr(StringIO()) as words:  # submitit prints what sbatch says
                jobs = executor.map_array(function, *zip(*rows, strict=True))
        except (RuntimeError, ValueError, NameError, AssertionError, OSError) as error:  # of submitit, or sbatch's own
            lines = [re.sub(r"^sbatch: (error: )?", "", line) for line in str(error).splitlines()]
            raise HydraException(f"no job is submitted: {'; '.join(lines)}") from None
        for line in words.getvalue().splitlines():
            log.say(line)
        for point, job in zip(points, jobs, strict=True):
            point.job, point.outcomes, point.noted = job, os.environ[sweep.OUTCOMES], point.number
            point.submissions, point.ended = point.submissions + 1, 0.0
            _note(point)
        count = f"{len(points)} point{'s' * (len(points) > 1)}"
        log.say(f"submitted {count}: {_listed(points)}; logs in {_near(points[0].job.paths.folder.parent)}")

    def _wait(self, waiting: list[Point], advance: Advance) -> None:
        """Wait until each point has an outcome, and print it. Empties the list."""
        states: dict[str, str] = {}
        told: list[dict[str, Any]] = []
        while waiting:
            if fresh := self.states(waiting):
                states |= fresh
                advance(0, _counted(fresh.values()))
            noted = {path: {o["number"]: o for o in sweep.ended(path)} for path in {p.outcomes for p in waiting}}
            again = []
            for point in waiting[:]:
                outcome, state = noted[point.outcomes].get(point.noted), states.get(point.job.job_id, "PENDING")
                if state not in ENDED and not (outcome and point.job.paths.result_pickle.exists()):
                    point.ended = 0.0
                    continue
                if elsewhere := outcome is None or point.outcomes != os.environ[sweep.OUTCOMES]:
                    outcome = outcome or _noted(point.job.paths).get("outcome")
                    point.ended = point.ended or time.monotonic()
                    if outcome is None and time.monotonic() - point.ended < self.late:
                        continue
                    outcome = outcome or self._without_outcome(point, state)
                if outcome is None:
                    again.append(point)
                    continue
                outcome["number"] = point.number
                if elsewhere:
                    sweep.keep(outcome)
                log.show(line_of(outcome, told), outcome["status"] == FAILED)  # logged by the job
                _note(point, outcome)  # for a command that waits for the same job
                told.append(outcome)
                waiting.remove(point)
                advance(1)
            self._submit(again)
            time.sleep(LOOK)

    def _without_outcome(self, point: Point, state: str) -> dict[str, Any] | None:
        """The outcome of a point whose job ended without one; None if a job is to be submitted again."""
        if state == "CANCELLED":
            message = "its job was cancelled"
        else:
            path, cause = point.job.paths.stdout, f" ({state})" if state else ""
            lines = [line for one in (path, point.job.paths.stderr) for line in _lines(one)][-LINES:]
            hint = f"; {HINTS[state]} sets the limit" if state in HINTS else ""
            ended = f"job {point.job.job_id} ended without a result{cause}{hint}"
            log.warn(f"[{point.number}] {ended}; its log: {_near(path)}{log.indented(lines)}")
            point.submissions -= state in BLAMELESS
            if point.submissions < MOST_SUBMISSIONS:
                return None
            message = f"its job ended {point.submissions} times without a result{cause}{hint}"
        return {"job": point.task, **asdict(Outcome(FAILED, label(point.words), message))}


class LocalJobs(Jobs):
    """Processes of this machine, which end with the command."""

    def states(self, points: Sequence[Point]) -> Mapping[str, str]:
        return {point.job.job_id: GONE if point.job.done() else "RUNNING" for point in points}

    def leave(self, points: Sequence[Point]) -> None:
        for point in points:
            if point.job:
                point.job.cancel()


class SlurmJobs(Jobs):
    """Jobs of SLURM, which go on when the command ends."""

    late = SOONEST
    _began = _asked = 0.0  # when points were first submitted; when the queue was last asked

    def states(self, points: Sequence[Point]) -> Mapping[str, str] | None:
        now = time.monotonic()
        patience = min(LATEST, max(SOONEST, SELDOM * (now - self._began)))
        if now - self._asked < (SOONEST if any(point.ended for point in points) else patience):
            return None
        self._asked = now
        queue = _queue()
        return None if queue is None else {point.job.job_id: queue.get(point.job.job_id, GONE) for point in points}

    def find(self, points: Sequence[Point]) -> None:
        from submitit.core.utils import JobPaths
        from submitit.slurm.slurm import SlurmJob

        self._began = self._asked = time.monotonic()
        jobs = {}
        for number, state in (_queue() or {}).items():
            note = _noted(JobPaths(self.params["submitit_folder"], number)) if state not in ENDED else {}
            if note:
                jobs[note["digest"]] = number, note
        for point in points:
            if point.digest in jobs:
                number, note = jobs[point.digest]
                point.job, point.submissions = SlurmJob(self.params["submitit_folder"], number), 1
                point.outcomes, point.noted = note["outcomes"], note["number"]

    def leave(self, points: Sequence[Point]) -> None:
        queue, ids = _queue(), [point.job.job_id for point in points if point.job]
        states = {number: "UNKNOWN" if queue is None else queue.get(number, GONE) for number in ids}
        if live := dict.fromkeys(number.partition("_")[0] for number in ids if states[number] not in ENDED):
            end = f"This ends them: scancel {' '.join(live)}; the same command waits for them."
            log.warn(f"jobs go on: {_counted(states.values())}. {end}")


def _note(point: Point, outcome: object = None) -> None:
    note = {"digest": point.digest, "outcomes": point.outcomes, "number": point.noted, "outcome": outcome}
    (point.job.paths.folder / NOTE).write_text(json.dumps(note), encoding="utf-8")


def _noted(paths: Any) -> dict[str, Any]:
    """What a command noted of a job; {} if it is another program's."""
    try:
        note: dict[str, Any] = json.loads((paths.folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note


def _queue() -> dict[str, str] | None:
    """The states of this user's jobs, with a reason for those that wait; None if squeue does not answer."""
    command = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%i|%T|%r"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}  # which hide jobs
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=env).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [line.strip().split("|", 2) for line in answer.splitlines() if line.count("|") > 1]
    return {job: f"{state} ({why})" if state == "PENDING" and why != "None" else state for job, state, why in rows}


def _counted(states: Iterable[str]) -> str:
    """How many jobs that have not ended are in each state."""
    counts = Counter(state for state in states if state not in ENDED)
    return ", ".join(f"{count} {state}" for state, count in counts.most_common())


def _listed(points: Sequence[Point]) -> str:
    """The jobs of points, those of an array as one."""
    arrays = Counter(point.job.job_id.partition("_")[0] for point in points)
    names = [f"{array} ({count} tasks)" if count > 1 else array for array, count in arrays.items()]
    more = [f"{len(names) - log.LISTED} more"] if len(names) > log.LISTED else []
    return f"job{'s' * (len(names) > 1)} {', '.join([*names[: log.LISTED], *more])}"


def _lines(path: Path) -> list[str]:
    """The last lines of a job's log that may tell why it ended."""
    try:
        with path.open("rb") as file:
            file.seek(-min(path.stat().st_size, 10_000), os.SEEK_END)
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return [line.rstrip() for line in lines if not CHATTER.match(line)][-LINES:]


def _near(path: Path) -> str:
    """A path as users of this folder say it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
