"""report.html: a whole study in one file that needs no other."""

import hashlib
import io
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib.resources import files
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pandas as pd

from videopool.reports.tables import (
    COMPLETE,
    other_tables,
    point_labels,
    points_table,
    shared_chance,
    shared_settings,
    task_tables,
)
from videopool.results import ResultsError, point_records
from videopool.results.point import MANIFEST, RECORDS, clip_files, manifest_part, read_json
from videopool.results.records import OK
from videopool.video import READERS, UnreadableClipError, open_clip

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = files("videopool.reports") / "templates"
SAMPLES = 10  # on which two points differ most, by default
HEIGHT, QUALITY = 96, 75  # of thumbnails, in pixels and of JPEG
MOST = 8  # frames of a clip
QUESTION = "# Question:"  # begins a line of a study's file
HINTS = {
    "seeds": "Each score is the mean of one configuration under several seeds; differences are taken seed by seed.",
    "published": "Not measured here, and not on the same terms: each line says on which.",
}

Two = tuple[dict[str, Any], dict[str, Any]]  # records of one sample in two points


def study_page(
    frame: pd.DataFrame,
    name: str,
    question: str,
    figures: Mapping[Path, str],
    pair: Sequence[str] | None,
    samples: int,
    published: pd.DataFrame,
    seeds: pd.DataFrame,
) -> str:
    """The page of a study, as HTML.

    All text from files is escaped, and the page's own policy lets it load nothing and run no other script.

    frame: from add_differences. question: from study_question. figures: SVG files and their captions. pair: names
    of two points to compare on so many samples; None: see choose_pair. published, seeds: from published_figures and
    over_seeds. Raises ResultsError if a point of the pair does not exist, or is not complete.
    """
    style, script = ((TEMPLATES / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    labels = point_labels(frame)
    chosen = choose_pair(frame, pair) if samples or pair else None
    folders: dict[str, str] = dict(zip(frame.point, frame.folder, strict=True))
    context: dict[str, Any] = {
        "name": name,
        "question": question,
        "settings": shared_settings(frame),
        "counts": frame.status.value_counts().to_dict(),
        "complete": COMPLETE,
        "chance": shared_chance(frame),
        "points": points_table(frame),
        "labels": labels,
        "records": {point: quote(f"{point}/{RECORDS}") for point in labels},
        "figures": [
            (path.stem.replace("_", " "), data_uri("image/svg+xml", path.read_bytes()), caption)
            for path, caption in figures.items()
        ],
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
    if plain := {name: part for name, part in parts.items() if name not in nested}:
        nested = {"point": plain, **nested}
    return [(title, json.dumps(part, indent=1, ensure_ascii=False)) for title, part in nested.items()]


def _apart(records: Two) -> tuple[float, float, bool]:
    """Distance of two answers: in score, then in the right option's log-probability, then in words."""
    first, second = records
    pairs = (first["score"], second["score"]), (_right_logprob(first), _right_logprob(second))
    score, logprob = (0.0 if one is None or other is None else abs(one - other) for one, other in pairs)
    return score, logprob, first["prediction"] != second["prediction"]


def _right_logprob(record: dict[str, Any]) -> float | None:
    """Log-probability of the right option's letter; None for generated answers, or if no option is right."""
    values, options = record.get("option_logprobs"), record["options"]
    return values[options.index(record["answer"])] if values and record["answer"] in options else None


def differing_samples(first: str | Path, second: str | Path, most: int) -> list[Two]:
    """Records of the samples that two points (folders) answered differently, the furthest apart first."""
    ours, theirs = ({str(r["id"]): r for r in point_records(point) if r["status"] == OK} for point in (first, second))
    both = [(record, theirs[name]) for name, record in ours.items() if name in theirs]
    apart = [records for records in both if any(_apart(records))]
    return sorted(apart, key=lambda records: ([-value for value in _apart(records)], str(records[0]["id"])))[:most]


def choose_pair(frame: pd.DataFrame, asked: Sequence[str] | None) -> tuple[str, str] | None:
    """Names of two complete points to compare sample by sample; None if there are no two.

    By default the best point and its baseline, or the worst if it has none, on the benchmark with the most complete
    points. Raises ResultsError if a point in `asked` does not exist, or is not complete.
    """
    complete = frame[frame.status == COMPLETE]
    if asked is not None:
        known = list(complete.point)
        if unknown := [name for name in asked if name not in known]:
            raise ResultsError(f"job.pair: no complete point is named {unknown[0]}; there are {', '.join(known)}")
        return asked[0], asked[1]
    if complete.empty:
        return None
    rows = complete[complete.benchmark == complete.benchmark.mode().iloc[0]]
    rows = rows.sort_values("score", ascending=False, kind="stable")
    best, *names = rows.point
    if not names:
        return None
    baseline = rows.iloc[0].get("baseline")
    return best, baseline if baseline in names else names[-1]


def sample_views(first: str | Path, second: str | Path, most: int) -> list[dict[str, Any]]:
    """The samples on which two points (folders) differ most, for samples.html. The first knows where the clips are.

    Of each sample: `record` of the first point; `predictions` and `scores` of both; `options` with `text`, `right` and,
    for both, `chosen` and `likely` (probability, or None); `strips` of frames with `points` ("first", "second"),
    `frames` (index, data URI or None) and `seen`, the number of frames; `trouble` with the clip, or "".
    """
    files, reader = clip_files(Path(first)), manifest_part(first, "identity").get("reader")
    reader = reader if reader in READERS else READERS[0]
    differing = differing_samples(first, second, most)
    return [_view(records, files.get(str(records[0]["clip"])), reader) for records in differing]


def _view(records: Two, clip: Path | None, reader: str) -> dict[str, Any]:
    seen = [[int(index) for index in record.get("frame_indices", ())] for record in records]
    pictures: dict[int, str] = {}
    trouble = "it was not recorded where the clip lies" if clip is None else ""
    if clip is not None:
        try:
            pictures = thumbnails(clip, [*spread(seen[0]), *spread(seen[1])], reader)
        except UnreadableClipError as error:
            trouble = f"the clip cannot be read here: {error.reason}"
    strips = {("first",): seen[0], ("second",): seen[1]} if seen[0] != seen[1] else {("first", "second"): seen[0]}
    return {
        "record": records[0],
        "predictions": [str(record["prediction"]) for record in records],
        "scores": [record["score"] for record in records],
        "options": [_option(place, text, records) for place, text in enumerate(records[0]["options"])],
        "strips": [
            {"points": points, "frames": [(i, pictures.get(i)) for i in spread(indices)], "seen": len(indices)}
            for points, indices in strips.items()
        ],
        "trouble": trouble,
    }


def _option(place: int, text: str, records: Two) -> dict[str, Any]:
    logprobs = [record.get("option_logprobs") for record in records]
    return {
        "text": text,
        "right": text == records[0]["answer"],
        "chosen": [text == record.get("parsed", record["prediction"]) for record in records],
        "likely": tuple(exp(values[place]) if values else None for values in logprobs),
    }


def spread(indices: Sequence[int], most: int = MOST) -> list[int]:
    """At most so many of a clip's frame indices, evenly spread and with both ends."""
    if len(indices) <= most:
        return list(indices)
    return [indices[place * (len(indices) - 1) // (most - 1)] for place in range(most)]


def thumbnails(path: Path, indices: Sequence[int], reader: str) -> dict[int, str]:
    """Data URIs of small JPEG pictures, by frame index of the point's own reader. Raises UnreadableClipError."""
    from PIL import Image  # here: a report that is kept does not need it

    wanted = sorted(set(indices))
    try:
        with open_clip(path, reader) as clip:
            frames = clip.frames(wanted)
    except IndexError as error:
        raise UnreadableClipError(path, str(error)) from error
    uris = {}
    for index, picture in zip(wanted, map(Image.fromarray, frames), strict=True):
        content = io.BytesIO()
        picture.thumbnail((4 * HEIGHT, HEIGHT))
        picture.save(content, "JPEG", quality=QUALITY)
        uris[index] = data_uri("image/jpeg", content.getvalue())
    return uris


def data_uri(kind: str, content: bytes) -> str:
    """A picture that stands inside a page."""
    return f"data:{kind};base64,{b64encode(content).decode()}"
