"""One point less another, as tables and as JSON."""

from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from videopool.config.errors import ConfigError
from videopool.results import Comparison, Estimate, Flips, ResultsError, is_complete, point_records
from videopool.results.comparison import ALL_TASKS, what_differs
from videopool.results.point import MANIFEST
from videopool.results.study import load_study
from videopool.runtime.terminal import plain


def points_there(study: Path) -> list[Path]:
    """Folders of a study's points."""
    return sorted(path.parent for path in study.glob(f"*/{MANIFEST}"))


def unknown_baseline(table: pd.DataFrame, baseline: str) -> str:
    """One line on a baseline that the user gave and that no point or pooling of a study has; "" for any other."""
    if baseline == "none" or table.empty or baseline in {*table.point, *table.pooling}:
        return ""
    poolings = ", ".join(dict.fromkeys(map(str, table.pooling)))
    return f"baseline={baseline}: no pooling and no point of the study is named so; its poolings are {poolings}"


def find_point(study: Path, name: str, key: str = "points") -> Path:
    """Folder of a complete point: a path, or a study's only one named so. Raises ConfigError, ResultsError if not."""
    folder = Path(name)
    if not (folder / MANIFEST).is_file():
        there = points_there(study)
        fitting = [path for path in there if path.name == name] or [p for p in there if p.name.startswith(name)]
        if len(fitting) != 1:
            several = f"{len(fitting)} points begin so" if fitting else "no point begins so"
            known = ", ".join(path.name for path in fitting or there) or "none"
            raise ConfigError(f"{key}: {name}: {several} in {study}; there are: {known}")
        (folder,) = fitting
    if not is_complete(folder):
        raise ResultsError(f"{folder} is not complete; run its command again first")
    return folder


def differing(folders: tuple[Path, Path]) -> list[str]:
    """Names of the settings besides pooling in which two points differ."""
    tables = [load_study(folder.parent).set_index("point") for folder in folders]
    first, second = (table.loc[folder.name].to_dict() for table, folder in zip(tables, folders, strict=True))
    return ["model"] * (first["model"] != second["model"]) + what_differs(first, second)


def points_of(estimate: Estimate) -> str:
    """A difference in percentage points, with its interval and p-value."""
    return _interval(estimate) + ("" if estimate.p is None else f", p {estimate.p:.3g}")


def _interval(estimate: Estimate) -> str:
    if isnan(estimate.low):
        return f"{100 * estimate.value:+.1f}, no interval"
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"


def comparison_table(comparisons: Mapping[str, Comparison], first: str, second: str, differs: list[str]) -> Table:
    """Differences over all and by task, one line each."""
    table = Table(title=plain(f"{first} minus {second}", "table.title"))
    for name in ("task", "n", "clips", "difference % [95 %]", "p", "p, Holm", "only first", "only second"):
        table.add_column(name, justify="left" if name == "task" else "right")
    for task, comparison in comparisons.items():
        d, flips, holm = comparison.difference, comparison.flips, comparison.p_holm
        p_values = "-" if d.p is None else f"{d.p:.3g}", "" if holm is None else f"{holm:.3g}"
        flipped = (len(flips.first), len(flips.second)) if flips else ("-", "-")
        cells = (task, d.n, d.clusters, _interval(d), *p_values, *flipped)
        table.add_row(*map(plain, cells), end_section=task == ALL_TASKS)
    dropped = comparisons[ALL_TASKS].dropped
    parts = ["intervals and p clustered by clip", "only first: samples that only the first got right"]
    parts += [f"{dropped} samples were scored in one of them only and fell out"] if dropped else []
    parts += [f"also different: {', '.join(differs)}"] if differs else []
    table.caption = "; ".join(parts)
    return table


def tell_flips(screen: Console, folders: tuple[Path, Path], flips: Flips, shown: int) -> None:
    """Print some samples that flip, with both answers."""
    first, second = ({str(record["id"]): record for record in point_records(folder)} for folder in folders)
    screen.print(
        f"both right {flips.both}, neither {flips.neither}, only first {len(flips.first)}, "
        f"only second {len(flips.second)}; McNemar's exact p, as if all samples were independent: {flips.p:.3g}"
    )
    for title, ids in (("only the first is right", flips.first), ("only the second is right", flips.second)):
        for name in ids[:shown]:
            answers = f"first {first[name]['prediction']!r}, second {second[name]['prediction']!r}"
            line = f"  {title}: {name}: {first[name]['question']} {answers}"
            screen.print(line, highlight=False, soft_wrap=True)


def comparison_content(comparisons: Mapping[str, Comparison], folders: tuple[Path, Path]) -> dict[str, Any]:
    """A comparison as JSON."""
    rows: dict[str, Any] = {}
    for task, comparison in comparisons.items():
        d, flips = comparison.difference, comparison.flips
        rows[task] = {
            **d.named("difference", "low", "high"), "p": d.p, "p_holm": comparison.p_holm,
            "n": d.n, "clips": d.clusters, "dropped": comparison.dropped,
        }  # fmt: skip
        if flips is not None:
            rows[task] |= {
                "both": flips.both, "neither": flips.neither, "mcnemar_p": flips.p,
                "only_first": flips.first, "only_second": flips.second,
            }  # fmt: skip
    return {"points": [str(folder) for folder in folders], "differs": differing(folders), "comparisons": rows}
