"""The samples of a page: two points, the samples on which they differ, and the frames that they saw."""

import io
from base64 import b64encode
from collections.abc import Sequence
from math import exp
from pathlib import Path
from typing import Any

import pandas as pd

from videopool.config.errors import ConfigError
from videopool.reports.comparison import one_named
from videopool.reports.headline import headline_pair
from videopool.results import point_records
from videopool.results.comparison import flips
from videopool.results.point import clip_files, manifest_part
from videopool.results.records import OK
from videopool.results.study import rows_of, scores_by_sample
from videopool.video import READERS, UnreadableClipError, open_clip

SAMPLES = 10  # by default
HEIGHT, QUALITY = 96, 75  # of thumbnails, in pixels and of JPEG
MOST = 8  # frames of a clip

Two = tuple[dict[str, Any], dict[str, Any]]  # records of one sample in two points


def choose_pair(frame: pd.DataFrame, asked: Sequence[str] | None, headline: str = "") -> tuple[str, str] | None:
    """Names of two complete points to compare sample by sample; None if there are no two.

    asked: two names, or their unique beginnings. Otherwise the pair of the study's headline; or, on the benchmark with
    the most complete points, the best one that differs from its baseline, with that; or the best and the worst.
    Raises ConfigError if a point in `asked` does not exist, or is not complete.
    """
    complete = frame[frame.status == "complete"]
    if asked is not None:
        first, second = (one_named(name, list(complete.point), "job.pair") for name in asked)
        if first == second:
            raise ConfigError(f"job.pair: {asked[0]} and {asked[1]} are one point, {first}; name two")
        return first, second
    if pair := headline_pair(headline, complete):
        return pair
    if complete.empty:
        return None
    rows = complete[complete.benchmark == complete.benchmark.mode().iloc[0]]
    rows = rows.sort_values("score", ascending=False, kind="stable")
    for row in rows_of(rows):
        if row.get("baseline") in set(rows.point) and abs(row["difference"] or 0.0) > 0:
            return str(row["point"]), str(row["baseline"])
    best, *others = rows.point
    return (best, others[-1]) if others else None


def _right_logprob(record: dict[str, Any]) -> float:
    """Log-probability of the right option's letter; 0 for generated answers, or if no option is right."""
    values, options = record.get("option_logprobs"), record["options"]
    return values[options.index(record["answer"])] if values and record["answer"] in options else 0.0


def differing_samples(first: str | Path, second: str | Path, most: int) -> list[Two]:
    """Records of samples that two points (folders) answered differently, spread over tasks and directions.

    Other scores come before other probabilities of the right option, and tasks take turns; within a task, so do the
    directions (which point was better), then clips; then come the samples furthest apart.
    """
    ours, theirs = ({str(r["id"]): r for r in point_records(point) if r["status"] == OK} for point in (first, second))
    rows = []
    for name in sorted(ours.keys() & theirs.keys()):
        two = ours[name], theirs[name]
        score = float(two[0]["score"] or 0.0) - float(two[1]["score"] or 0.0)
        logprob = _right_logprob(two[0]) - _right_logprob(two[1])
        if score or logprob or two[0]["prediction"] != two[1]["prediction"]:
            better = (score or logprob) > 0
            rows.append((score == 0, -abs(score), -abs(logprob), two[0]["task"], better, two[0].get("clip"), two))
    table = pd.DataFrame(rows, columns=["same", "score", "logprob", "task", "better", "clip", "records"])
    table = table.sort_values(["score", "logprob"], kind="stable")
    for traits in (["clip"], ["task", "better"], ["task"]):
        turns = table.groupby(["same", *traits], dropna=False).cumcount()
        table = table.assign(turn=turns).sort_values("turn", kind="stable")
    return list(table.sort_values("same", kind="stable").records[:most])


def flip_counts(first: str | Path, second: str | Path) -> tuple[int, int] | None:
    """How many samples only the first point got right, and only the second; None for other than right and wrong."""
    ours, theirs = ({name: own.score for name, own in scores_by_sample(point).items()} for point in (first, second))
    both = ours.keys() & theirs.keys()
    counted = flips(*({name: scores[name] for name in both} for scores in (ours, theirs)))
    return None if counted is None else (len(counted.first), len(counted.second))


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
