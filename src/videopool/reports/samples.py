"""The samples of a page: two points, the samples on which they differ, and the frames that they saw."""

import io
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from math import exp
from pathlib import Path
from typing import Any

import pandas as pd

from videopool.reports.headline import headline_pair
from videopool.results import ResultsError, point_records
from videopool.results.comparison import flips
from videopool.results.point import clip_files, manifest_part
from videopool.results.records import OK
from videopool.results.study import scores_by_sample
from videopool.video import READERS, UnreadableClipError, open_clip

SAMPLES = 10  # by default
HEIGHT, QUALITY = 96, 75  # of thumbnails, in pixels and of JPEG
MOST = 8  # frames of a clip

Two = tuple[dict[str, Any], dict[str, Any]]  # records of one sample in two points


def choose_pair(frame: pd.DataFrame, asked: Sequence[str] | None, headline: str = "") -> tuple[str, str] | None:
    """Names of two complete points to compare sample by sample; None if there are no two.

    asked: two names, or their unique beginnings. Otherwise the pair of the study's headline; or, on the benchmark with
    the most complete points, the best one that differs from its baseline, with that; or the best and the worst.
    Raises ResultsError if a point in `asked` does not exist, or is not complete.
    """
    complete = frame[frame.status == "complete"]
    if asked is not None:
        first, second = (_named(name, list(complete.point)) for name in asked)
        if first == second:
            raise ResultsError(f"job.pair: {asked[0]} and {asked[1]} are one point, {first}; name two")
        return first, second
    if pair := headline_pair(headline, complete):
        return pair
    if complete.empty:
        return None
    rows = complete[complete.benchmark == complete.benchmark.mode().iloc[0]]
    rows = rows.sort_values("score", ascending=False, kind="stable")
    for row in rows.to_dict("records"):
        if row.get("baseline") in set(rows.point) and abs(row["difference"] or 0.0) > 0:
            return str(row["point"]), str(row["baseline"])
    best, *others = rows.point
    return (best, others[-1]) if others else None


def _named(name: str, known: Sequence[str]) -> str:
    """The one known name that is, or begins with, a name. Raises ResultsError."""
    fitting = [own for own in known if own == name] or [own for own in known if own.startswith(name)]
    if len(fitting) != 1:
        problem = f"{len(fitting)} complete points are named" if fitting else "no complete point is named"
        raise ResultsError(f"job.pair: {problem} {name}; there are {', '.join(fitting or known) or 'none'}")
    return fitting[0]


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
    """Records of samples that two points (folders) answered differently, spread over tasks and directions.

    Other scores come before other probabilities. Next comes the task that has had the fewest samples so far, then the
    direction (which point was better), the answer and the clip that have; then the samples furthest apart.
    """
    ours, theirs = ({str(r["id"]): r for r in point_records(point) if r["status"] == OK} for point in (first, second))
    both = [(record, theirs[name]) for name, record in ours.items() if name in theirs]
    left = [(*_traits(records), records) for records in both if any(_apart(records))]
    left.sort(key=lambda sample: ([-value for value in _apart(sample[-1])], str(sample[-1][0]["id"])))
    chosen: list[Two] = []
    had: Counter[tuple[Any, ...]] = Counter()
    while left and len(chosen) < most:
        best = min(left, key=lambda sample: (sample[0], [had[trait] for trait in sample[1]]))
        left.remove(best)
        had.update(best[1])
        chosen.append(best[2])
    return chosen


def flip_counts(first: str | Path, second: str | Path) -> tuple[int, int] | None:
    """How many samples only the first point got right, and only the second; None for other than right and wrong."""
    ours, theirs = ({name: own.score for name, own in scores_by_sample(point).items()} for point in (first, second))
    both = ours.keys() & theirs.keys()
    counted = flips(*({name: scores[name] for name in both} for scores in (ours, theirs)))
    return None if counted is None else (len(counted.first), len(counted.second))


def _traits(records: Two) -> tuple[bool, list[tuple[Any, ...]]]:
    """Whether two answers have the same score; and a sample's task, direction, answer and clip, each with its kind."""
    first, task = records[0], records[0]["task"]
    scores = [(_score(record), _right_logprob(record) or 0.0) for record in records]
    better = (scores[0] > scores[1]) - (scores[0] < scores[1])
    return scores[0][0] == scores[1][0], [
        ("task", task),
        ("better", better),
        ("answer", task, str(first.get("question")), str(first.get("answer"))),
        ("clip", str(first.get("clip"))),
    ]


def _score(record: dict[str, Any]) -> float:
    return float(record["score"] or 0.0)


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
