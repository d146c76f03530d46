"""The parts sweep and floor of job=speed: one sweep run in several ways, point by point beside each other."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

from videopool.features import FeatureStore
from videopool.points.point import Point
from videopool.speed.arithmetic import shared_share
from videopool.speed.bench import Bench, Line
from videopool.speed.points import LOAD, OTHER, Alone, Floor, Measured, Run, compare, run_point
from videopool.speed.timing import timed, turn

# Ways to run a sweep: nothing shared; everything shared, from an empty store, and from one that holds all frames;
# and the least that has to be done.
OFF, COLD, WARM, FLOOR = "off", "cold", "warm", "floor"
NEEDED = {"sweep": (OFF, COLD, FLOOR), "floor": (COLD, WARM, FLOOR)}
READING = ("decode", "preprocess", "vision")
SLACK = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}  # of options' log-probabilities, between the ways


class Sweep:
    """Poolings x frame counts, each point run in some ways.

    Args:
        bench: model and clips.
        parts: of NEEDED, for which the ways are needed.
    """

    def __init__(self, bench: Bench, parts: Sequence[str], line: Line) -> None:
        self.bench = bench
        self.ways = [way for way in (OFF, COLD, WARM, FLOOR) if any(way in NEEDED[part] for part in parts)]
        job = bench.config.job
        self.points = [(pooling, int(frames)) for pooling in job.poolings for frames in job.frames]
        self.step = line("a sweep", len(self.points))
        self.rows: list[dict[str, Any]] = []
        self.totals: dict[str, float] = dict.fromkeys(self.ways, 0.0)
        self.kinds: dict[str, dict[str, float]] = {way: defaultdict(float) for way in self.ways}
        self.left = 0.0  # seconds of whole prompts that would be left if each prefix was read once
        self.agreement: dict[str, dict[str, Any]] = {}

    def run(self) -> None:
        """Run everything. Raises AssertionError if two ways disagree on a prediction."""
        bench, questions = self.bench, self.bench.size["questions"]
        made = {frames: Point(bench.point(FLOOR, self.points[0][0], frames, questions)) for _, frames in self.points}
        floor = Floor(bench.backbone, next(iter(made.values())))
        self.frames = floor.choose([point.sampler for point in made.values()])
        self.frames_of_all_points = sum(frames for _, frames in self.points) * len(floor.clips)
        decodes: list[float] = []
        pooling, frames = self.points[0]
        run_point(bench.point("warm-up", pooling, frames, questions), Measured, FeatureStore(), lambda: bench.backbone)
        store = bench.store("sweep")
        for number, (pooling, frames) in enumerate(self.points):
            row: dict[str, Any] = {"frames": frames}
            runs: dict[str, Run] = {}
            # A warm run needs what the cold one has kept.
            for group in turn(["alone", "shared", "floor"], number):
                if group == "alone" and OFF in self.ways:
                    config = bench.point(OFF, pooling, frames, questions)
                    runs[OFF] = run_point(config, Alone, FeatureStore(), bench.load)
                elif group == "shared":
                    for way in (COLD, WARM):
                        if way in self.ways:
                            config = bench.point(way, pooling, frames, questions)
                            runs[way] = run_point(config, Measured, store, lambda: bench.backbone)
                elif group == "floor":
                    point = Point(bench.point(FLOOR, pooling, frames, questions))
                    # Beside the cold run that reads the same frames, so that both have the same of the machine.
                    if (read := floor.encode(frames)) is not None:
                        self._count(FLOOR, 0.0, read)
                        decodes.append(floor.decode())
                    spent, kinds = timed(partial(floor.answer, point))
                    self._count(FLOOR, spent, kinds)
                    row |= {"pooling": point.pooling.label, "visual_tokens": point.visual_tokens, FLOOR: spent}
            for way, run in runs.items():
                self._count(way, run.seconds, run.kinds)
                row[way] = run.seconds
            self._compare(runs)
            if OFF in runs:
                prefix = len(floor.before) + row["visual_tokens"]
                share = [
                    shared_share(bench.backbone.shape, prefix, floor.questions(c)) for c in range(len(floor.clips))
                ]
                self.left += runs[OFF].kinds["whole prompts"] * statistics.mean(share)
            self.rows.append(row)
            self.step()
        self.kinds[FLOOR]["decode"] = statistics.mean(decodes)

    def _count(self, way: str, seconds: float, kinds: dict[str, float]) -> None:
        self.totals[way] += seconds
        for kind, spent in kinds.items():
            self.kinds[way][kind] += spent

    def _compare(self, runs: dict[str, Run]) -> None:
        """Hold every way's records to those of the cold sweep, which stands in all parts."""
        slack = SLACK[self.bench.size["dtype"]]
        for way, run in runs.items():
            if way == COLD:
                continue
            found = compare(runs[COLD].records, run.records, slack)
            kept = self.agreement.setdefault(way, dict.fromkeys(found, 0))
            for name, more in found.items():
                kept[name] = max(kept[name], more) if name == "max_difference" else kept[name] + more

    def about(self) -> dict[str, Any]:
        """The sweep itself: its points and what they took, in seconds."""
        return {
            "points": self.rows,
            "frames_distinct": self.frames,
            "frames_of_all_points": self.frames_of_all_points,
            "seconds": dict(self.totals),
            "seconds_by_kind": {way: dict(kinds) for way, kinds in self.kinds.items()},
        }

    def sweep(self) -> dict[str, Any]:
        """Everything shared against nothing shared, and what the components' times allow.

        allowed_ratio is seconds of the sweep with nothing shared over what would remain of them: one load of
        the weights, one decoding, preprocessing and encoding of each frame (measured), pooling as it is, and
        of reading whole prompts the share of operations that is left when each prefix is read once. Nothing
        remains of the rest (loops, files, records), so a program as fast as that has no overhead at all.
        """
        off, floor = self.kinds[OFF], self.kinds[FLOOR]
        remaining = {
            LOAD: off[LOAD] / len(self.points),
            **{kind: floor[kind] for kind in READING},
            "pool": off["pool"],
            "language model": self.left,
        }
        ratio, allowed = self.totals[OFF] / self.totals[COLD], self.totals[OFF] / sum(remaining.values())
        return {
            "points": len(self.points),
            "off_seconds": self.totals[OFF],
            "shared_seconds": self.totals[COLD],
            "ratio": ratio,
            "remaining_seconds": remaining,
            "allowed_ratio": allowed,
            "share_reached": ratio / allowed,
            "agreement": self.agreement[OFF],
            "wall_seconds": self.totals[OFF] + self.totals[COLD],
        }

    def floor(self) -> dict[str, Any]:
        """The shared sweep against its floor, with an empty store and with a full one.

        other_seconds_per_point is what a warm point takes beside the model's work: configuration, files, loops,
        records. It hardly grows with the number of samples, so it weighs most where a point has few.
        """
        model, points = self.totals[FLOOR], len(self.points)
        reading = sum(self.kinds[FLOOR][kind] for kind in READING)
        return {
            "floor_reading_seconds": reading,
            "floor_model_seconds": model,
            "cold_seconds": self.totals[COLD],
            "warm_seconds": self.totals[WARM],
            "cold_over_floor": self.totals[COLD] / (reading + model),
            "warm_over_floor": self.totals[WARM] / model,
            "other_seconds_per_point": self.kinds[WARM][OTHER] / points,
            "floor_model_seconds_per_point": model / points,
            "agreement": self.agreement[WARM],
            "wall_seconds": self.totals[WARM] + model + reading,
        }
