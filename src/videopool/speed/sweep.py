"""The parts sweep and floor of job=speed: one sweep in several modes, point by point beside each other."""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from videopool.features import FeatureStore
from videopool.points.point import Point
from videopool.speed.bench import Bench, Line
from videopool.speed.points import LOAD, OTHER, SLACK, Alone, Floor, Measured, Run, compare, run_point, shared_share
from videopool.speed.timing import in_turn, timed

# Modes: nothing shared; everything shared, from an empty store and from one with all frames; the floor.
OFF, COLD, WARM, FLOOR = "off", "cold", "warm", "floor"
NEEDED = {"b": {OFF, COLD, FLOOR}, "c": {COLD, WARM, FLOOR}}
READING = ("decode", "preprocess", "vision")


class Sweep:
    """Poolings x frame counts, each point in the modes that some parts (letters of NEEDED) need."""

    def __init__(self, bench: Bench, parts: Sequence[str]) -> None:
        self.bench = bench
        self.modes: set[str] = set().union(*(NEEDED[part] for part in parts))
        self.rows: list[dict[str, Any]] = []  # one per point, with seconds by mode
        self.kinds: dict[str, Counter[str]] = {mode: Counter() for mode in (OFF, COLD, WARM, FLOOR)}  # seconds
        self._records: dict[str, dict[str, dict[str, Any]]] = {mode: {} for mode in (OFF, COLD, WARM)}
        self._prompts = 0.0  # seconds of whole prompts that remain if each prefix is read once

    def run(self, line: Line) -> None:
        """Run all points."""
        bench, job = self.bench, self.bench.config.job
        grid = [(pooling, int(frames)) for pooling in job.poolings for frames in job.frames]
        step = line("a sweep", len(grid))
        points = [Point(bench.point(FLOOR, job.poolings[0], frames)) for frames in job.frames]
        self.floor = Floor(bench.backbone, points)
        run_point(bench, bench.point("warm-up", *grid[0]), Measured, FeatureStore())
        self.store, self._decoding = bench.store("sweep"), list[float]()
        for number, (pooling, frames) in enumerate(grid):
            self._run(number, pooling, frames)
            step()
        self.kinds[FLOOR].update({"decode": statistics.mean(self._decoding)})

    def _run(self, number: int, pooling: Any, frames: int) -> None:
        bench, floor, point = self.bench, self.floor, Point(self.bench.point(FLOOR, pooling, frames))

        def alone() -> dict[str, Run]:
            return {OFF: run_point(bench, bench.point(OFF, pooling, frames), Alone, FeatureStore(), fresh=True)}

        def shared() -> dict[str, Run]:  # cold first, which fills the store for warm
            modes = [mode for mode in (COLD, WARM) if mode in self.modes]
            return {mode: run_point(bench, bench.point(mode, pooling, frames), Measured, self.store) for mode in modes}

        def least() -> dict[str, Run]:
            # Beside the cold run that reads the same frames, at the same pace of the machine.
            if reading := floor.encode(frames):
                self.kinds[FLOOR].update(reading)
                self._decoding.append(timed(floor.decode)[0])
            return {FLOOR: Run(*timed(lambda: floor.answer(point)), point, {})}

        works = {"alone": alone, "shared": shared, "floor": least}
        if OFF not in self.modes:
            del works["alone"]
        row = {"frames": frames, "pooling": point.pooling.label, "visual_tokens": point.visual_tokens}
        for runs in in_turn(works, number).values():
            for mode, run in runs.items():
                row[mode] = run.seconds
                self.kinds[mode].update(run.kinds)
                if mode != FLOOR:
                    self._records[mode] |= {f"point {number}, {id}": record for id, record in run.records.items()}
                if mode == OFF:
                    prefix = len(floor.before) + point.visual_tokens
                    lengths = [[len(ids) for ids in questions] for questions in floor.questions]
                    shares = [shared_share(bench.backbone.shape, prefix, own) for own in lengths]
                    self._prompts += run.kinds["whole prompts"] * statistics.mean(shares)
        self.rows.append(row)

    def _total(self, mode: str) -> float:
        return sum(row[mode] for row in self.rows)

    def _agreement(self, mode: str) -> dict[str, Any]:
        """Records against the cold run's. Raises AssertionError if they disagree on a prediction."""
        return compare(self._records[COLD], self._records[mode], SLACK[self.bench.size["dtype"]])

    def facts(self) -> dict[str, Any]:
        """The points and their times, in seconds."""
        modes = [mode for mode in self.kinds if mode in self.modes]
        return {
            "points": self.rows,
            "frames_distinct": sum(map(len, self.floor.frames)),
            "frames_of_all_points": sum(row["frames"] for row in self.rows) * len(self.floor.clips),
            "seconds": {mode: self._total(mode) for mode in modes},
            "seconds_by_kind": {mode: dict(self.kinds[mode]) for mode in modes},
        }

    def against_nothing_shared(self) -> dict[str, Any]:
        """Part b: everything shared against nothing shared, and the limit from the components' times.

        allowed_ratio is the time with nothing shared over its necessary rest: one load of the weights, one decoding,
        preprocessing and encoding of each frame (measured), all pooling, and the share of operations of whole prompts
        that remains if each prefix is read once. Loops, files and records count as avoidable.
        """
        off, floor, points = self.kinds[OFF], self.kinds[FLOOR], len(self.rows)
        remaining = {LOAD: off[LOAD] / points, **{kind: floor[kind] for kind in READING}}
        remaining |= {"pool": off["pool"], "language model": self._prompts}
        alone, shared = self._total(OFF), self._total(COLD)
        ratio, allowed = alone / shared, alone / sum(remaining.values())
        return {
            "points": points, "off_seconds": alone, "shared_seconds": shared, "remaining_seconds": remaining,
            "ratio": ratio, "allowed_ratio": allowed, "share_reached": ratio / allowed,
            "agreement": self._agreement(OFF), "wall_seconds": alone + shared,
        }  # fmt: skip

    def against_floor(self) -> dict[str, Any]:
        """Part c: the shared sweep against its floor, with an empty store and with a full one.

        other_seconds_per_point is the time of a warm point beside the model's work: configuration, files, loops,
        records. It hardly depends on the number of samples.
        """
        cold, warm, model, points = self._total(COLD), self._total(WARM), self._total(FLOOR), len(self.rows)
        reading = sum(self.kinds[FLOOR][kind] for kind in READING)
        return {
            "floor_reading_seconds": reading, "floor_model_seconds": model, "cold_seconds": cold, "warm_seconds": warm,
            "cold_over_floor": cold / (reading + model), "warm_over_floor": warm / model,
            "floor_model_seconds_per_point": model / points,
            "other_seconds_per_point": self.kinds[WARM][OTHER] / points,
            "agreement": self._agreement(WARM), "wall_seconds": warm + model + reading,
        }  # fmt: skip
