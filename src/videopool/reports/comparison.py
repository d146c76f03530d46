"""One point less another, as tables and as JSON."""

from math import isnan
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from videopool.config.errors import ConfigError
from videopool.results import Comparison, Estimate, Flips, ResultsError, is_complete, point_records
from videopool.results.comparison import ALL_TASKS, corrected, what_differs
from videopool.results.point import MANIFEST
from videopool.results.study import load_study
from videopool.runtime.terminal import plain


def find_point(study: Path, name: str) -> Path:
    """Folder of a complete point: a path, or the one point of a study whose name begins so.

    Raises:
        ConfigError: there is none, or several.
        ResultsError: it is not complete.
    """
    folder = Path(name)
    if not (folder / MANIFEST).is_file():
        there = sorted(path.parent for path in study.glob(f"*/{MANIFEST}"))
        fitting = [path for path in there if path.name == name] or [p for p in there if p.name.startswith(name)]
        if len(fitting) != 1:
            several = f"{len(fitting)} points begin so" if fitting else "no point begins so"
            known = ", ".join(path.name for path in fitting or there) or "none"
            raise ConfigError(f"points: {name}: {several} in {study}; there are: {known}")
        (folder,) = fitting
    if not is_complete(folder):
        raise ResultsError(f"{folder} is not complete; run its command again first")
    return folder


def differing(folders: tuple[Path, Path]) -> list[str]:
    """What two points do not have in common beside their pooling, by name."""
    rows = []
    for folder in folders:
        table = load_study(folder.parent)
        rows.append(table[table.point == folder.name].iloc[0].to_dict())
    model = ["model"] if rows[0]["model"] != rows[1]["model"] else []
    return model + what_differs(*rows)


def points_of(estimate: Estimate) -> str:
    """A difference in points of a per cent, with its interval and p-value."""
    told = "" if estimate.p is None else f", p {estimate.p:.3g}"
    return f"{_interval(estimate)}{told}"


def _interval(estimate: Estimate) -> str:
    if isnan(estimate.low):
        return f"{100 * estimate.value:+.1f}, no interval"
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"


def comparison_table(found: dict[str, Comparison], first: str, second: str, differs: list[str]) -> Table:
    """Differences over all and by task, one line each."""
    table = Table(title=plain(f"{first} minus {second}", "table.title"))
    for name in ("task", "n", "clips", "difference % [95 %]", "p", "p, Holm", "only first", "only second"):
        table.add_column(name, justify="left" if name == "task" else "right")
    p_holm = corrected(found)
    for task, one in found.items():
        d, flipped = one.difference, one.flips
        both = p_holm.get(task)
        cells = [
            task,
            str(d.n),
            str(d.clusters),
            _interval(d),
            "-" if d.p is None else f"{d.p:.3g}",
            "" if both is None else f"{both:.3g}",
        ]
        cells += [str(len(flipped.first)), str(len(flipped.second))] if flipped else ["-", "-"]
        table.add_row(*map(plain, cells), end_section=task == ALL_TASKS)
    dropped = (
        f"; {found[ALL_TASKS].dropped} samples were scored in one of them only and fell out"
        if found[ALL_TASKS].dropped
        else ""
    )
    unequal = f"; also different: {', '.join(differs)}" if differs else ""
    table.caption = (
        f"intervals and p clustered by clip; only first: samples that only the first got right{dropped}{unequal}"
    )
    return table


def tell_flips(screen: Console, folders: tuple[Path, Path], flipped: Flips, shown: int) -> None:
    """Print some samples that flip, with both answers."""
    said = [{str(record["id"]): record for record in point_records(folder)} for folder in folders]
    screen.print(
        f"both right {flipped.both}, neither {flipped.neither}, only first {len(flipped.first)}, "
        f"only second {len(flipped.second)}; McNemar's exact p, as if all samples were independent: {flipped.p:.3g}"
    )
    for title, ids in (("only the first is right", flipped.first), ("only the second is right", flipped.second)):
        for name in ids[:shown]:
            one, other = said[0][name], said[1][name]
            line = f"  {title}: {name}: {one['question']} first {one['prediction']!r}, second {other['prediction']!r}"
            screen.print(line, highlight=False, soft_wrap=True)


def comparison_content(found: dict[str, Comparison], folders: tuple[Path, Path]) -> dict[str, Any]:
    """A comparison as JSON."""
    p_holm = corrected(found)
    rows: dict[str, Any] = {}
    for task, one in found.items():
        d = one.difference
        rows[task] = {
            **d.named("difference", "low", "high"), "p": d.p, "p_holm": p_holm.get(task),
            "n": d.n, "clips": d.clusters, "dropped": one.dropped,
        }  # fmt: skip
        if one.flips is not None:
            rows[task] |= {
                "both": one.flips.both, "neither": one.flips.neither, "mcnemar_p": one.flips.p,
                "only_first": one.flips.first, "only_second": one.flips.second,
            }  # fmt: skip
    return {"points": [str(folder) for folder in folders], "differs": differing(folders), "comparisons": rows}
