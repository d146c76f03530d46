"""What is to be told of a benchmark before anything is loaded: clips that are not on disk, answers that stand twice."""

import os

from videopool.benchmarks.benchmark import Benchmark
from videopool.benchmarks.errors import BenchmarkError

LISTED = 5


def missing_clips(benchmark: Benchmark) -> list[str]:
    """Names of the clips that samples speak of and that are not on disk, sorted."""
    paths = {sample.clip_id: sample.clip for sample in benchmark.samples}
    return sorted(name for name, path in paths.items() if not os.path.exists(path))


def require_clips(benchmark: Benchmark) -> str:
    """One line on the clips that are not on disk; "" if all are there.

    Raises:
        BenchmarkError: none of them is.
    """
    missing = missing_clips(benchmark)
    if not missing:
        return ""
    clips = len({sample.clip_id for sample in benchmark.samples})
    if len(missing) == clips:
        path = next(sample.clip for sample in benchmark.samples)
        raise BenchmarkError(f"benchmark {benchmark.id}: none of its {clips} clips is there, not even {path}")
    lost = set(missing)
    asked = sum(sample.clip_id in lost for sample in benchmark.samples)
    more = f" and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
    share = f"{len(missing)} of {clips} clips ({100 * len(missing) / clips:.1f} %)"
    told = f"{share} are not there, with {asked} of {len(benchmark.samples)} samples"
    return f"benchmark {benchmark.id}: {told}: {', '.join(missing[:LISTED])}{more}"


def repeated_answers(benchmark: Benchmark) -> str:
    """One line on questions whose right answer stands among the options more than once; "" if there are none."""
    ids = [sample.id for sample in benchmark.samples if sample.options.count(sample.answer) > 1]
    if not ids:
        return ""
    more = f" and {len(ids) - LISTED} more" if len(ids) > LISTED else ""
    told = f"in {len(ids)} of {len(benchmark.samples)} samples the right answer stands among the options more than once"
    return f"benchmark {benchmark.id}: {told}, and each of them counts as right: {', '.join(ids[:LISTED])}{more}"
