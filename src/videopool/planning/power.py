"""Which differences a plan's points could find."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from videopool.config.build import number
from videopool.results.comparison import same_budget
from videopool.results.power import detectable_difference

Row = dict[str, Any]


def design(config: DictConfig, samples: Sequence[int]) -> dict[str, Any] | None:
    """What a point's power depends on, fit for JSON; None if samples on each clip are unknown, or nothing flips."""
    flipped, correlation = number(config, "job.flipped", 0, 1), number(config, "job.correlation", 0, 1)
    stated = config.job.comparisons
    comparisons = None if stated is None else number(config, "job.comparisons", 1, whole=True)
    if not samples or not flipped:
        return None
    sizes = [[size, count] for size, count in sorted(Counter(samples).items())]
    about = {"sizes": sizes, "flipped": flipped, "correlation": correlation, "comparisons": comparisons}
    return {**about, "baseline": str(config.baseline)}


def with_power(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows of a run with `comparisons` and `detectable_difference` in place of `design`.

    Unless job.comparisons says otherwise, Holm corrects for the comparisons that a report of just these points makes.
    """
    found, known = [], {}
    for row in rows:
        about = row["design"]
        comparisons = difference = None
        if about is not None:
            family = [other for other in rows if other["benchmark"] == row["benchmark"]]
            comparisons = about["comparisons"] or max(1, _comparisons(family, about["baseline"]))
            key = (str(about), comparisons)
            if key not in known:
                sizes = [size for size, count in about["sizes"] for _ in range(count)]
                known[key] = detectable_difference(sizes, about["correlation"], about["flipped"], comparisons)
            difference = known[key]
        kept = {name: value for name, value in row.items() if name != "design"}
        found.append({**kept, "comparisons": comparisons, "detectable_difference": difference})
    return found


def _comparisons(rows: Sequence[Mapping[str, Any]], baseline: str) -> int:
    """How many pairs add_differences makes of points of one benchmark; of a baseline that is not among them, most."""
    like = [row for row in rows if row["pooling"] == baseline]
    if not like:
        return len(rows) - 1
    pairs = 0
    for row in rows:
        own = [other for other in like if other["model"] == row["model"]]
        partners = [other for other in own if other["frames"] == row["frames"]][:1]
        if row["visual_tokens"] is not None:
            tokens = row["visual_tokens"]
            near = [other for other in own if same_budget(other["visual_tokens"], tokens)]
            partners += sorted(near, key=lambda other: abs(other["visual_tokens"] - tokens))[:1]
        pairs += len({id(other) for other in partners} - {id(row)})
    return pairs
