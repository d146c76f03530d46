"""The synthetic benchmark: written to disk once, then read like any other."""

from pathlib import Path
from typing import Any

from videopool.benchmarks import Benchmark, BenchmarkError, load_mvbench
from videopool.shapes.clips import WorldError, WorldSettings, build


def load_shapes(
    root: str | Path, kind: str = "clips", split: str = "test", clips: int = 400, per_task: int = 160, seed: int = 0,
    id: str = "shapes", **settings: Any,
) -> Benchmark:  # fmt: skip
    """Read clips (or still images) and questions under root, rendering them first unless they are there.

    See WorldSettings; `settings` are load_mvbench's. Raises BenchmarkError for settings that cannot be met, or a folder
    that cannot be written.
    """
    for name, value, least in (("clips", clips, 1), ("per_task", per_task, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or value < least:
            raise BenchmarkError(f"benchmark {id}: {name} must be a whole number of at least {least}, got {value!r}")
    try:
        folder = build(WorldSettings(kind, split, clips, per_task, seed), Path(root))
    except WorldError as error:
        raise BenchmarkError(f"benchmark {id}: {error}") from error
    except OSError as error:
        raise BenchmarkError(f"benchmark.root={root}: {error.strerror or error}; choose another data_dir") from error
    return load_mvbench(folder, id, split, **{"max_new_tokens": 16, **settings})
