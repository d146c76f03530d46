"""The parts point and prefix of job=speed."""

import statistics
from functools import partial
from typing import Any

from videopool.features import FeatureStore
from videopool.points.point import Point
from videopool.speed.bench import Bench, Line
from videopool.speed.points import SLACK, Alone, Floor, Measured, compare, run_point
from videopool.speed.sweep import token_ratio
from videopool.speed.timing import in_turn

READING_LLM = ("prefill", "questions", "whole prompts")


def one_point(bench: Bench, line: Line) -> dict[str, Any]:
    """Part a: seconds per sample of a point by kind of work, with nothing kept; by likelihood, and generating."""
    job, count = bench.config.job, int(bench.config.job.repeats)
    step = line("one point", 2 * (count + 1))
    entry: dict[str, Any] = {}
    for scoring in ("likelihood", "generate"):
        runs = []
        for number in range(count + 1):
            config = bench.point(f"a-{scoring}-{number}", job.one.pooling, job.one.frames, scoring=scoring)
            runs.append(run_point(bench, config, Measured, FeatureStore()))
            step()
        run = sorted(runs[1:], key=lambda run: run.seconds)[count // 2]  # the first run warms up
        samples, point = len(run.records), Point(config)
        entry |= {"pooling": point.pooling.label, "frames": point.sampler.num, "visual_tokens": point.visual_tokens}
        entry[scoring] = {
            "samples": samples,
            "seconds_per_sample": run.seconds / samples,
            "by_kind": {kind: spent / samples for kind, spent in run.kinds.items()},
        }
    return entry


def prefix(bench: Bench, line: Line) -> dict[str, Any]:
    """Part d: seconds of the language model with a shared prefix and without, by number of questions per clip.

    Both ways read one clip at a time and keep features, so that only the prefix differs.
    """
    job, count = bench.config.job, int(bench.config.job.repeats)
    step = line("shared prefixes", len(job.asked) * (count + 1))
    store, rows = bench.store("prefix"), []
    for asked in job.asked:
        seconds: dict[str, list[float]] = {"shared": [], "alone": []}
        for number in range(count + 1):
            works = {}
            for way, evaluator in (("shared", Measured), ("alone", Alone)):
                study = f"d-{asked}-{number}-{way}"
                config = bench.point(study, job.prefix.pooling, job.prefix.frames, asked, max_clips=1)
                config.benchmark.limit = asked * int(job.prefix.clips)  # the questions of one clip follow each other
                works[way] = partial(run_point, bench, config, evaluator, store)
            runs = in_turn(works, number)
            if number:  # the first round warms up and fills the store
                for way, run in runs.items():
                    seconds[way].append(sum(run.kinds.get(kind, 0.0) for kind in READING_LLM))
            step()
        point = Point(config)
        floor = Floor(bench.backbone, point)
        length = len(floor.before) + point.visual_tokens
        sizes = [[len(ids) for ids in questions] for questions in floor.questions]
        shared, alone = (statistics.median(spent) for spent in seconds.values())
        allowed = statistics.mean(token_ratio(length, own) for own in sizes)
        rows.append(
            {
                "questions": asked,
                "visual_tokens": point.visual_tokens,
                "prefix_tokens": length,
                "question_tokens": statistics.mean(size for own in sizes for size in own),
                "shared_seconds": shared,
                "alone_seconds": alone,
                "ratio": alone / shared,
                "allowed_ratio": allowed,
                "share_reached": alone / shared / allowed,
                "agreement": compare(runs["shared"].records, runs["alone"].records, SLACK[bench.size["dtype"]]),
            }
        )
    return {"rows": rows}
