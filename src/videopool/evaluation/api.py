"""Answer samples with a model behind an API."""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from videopool.benchmarks import Sample
from videopool.chat import RequestFailed, ask_all, image_part
from videopool.evaluation.contents import content_of
from videopool.evaluation.records import about, failed_record, read_answer
from videopool.evaluation.work import Work
from videopool.features import ClipJob
from videopool.inference.batches import group_by_clip
from videopool.points.api import ApiPoint
from videopool.pooling.tiling import tiled
from videopool.results import RecordLog
from videopool.results.point import TIMES
from videopool.results.times import Times
from videopool.runtime.interrupts import StopRequest
from videopool.runtime.terminal import progress_bar
from videopool.video import UnreadableClipError, open_clip

API_FAILED = "api_failed"


class Shown:
    """The images of one clip: made for its first question, forgotten after its last.

    Args:
        point: says which frames, and how they are shown.
        job: the clip and its questions.
    """

    def __init__(self, point: ApiPoint, job: ClipJob) -> None:
        self.point, self.job = point, job
        self.seconds, self.decoded = 0.0, 0
        self.content = ""  # hash of the clip's, once it is read
        self._left = len(job.samples)
        self._made: tuple[list[dict[str, object]], list[int]] | UnreadableClipError | None = None
        self._lock = threading.Lock()

    def images(self) -> tuple[list[dict[str, object]], list[int]]:
        """Parts of a message, and the frames in them. Raises UnreadableClipError if the clip cannot be read."""
        with self._lock:
            if self._made is None:
                started = time.perf_counter()
                try:
                    self._made = self._make()
                except UnreadableClipError as error:
                    self._made = error
                self.seconds += time.perf_counter() - started
            if isinstance(self._made, UnreadableClipError):
                raise self._made
            return self._made

    def _make(self) -> tuple[list[dict[str, object]], list[int]]:
        point, job = self.point, self.job
        self.content = content_of(job.clip)
        with open_clip(job.clip, point.config.job.reader, job.fps) as clip:
            indices = point.sampler.indices(clip.info, job.start, job.end, job.name)
            unique = sorted(set(indices))
            frames = clip.frames(unique)[[unique.index(index) for index in indices]]
        if content_of(job.clip) != self.content:
            raise UnreadableClipError(job.clip, "it was changed while it was read")
        self.decoded = len(unique)
        model = point.model
        shown = _grid(frames, model["rows"], model["cols"]) if model["view"] == "grid" else frames
        return [image_part(image, model["format"], model["quality"], model["max_side"]) for image in shown], indices

    def leave(self) -> None:
        """One question fewer."""
        with self._lock:
            self._left -= 1
            if not self._left:
                self._made = None


def _grid(frames: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Frames as one image [1, h, w, 3]; a clip that has fewer leaves the last places black."""
    lacking = rows * cols - len(frames)
    return tiled(np.concatenate([frames, np.zeros((lacking, *frames.shape[1:]), frames.dtype)]), rows, cols)


def answer_by_api(point: ApiPoint, missing: Sequence[Sample], log: RecordLog, stop: StopRequest) -> Work:
    """Append a record for each sample, as its answer comes.

    Raises:
        ChatError: the API cannot be used.
    """
    point.endpoint.require_key()
    endpoint, lock = point.endpoint, threading.Lock()
    clips = [Shown(point, job) for job in group_by_clip(missing)]
    tasks: Iterator[tuple[Shown, Sample]] = ((shown, sample) for shown in clips for sample in shown.job.samples)

    def write(shown: Shown, record: dict[str, Any]) -> None:
        with lock:
            log.append([{**record, "content": shown.content}])
        shown.leave()

    def attempt(task: tuple[Shown, Sample]) -> None:
        shown, sample = task
        try:
            images, indices = shown.images()
        except UnreadableClipError as error:
            write(shown, failed_record(sample, "unreadable_video", str(error)))
            return
        text = point.prompt.question_text(sample.question or point.prompt.describe, sample.options)
        message = {"role": "user", "content": [*images, {"type": "text", "text": text}]}
        reply = endpoint.complete([message], point.benchmark.max_new_tokens)
        record = {
            **about(sample),
            "prompt": point.prompt.hash(bool(sample.options)),
            "status": "ok",
            **read_answer(sample, reply.text, point.prompt, point.config.compat.scoring),
            "frame_indices": indices,
            "visual_tokens": None,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "answered_by": reply.model,
        }
        write(shown, record)

    started = time.perf_counter()
    asked = ask_all(
        "model", tasks, attempt, endpoint.concurrency, endpoint.retries, endpoint.backoff, lambda: stop.asked
    )
    try:
        with progress_bar(log.path.parent.name, len(missing)) as advance:
            for (shown, sample), failed in asked:
                if isinstance(failed, RequestFailed):
                    write(shown, failed_record(sample, API_FAILED, str(failed)))
                advance(1)
    finally:
        endpoint.close()
    decode = sum(shown.seconds for shown in clips)
    decoded = sum(shown.decoded for shown in clips)
    counts = {"frames_decoded": decoded, "frames_from_store": 0, "api_requests": endpoint.requests}
    seconds = {"decode": decode, "api": time.perf_counter() - started}
    left = sum(sample.id not in log.done for sample in missing)
    Times(log.path.with_name(TIMES)).add(len(missing) - left, seconds)
    return Work(seconds, decode, counts)
