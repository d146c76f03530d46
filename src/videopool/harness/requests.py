"""Requests of a harness as samples of a benchmark: one clip, one text, and perhaps continuations to compare."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videopool.benchmarks import Benchmark, Sample
from videopool.benchmarks.clip_folder import short_names
from videopool.errors import UserError
from videopool.files import whole_folder

PATHS = ("url", "path", "video", "video_path")  # of a clip that is given as a mapping
STARTS, ENDS = ("video_start", "start"), ("video_end", "end")  # seconds
# What harnesses write for a clip inside a text: the prompt of a model has a place of its own.
PLACEHOLDERS = ("<image>", "<video>")


class RequestError(UserError):
    """A request that no model of clips can answer."""


@dataclass(frozen=True)
class Request:
    """What one document of a task asks.

    Attributes:
        doc: the document's number in its split.
        text: the question as the task writes it.
        visual: what the task shows: a path, a mapping with a path and bounds, or PIL images, which are frames.
        continuations: texts whose likelihood is asked for; none: an answer is written.
        until: texts that end an answer.
    """

    task: str
    split: str
    doc: int
    text: str
    visual: Any
    continuations: tuple[str, ...] = ()
    max_new_tokens: int = 128
    until: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The document's name in messages."""
        return f"{self.task}, document {self.doc}"


@dataclass(frozen=True)
class Asked:
    """Requests that one point answers, and its benchmark: a sample per request, in their order."""

    requests: tuple[Request, ...]
    benchmark: Benchmark

    @property
    def settings(self) -> dict[str, object]:
        """The group `benchmark` of the point's configuration, for its manifest."""
        first, benchmark = self.requests[0], self.benchmark
        return {
            "_target_": f"{__name__}.asked",
            "id": benchmark.id,
            "task": first.task,
            "split": first.split,
            "scoring": benchmark.scoring,
            "max_new_tokens": benchmark.max_new_tokens,
        }


def asked(requests: Sequence[Request], images: Path) -> list[Asked]:
    """Requests by what one point can answer together: task, split, kind and length of answers.

    PIL images are kept below the folder `images`, under their content's hash. Raises RequestError for a request without
    a clip, or with several.
    """
    groups: dict[tuple[object, ...], list[Request]] = {}
    for one in requests:
        key = one.task, one.split, bool(one.continuations), one.max_new_tokens
        groups.setdefault(key, []).append(one)
    return [Asked(tuple(group), _benchmark(group, images)) for group in groups.values()]


def _benchmark(requests: Sequence[Request], images: Path) -> Benchmark:
    clips = [clip_of(one, images) for one in requests]
    names = short_names(path for path, _, _ in clips)
    first, seen = requests[0], Counter[int]()
    samples, lines = [], []
    for one, (path, start, end) in zip(requests, clips, strict=True):
        seen[one.doc] += 1
        number = str(one.doc) if seen[one.doc] == 1 else f"{one.doc}.{seen[one.doc]}"
        text = _without_placeholders(one.text)
        if not text.strip():
            raise RequestError(f"{one.where}: it has no question")
        samples.append(Sample(number, path, names[path], text, one.continuations, task=one.task, start=start, end=end))
        lines.append(json.dumps([number, text, one.continuations]))
    scoring = "cloze" if first.continuations else "generate"
    digest = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    identifier = f"lmms_eval_{first.task}/{first.split}"
    return Benchmark(identifier, first.split, samples, digest, scoring=scoring, max_new_tokens=first.max_new_tokens)


def _without_placeholders(text: str) -> str:
    for place in PLACEHOLDERS:
        text = text.replace(f"{place}\n", "").replace(place, "")
    return text


def clip_of(request: Request, images: Path) -> tuple[Path, float | None, float | None]:
    """The clip of a request, and where it starts and ends in seconds. Raises RequestError as asked()."""
    visual = request.visual
    parts = list(visual) if isinstance(visual, (list, tuple)) else [] if visual is None else [visual]
    if not parts:
        raise RequestError(f"{request.where}: it shows neither clip nor image; VideoPool answers questions on clips")
    if all(hasattr(part, "tobytes") and hasattr(part, "convert") for part in parts):
        return _frames(parts, images), None, None
    if len(parts) > 1:
        raise RequestError(f"{request.where}: it shows {len(parts)} clips; VideoPool answers questions on one clip")
    (part,) = parts
    start = end = None
    if isinstance(part, Mapping):
        start, end = (_seconds(part, names, request) for names in (STARTS, ENDS))
        part = next((part[name] for name in PATHS if part.get(name)), None)
    if not isinstance(part, (str, os.PathLike)):
        kind = type(part).__name__
        raise RequestError(f"{request.where}: its clip must be a path or images, got {kind}")
    return Path(os.path.abspath(part)), start, end


def _seconds(part: Mapping[str, Any], names: Sequence[str], request: Request) -> float | None:
    value = next((part[name] for name in names if part.get(name) is not None), None)
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        raise RequestError(f"{request.where}: {names[0]} must be seconds, got {value!r}") from None


def _frames(frames: Sequence[Any], images: Path) -> Path:
    """The folder of some PIL images, as frames."""
    pictures = [frame.convert("RGB") for frame in frames]
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(f"{picture.size}\0".encode() + picture.tobytes())
    folder = images / digest.hexdigest()[:32]
    if not folder.is_dir():
        with whole_folder(folder) as part:
            for number, picture in enumerate(pictures):
                picture.save(part / f"{number:05d}.png")
    return folder.absolute()
