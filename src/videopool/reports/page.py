"""report.html: a whole study in one file that needs no other."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pandas as pd

from videopool import __version__
from videopool.reports.cells import Cell, Heading, Row, TextTable, number_cell, share_cell
from videopool.reports.columns import COMPLETE, page_names, point_labels, table_of
from videopool.reports.samples import SAMPLES, data_uri, flip_counts, sample_views
from videopool.reports.tables import scored_samples, shared_chance, shared_settings
from videopool.reports.unfinished import incomplete
from videopool.results.point import MANIFEST, METRICS, RECORDS, manifest_part, part_of, read_json

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = files("videopool.reports") / "templates"
HEAD = {"question": "# Question:", "headline": "# Headline:"}  # beginnings of lines of a study's file
HINTS = {
    "seeds": "Each score is the mean of one configuration under several seeds; differences are taken seed by seed.",
    "published": "Not measured here, and not on the same terms: each line says on which.",
}


def study_page(
    frame: pd.DataFrame,
    name: str,
    baseline: str,
    head: Mapping[str, str],
    conclusion: Sequence[str],
    figures: Mapping[Path, str],
    pair: tuple[str, str] | None,
    samples: int,
    others: Mapping[str, tuple[str, TextTable]],
    columns: Sequence[str] | None,
    command: str,
) -> str:
    """The page of a study, as HTML. All text from files is escaped; the page loads nothing and runs no other script.

    head: from study_head. figures: SVG files and their captions. pair: two points to compare on so many samples.
    others: from other_tables. command: the command line that writes the report, or "".
    """
    style, script = ((TEMPLATES / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    labels = point_labels(frame)
    folders: dict[str, str] = dict(zip(frame.point, frame.folder, strict=True))
    two = [folders[point] for point in pair or ()]
    context: dict[str, Any] = {
        "name": name,
        "question": head.get("question", ""),
        "conclusion": conclusion,
        "baseline": baseline,
        "settings": shared_settings(frame),
        "counts": frame.status.value_counts().to_dict(),
        "complete": COMPLETE,
        "chance": shared_chance(frame),
        "points": table_of(frame, columns or page_names(frame)),
        "notes": incomplete(frame).items(),
        "samples_scored": scored_samples(frame),
        "labels": labels,
        "records": {point: quote(f"{point}/{RECORDS}") for point in labels},
        "figures": [_figure(path, caption) for path, caption in figures.items()],
        "tasks": task_tables(frame),
        "pair": pair,
        "flips": flip_counts(two[0], two[1]) if pair else None,
        "samples": sample_views(two[0], two[1], samples) if pair else [],
        "others": others,
        "hints": HINTS,
        "made": _made(frame, command),
        "manifests": [(point, labels[point], _manifest(folder)) for point, folder in folders.items()],
        "style": style,
        "script": script,
        "script_hash": b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    return str(_environment().get_template("report.html").render(context))


def study_head(experiments: Path, manifests: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Question and headline in the head of the experiments/ file that all points name; {} unless they name one."""
    names = {manifest.get("experiment") for manifest in manifests} - {None}
    try:
        (name,) = names
        lines = (experiments / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    found = {key: [line for line in lines if line.startswith(start)] for key, start in HEAD.items()}
    return {key: own[0].removeprefix(HEAD[key]).strip() for key, own in found.items() if own}


def task_tables(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A table of points x tasks for each benchmark with several tasks, with the tasks of a group side by side.

    Each has `benchmark`; `table`, whose first two rows are chance and the number of samples of each task, from the
    benchmark's first complete point; `groups` (name, number of tasks); `starts`, the columns at which groups begin; and
    `shares`, by point, of the way from chance to 100 % (0 below chance, None without a score).
    """
    labels = point_labels(frame)
    tables = []
    for benchmark, rows in frame[frame.status == COMPLETE].groupby("benchmark", sort=False):
        points = {str(r.point): part_of(read_json(Path(r.folder) / METRICS) or {}, "tasks") for r in rows.itertuples()}
        known = part_of(manifest_part(rows.folder.iloc[0], "identity"), "groups")
        groups = _grouped(sorted(set().union(*points.values())), known)
        names = [task for tasks in groups.values() for task in tasks]
        if len(names) < 2:
            continue
        first = next(iter(points.values()))
        body = [
            Row((Cell("chance"), *(share_cell(part_of(first, name).get("chance")) for name in names))),
            Row((Cell("samples"), *(number_cell(part_of(first, name).get("n")) for name in names))),
        ]
        shares = {}
        for point, tasks in points.items():
            own = [part_of(tasks, name) for name in names]
            scores = [share_cell(task.get("score"), task.get("ci_low"), task.get("ci_high")) for task in own]
            body.append(Row((Cell(labels[point]), *scores), point, COMPLETE))
            shares[point] = [None, *(_above_chance(task.get("score"), task.get("chance")) for task in own)]
        sizes = [len(tasks) for tasks in groups.values()]
        tables.append(
            {
                "benchmark": str(benchmark),
                "table": TextTable((Heading("point", numeric=False), *map(Heading, names)), tuple(body)),
                "groups": list(zip(groups, sizes, strict=True)) if any(groups) else [],
                "starts": [1 + sum(sizes[:place]) for place in range(len(sizes))],
                "shares": shares,
            }
        )
    return tables


def _grouped(tasks: Sequence[str], groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Tasks by their first group; under "" those of no group."""
    found: dict[str, list[str]] = {name: [] for name in (*groups, "")}
    for task in tasks:
        found[next((name for name, members in groups.items() if task in members), "")].append(task)
    return {name: members for name, members in found.items() if members}


def _above_chance(score: float | None, chance: float | None) -> float | None:
    if score is None:
        return None
    least = chance or 0.0
    return max(0.0, (score - least) / (1 - least)) if least < 1 else 0.0


def _figure(path: Path, caption: str) -> dict[str, Any]:
    """A figure's caption, picture, and files by format, relative to the page."""
    siblings = [path.with_suffix(f".{kind}") for kind in ("png", "svg", "pdf")]
    return {
        "name": path.stem.replace("_", " "),
        "caption": caption,
        "source": data_uri("image/svg+xml", path.read_bytes()),
        "files": {p.suffix[1:].upper(): quote(f"{path.parent.name}/{p.name}") for p in siblings if p.is_file()},
    }


def _made(frame: pd.DataFrame, command: str) -> list[tuple[str, str]]:
    """How page and points were made: words and values."""
    manifests = [read_json(Path(folder) / MANIFEST) or {} for folder in frame.folder]
    started = sorted(str(manifest["started"]) for manifest in manifests if manifest.get("started"))
    versions = sorted({str(part_of(manifest, "versions").get("videopool", "?")) for manifest in manifests})
    commits = {str(part_of(manifest, "git").get("commit", ""))[:10] for manifest in manifests} - {""}
    spans = [_time(moment) for moment in dict.fromkeys((*started[:1], *started[-1:]))]
    lines = {
        "page": f"{_time(datetime.now(UTC).isoformat())}, VideoPool {__version__}",
        "command": command,
        "points": f"{' to '.join(spans)}, VideoPool {', '.join(versions)}" if spans else "",
        "commit": ", ".join(sorted(commits)),
    }
    return [(name, value) for name, value in lines.items() if value]


def _time(moment: str) -> str:
    return f"{moment[:10]} {moment[11:16]} UTC"


def samples_html(first: str | Path, second: str | Path, most: int = SAMPLES) -> str:
    """The samples on which two points (folders) differ most, as on the page: A is the first point, B the second.

    An HTML fragment without style, for notebooks; all text from files is escaped.
    """
    articles = _environment().get_template("samples.html").module.articles  # type: ignore[attr-defined]
    return str(articles(sample_views(first, second, most)))


@cache
def _environment() -> "Environment":
    """The template engine; it compiles a template once, however often reports are written."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined  # here: a report that is kept does not need it

    loader = FunctionLoader(lambda name: (TEMPLATES / name).read_text(encoding="utf-8"))
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _manifest(folder: str) -> list[tuple[str, str]]:
    """A point's configuration and run, part by part, without the parts in tables."""
    manifest = read_json(Path(folder) / MANIFEST) or {}
    parts = {name: part for name, part in manifest.items() if name not in ("point", "fingerprint", "identity")}
    nested = {name: part for name, part in parts.items() if isinstance(part, (dict, list))}
    if plain := {name: part for name, part in parts.items() if name not in nested}:
        nested = {"point": plain, **nested}
    return [(title, json.dumps(part, indent=1, ensure_ascii=False)) for title, part in nested.items()]
