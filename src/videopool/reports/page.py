"""report.html: a whole study in one file that needs no other."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pandas as pd

from videopool.reports.columns import COMPLETE, point_labels, points_table, shared_chance, shared_settings
from videopool.reports.samples import choose_pair, data_uri, sample_views
from videopool.reports.tables import other_tables, task_tables
from videopool.results.point import MANIFEST, RECORDS, read_json

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = files("videopool.reports") / "templates"
SAMPLES = 10  # on which two points differ most, by default
QUESTION = "# Question:"  # begins a line of a study's file
HINTS = {
    "seeds": "Each score is the mean of one configuration under several seeds; differences are taken seed by seed.",
    "published": "Not measured here, and not on the same terms: each line says on which.",
}


def study_page(
    frame: pd.DataFrame,
    name: str,
    question: str,
    figures: Sequence[Path],
    pair: Sequence[str] | None,
    samples: int,
    published: pd.DataFrame,
    seeds: pd.DataFrame,
) -> str:
    """The page of a study, as HTML.

    All text from files is escaped, and the page's own policy lets it load nothing and run no other script.

    frame: from add_differences. question: from study_question. figures: SVG files. pair: names of two points to compare
    on so many samples; None: see choose_pair. published, seeds: from published_figures and over_seeds. Raises
    ResultsError if a point of the pair does not exist, or is not complete.
    """
    style, script = ((TEMPLATES / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    labels = point_labels(frame)
    chosen = choose_pair(frame, pair) if samples or pair else None
    folders = {str(row.point): str(row.folder) for row in frame.itertuples()}
    context: dict[str, Any] = {
        "name": name,
        "question": question,
        "settings": shared_settings(frame),
        "counts": {str(status): int(count) for status, count in frame.status.value_counts().items()},
        "complete": COMPLETE,
        "chance": shared_chance(frame),
        "points": points_table(frame),
        "labels": labels,
        "records": {point: quote(f"{point}/{RECORDS}") for point in labels},
        "figures": [(path.stem.replace("_", " "), data_uri("image/svg+xml", path.read_bytes())) for path in figures],
        "tasks": task_tables(frame),
        "pair": chosen,
        "samples": sample_views(folders[chosen[0]], folders[chosen[1]], samples) if chosen else [],
        "others": other_tables(published, seeds),
        "hints": HINTS,
        "manifests": [(point, labels[point], _manifest(folder)) for point, folder in folders.items()],
        "style": style,
        "script": script,
        "script_hash": b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    return str(_environment().get_template("report.html").render(context))


def study_question(experiments: Path, frame: pd.DataFrame) -> str:
    """The question in the head of the experiments/ file that a study's points name; "" unless they all name one."""
    manifests = [read_json(Path(folder) / MANIFEST) or {} for folder in frame.folder]
    names = {manifest.get("experiment") for manifest in manifests} - {None}
    try:
        (name,) = names
        lines = (experiments / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return ""
    return next((line.removeprefix(QUESTION).strip() for line in lines if line.startswith(QUESTION)), "")


def samples_html(first: str | Path, second: str | Path, most: int = SAMPLES) -> str:
    """The samples on which two points (folders) differ most, as on the page: A is the first point, B the second.

    An HTML fragment without style, for notebooks; all text from files is escaped.
    """
    articles = _environment().get_template("samples.html").module.articles  # type: ignore[attr-defined]
    return str(articles(sample_views(first, second, most)))


def _environment() -> "Environment":
    """The template engine."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined  # here: a report that is kept does not need it

    loader = FunctionLoader(lambda name: (TEMPLATES / name).read_text(encoding="utf-8"))
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _manifest(folder: str) -> list[tuple[str, str]]:
    """A point's configuration and run, part by part, without the parts in tables."""
    manifest = read_json(Path(folder) / MANIFEST) or {}
    parts = {name: part for name, part in manifest.items() if name not in ("point", "fingerprint", "identity")}
    nested = {name: part for name, part in parts.items() if isinstance(part, (dict, list))}
    plain = {name: part for name, part in parts.items() if name not in nested}
    titled = {**({"point": plain} if plain else {}), **nested}
    return [(title, json.dumps(part, indent=1, ensure_ascii=False)) for title, part in titled.items()]
