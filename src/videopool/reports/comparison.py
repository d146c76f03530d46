"""One point less another, as tables and as JSON."""

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from videopool.config.errors import ConfigError
from videopool.reports import cells
from videopool.results import Comparison, Estimate, Flips, ResultsError, compare, is_complete, point_records
from videopool.results.comparison import ALL_TASKS, called, identity_of, what_differs
from videopool.results.point import MANIFEST, part_of
from videopool.results.study import load_study, rows_of
from videopool.runtime.tables import Cell, Heading, Row, Shown, TextTable

HEADINGS = (
    Heading("task", False), Heading("n", rank=2), Heading("clips", rank=5), Heading("difference (%)"),
    Heading("p", rank=6), Heading("p (Holm)", rank=1), Heading("only first", rank=3), Heading("only second", rank=4),
)  # fmt: skip


def points_there(study: Path) -> list[Path]:
    """Folders of a study's points."""
    return sorted(path.parent for path in study.glob(f"*/{MANIFEST}"))


def unknown_baseline(table: pd.DataFrame, baseline: str) -> str:
    """One line on a baseline that the user gave and that no point or pooling of a study has; "" for any other."""
    rows = rows_of(table)
    if baseline == "none" or not rows or baseline in set(table.point) or called(rows, baseline):
        return ""
    poolings = ", ".join(dict.fromkeys(map(str, table.pooling)))
    return f"baseline={baseline}: no pooling and no point of the study is named so; its poolings are {poolings}"


def one_named(name: str, known: Sequence[str], key: str) -> str:
    """The one of some complete points that is called so, or whose name begins so. Raises ConfigError."""
    fitting = [own for own in known if own == name] or [own for own in known if own.startswith(name)]
    if len(fitting) != 1:
        several = f"{len(fitting)} complete points begin" if fitting else "no complete point begins"
        raise ConfigError(f"{key}: {name}: {several} so; there are: {', '.join(fitting or known) or 'none'}")
    return fitting[0]


def find_point(study: Path, name: str, key: str = "points") -> Path:
    """Folder of a complete point: a path, or a study's only one named so. Raises ConfigError, ResultsError if not."""
    folder = Path(name)
    if not (folder / MANIFEST).is_file():
        folder = study / one_named(name, [path.name for path in points_there(study) if is_complete(path)], key)
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
    interval = _interval(estimate) or "no interval"
    p = "" if estimate.p is None else f", p {estimate.p:.3g}"
    return f"{100 * estimate.value:+.1f} {interval}{p}"


def _interval(estimate: Estimate) -> str:
    return "" if isnan(estimate.low) else f"[{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"


def comparison_table(
    comparisons: Mapping[str, Comparison], folders: tuple[Path, Path], differs: list[str], intersect: bool
) -> Shown:
    """Differences over the score's tasks, over each other group of tasks, and by task below its group."""
    identity = identity_of(folders[0])
    headline, groups = set(identity.get("headline") or ()), part_of(identity, "groups")
    main = next((f"main group ({name})" for name, tasks in groups.items() if headline == set(tasks)), "all tasks")
    tasks = [task for task in comparisons if task != ALL_TASKS]
    rows, left = [_row(main, comparisons[ALL_TASKS], rule=True)], list(tasks)
    for name, members in sorted(groups.items(), key=lambda group: set(group[1]) != headline):
        if not (own := [task for task in left if task in members]):
            continue
        if set(members) != headline:
            rows.append(_row(f"{name} tasks", compare(*folders, members.__contains__, intersect), rule=True))
        rows += [_row(f"  {task}", comparisons[task]) for task in own]
        left = [task for task in left if task not in own]
    rows += [_row(task, comparisons[task], rule=place == 0) for place, task in enumerate(left)]
    dropped = comparisons[ALL_TASKS].dropped
    parts = ["intervals and p clustered by clip", "p (Holm): corrected for the number of tasks"]
    parts += ["only first: samples that only the first point got right"]
    parts += [f"{dropped} samples were scored in one of them only and fell out"] if dropped else []
    parts += [f"also different: {', '.join(differs)}"] if differs else []
    title = " minus ".join(folder.name for folder in folders)
    return Shown(TextTable(HEADINGS, tuple(rows)), title, tuple(parts))


def _row(name: str, comparison: Comparison, rule: bool = False) -> Row:
    d, flips, holm = comparison.difference, comparison.flips, comparison.p_holm
    flipped = (len(flips.first), len(flips.second)) if flips else ("-", "-")
    p_values = cells.p_cell(d.p), cells.p_cell(holm) if holm is not None else Cell("")
    difference = Cell(f"{100 * d.value:+.1f}", _interval(d))
    counts = [Cell(str(count)) for count in (d.n, d.clusters, *flipped)]
    return Row((Cell(name), *counts[:2], difference, *p_values, *counts[2:]), rule=rule)


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
