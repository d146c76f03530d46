"""report.html: all of a study in one file that needs nothing but itself."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pandas as pd

from videopool.reports.differing import choose_pair
from videopool.reports.points import COMPLETE, point_labels, points_table, shared_chance, shared_settings
from videopool.reports.samples import sample_views
from videopool.reports.tables import PUBLISHED, SEEDS, published_table, seeds_table
from videopool.reports.tasks import task_tables
from videopool.results.point import MANIFEST, RECORDS, read_json

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = files("videopool.reports") / "templates"
SAMPLES = 10  # on which two points differ most, unless told otherwise


def study_page(
    frame: pd.DataFrame,
    name: str,
    question: str,
    figures: Sequence[Path],
    pair: Sequence[str] | None = None,
    samples: int = SAMPLES,
    published: pd.DataFrame | None = None,
    seeds: pd.DataFrame | None = None,
) -> str:
    """The page of a study, as HTML.

    All that comes from files is escaped, and the page's own policy lets it load nothing and run no script but its own.

    Args:
        frame: from load_study and add_differences.
        name: of the study.
        question: what it asks, "" if that is not known.
        figures: SVG files.
        pair: names of two points whose answers are compared; None lets choose_pair choose.
        samples: how many samples are shown of the pair.
        published: figures of others, with the columns of published_table.
        seeds: from results.over_seeds.

    Raises:
        ResultsError: a point of the pair is not there, or not complete.
    """
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
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
        "figures": [(path.stem.replace("_", " "), _svg_uri(path)) for path in figures],
        "tasks": task_tables(frame),
        "pair": chosen,
        "samples": sample_views(folders[chosen[0]], folders[chosen[1]], samples) if chosen else [],
        "published": published_table(published) if published is not None and len(published) else None,
        "published_title": PUBLISHED,
        "seeds": seeds_table(seeds) if seeds is not None and len(seeds) else None,
        "seeds_title": SEEDS,
        "manifests": [(point, labels[point], _manifest(folder)) for point, folder in folders.items()],
        "style": (TEMPLATES / "report.css").read_text(encoding="utf-8"),
        "script": script,
        "script_hash": b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    return str(_environment().get_template("report.html").render(context))


def samples_html(first: str | Path, second: str | Path, most: int = SAMPLES) -> str:
    """The samples on which two points differ most, as the page shows them: A is the first point, B the second.

    An HTML fragment without style, for notebooks; all that comes from files is escaped.

    Args:
        first, second: folders of complete points.
        most: how many samples at most.
    """
    articles = _environment().get_template("samples.html").module.articles  # type: ignore[attr-defined]
    return str(articles(sample_views(first, second, most)))


def _environment() -> "Environment":
    """What fills in templates."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined  # here: a report that is kept does not need it

    loader = FunctionLoader(lambda name: (TEMPLATES / name).read_text(encoding="utf-8"))
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _svg_uri(path: Path) -> str:
    return "data:image/svg+xml;base64," + b64encode(path.read_bytes()).decode()


def _manifest(folder: str) -> list[tuple[str, str]]:
    """What a point was and how it ran, part by part; what tables say already is left out."""
    manifest = read_json(Path(folder) / MANIFEST) or {}
    parts = {name: part for name, part in manifest.items() if name not in ("point", "fingerprint", "identity")}
    plain = {name: part for name, part in parts.items() if not isinstance(part, (dict, list))}
    nested = {name: part for name, part in parts.items() if name not in plain}
    told = [("point", plain)] if plain else []
    return [(title, json.dumps(part, indent=1, ensure_ascii=False)) for title, part in (*told, *nested.items())]
