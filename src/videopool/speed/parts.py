"""The parts point, prefix, processes and operators of job=speed."""

import shlex
import statistics
from typing import Any

import torch

from videopool.config.choices import catalogue, catalogued
from videopool.errors import UserError
from videopool.features import FeatureStore
from videopool.models.loading import DTYPES
from videopool.points.point import Point
from videopool.pooling import Pooling
from videopool.speed.arithmetic import token_ratio
from videopool.speed.bench import Bench, Line
from videopool.speed.commands import multirun
from videopool.speed.operators import bandwidths
from videopool.speed.points import Alone, Floor, Measured, Run, compare, run_point
from videopool.speed.sweep import SLACK
from videopool.speed.timing import turn

READING_LLM = ("prefill", "questions", "whole prompts")


def one_point(made: Bench, line: Line) -> dict[str, Any]:
    """Seconds per sample of one point by kind of work, nothing kept from before: by likelihood, and generating."""
    job, count = made.config.job, int(made.config.job.repeats)
    step = line("one point", 2 * (count + 1))
    found: dict[str, Any] = {}
    for scoring in ("likelihood", "generate"):
        runs: list[Run] = []
        for turn_ in range(count + 1):  # the first warms up
            config = made.point(
                f"a-{scoring}-{turn_}", job.one.pooling, int(job.one.frames), made.size["questions"], scoring=scoring
            )
            runs.append(run_point(config, Measured, FeatureStore(), lambda: made.backbone))
            step()
        run = sorted(runs[1:], key=lambda run: run.seconds)[count // 2]
        samples = len(run.records)
        point = Point(config)
        found |= {"pooling": point.pooling.label, "frames": point.sampler.num, "visual_tokens": point.visual_tokens}
        found[scoring] = {
            "samples": samples,
            "seconds_per_sample": run.seconds / samples,
            "by_kind": {kind: spent / samples for kind, spent in run.kinds.items()},
        }
    return found


def prefix(made: Bench, line: Line) -> dict[str, Any]:
    """Seconds of the language model with a shared prefix and without, for several numbers of questions on a clip.

    One clip at a time both ways, features kept, so that nothing but the prefix differs.
    """
    job, count = made.config.job, int(made.config.job.repeats)
    step = line("shared prefixes", len(job.asked) * (count + 1))
    store, backbone = made.store("prefix"), made.backbone
    rows = []
    for asked in job.asked:
        seconds: dict[str, list[float]] = {"shared": [], "alone": []}
        for place in range(count + 1):
            runs = {}
            for way in turn(["shared", "alone"], place):
                kind = Measured if way == "shared" else Alone
                config = made.point(
                    f"d-{asked}-{place}-{way}", job.prefix.pooling, int(job.prefix.frames), asked, max_clips=1
                )
                config.benchmark.limit = asked * int(job.prefix.clips)  # questions stand clip after clip
                runs[way] = run_point(config, kind, store, lambda: backbone)
                if place:  # the first round warms up and fills the store
                    seconds[way].append(sum(runs[way].kinds.get(kind, 0.0) for kind in READING_LLM))
            agreement = compare(runs["shared"].records, runs["alone"].records, SLACK[made.size["dtype"]])
            step()
        point = Point(config)
        floor = Floor(backbone, point)
        prefix = len(floor.before) + point.visual_tokens
        lengths = [floor.questions(clip) for clip in range(len(floor.clips))]
        shared, alone = (statistics.median(seconds[way]) for way in ("shared", "alone"))
        allowed = statistics.mean(token_ratio(prefix, one) for one in lengths)
        rows.append(
            {
                "questions": asked,
                "visual_tokens": point.visual_tokens,
                "prefix_tokens": prefix,
                "question_tokens": statistics.mean(size for one in lengths for size in one),
                "shared_seconds": shared,
                "alone_seconds": alone,
                "ratio": alone / shared,
                "allowed_ratio": allowed,
                "share_reached": alone / shared / allowed,
                "agreement": agreement,
            }
        )
    return {"rows": rows}


def processes(made: Bench, line: Line) -> dict[str, Any]:
    """The same multirun of the program in one process and in several, one thread each."""
    job = made.config.job
    if made.made is not None:
        return {"skipped": "the weights are in no file that other processes could load"}
    step = line("processes", len(job.processes))
    rows = []
    for count in job.processes:
        rows.append(multirun(made, int(count), shlex.split(str(job.multirun))))
        step()
    for row in rows:
        row["speed_up"] = row["points_per_minute"] / rows[0]["points_per_minute"]
        row["speed_up_at_work"] = row["points_per_minute_at_work"] / rows[0]["points_per_minute_at_work"]
    return {"rows": rows}


def operators(made: Bench, line: Line) -> dict[str, Any]:
    """Bandwidth of the poolings alone."""
    settings, count = made.config.job.operators, int(made.config.job.repeats)
    step = line("poolings alone", 1)
    generator = torch.Generator().manual_seed(0)
    grid = torch.randn(list(settings.shape), generator=generator).to(settings.device, DTYPES[settings.dtype])
    poolings: dict[str, Pooling] = {}
    wrong: list[dict[str, Any]] = []
    for name in settings.names or catalogue():
        try:
            poolings[name] = catalogued(name)
        except UserError as error:
            wrong.append({"name": name, "error": str(error).splitlines()[0]})
    rows = bandwidths(poolings, grid, count)
    step()
    described = {name: settings[name] for name in ("dtype", "device")}
    return {"grid": list(settings.shape), **described, "grid_bytes": grid.nbytes, "rows": rows + wrong}
