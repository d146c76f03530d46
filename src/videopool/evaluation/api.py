"""Answer samples with a model behind an API."""

import threading
import time
from collections.abc import Sequence

import numpy as np

from videopool.benchmarks import Sample
from videopool.chat import RequestFailed, TooLong, ask_all, image_part
from videopool.evaluation.contents import content_of
from videopool.evaluation.records import UNREADABLE, AnswerCost, failed_record, read_answer, sample_fields, too_long
from videopool.features import ClipJob
from videopool.inference.read_plan import group_by_clip
from videopool.points.api import ApiPoint
from videopool.pooling.tiling import tiled
from videopool.results import RecordLog
from videopool.results.point import TIMES
from videopool.results.records import Times
from videopool.runtime.interrupts import StopRequest
from videopool.runtime.progress import progress
from videopool.video import UnreadableClipError, open_clip

API_FAILED = "api_failed"

Images = tuple[list[dict[str, object]], list[int]]  # parts of a message, and the frames in them


class ClipImages:
    """The images of one clip, made for its first question and freed after its last."""

    def __init__(self, point: ApiPoint, job: ClipJob) -> None:
        self.point, self.job = point, job
        self.seconds, self.decoded = 0.0, 0
        self.content = ""  # hash of the clip's content, once it is read
        self._left = len(job.samples)
        self._made: Images | UnreadableClipError | None = None
        self._lock = threading.Lock()

    def images(self) -> Images:
        """The images and the indices of their frames. Raises UnreadableClipError."""
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

    def _make(self) -> Images:
        job, model = self.job, self.point.model
        self.content = content_of(job.clip)
        with open_clip(job.clip, self.point.config.job.reader, job.fps) as clip:
            indices = self.point.sampler.indices(clip.info, job.start, job.end, job.name)
            unique = sorted(set(indices))
            frames = clip.frames(unique)[[unique.index(index) for index in indices]]
        if content_of(job.clip) != self.content:
            raise UnreadableClipError(job.clip, "it was changed while it was read")
        self.decoded = len(unique)
        if model["view"] == "grid":
            rows, cols = model["rows"], model["cols"]
            black = np.zeros((rows * cols - len(frames), *frames.shape[1:]), frames.dtype)
            frames = tiled(np.concatenate([frames, black]), rows, cols)  # [1, height, width, 3]
        return [image_part(frame, model["format"], model["quality"], model["max_side"]) for frame in frames], indices

    def leave(self) -> None:
        """Count one question less."""
        with self._lock:
            self._left -= 1
            if not self._left:
                self._made = None


def answer_by_api(point: ApiPoint, missing: Sequence[Sample], log: RecordLog, stop: StopRequest) -> AnswerCost:
    """Append a record for each sample, as its answer comes. Raises ChatError if the API cannot be used."""
    endpoint, lock = point.endpoint, threading.Lock()
    endpoint.require_key()
    clips = [ClipImages(point, job) for job in group_by_clip(missing)]
    tasks = ((clip, sample) for clip in clips for sample in clip.job.samples)

    def write(clip: ClipImages, record: dict[str, object]) -> None:
        with lock:
            log.append([{**record, "content": clip.content}])
        clip.leave()

    def attempt(task: tuple[ClipImages, Sample]) -> None:
        clip, sample = task
        try:
            images, indices = clip.images()
        except UnreadableClipError as error:
            write(clip, failed_record(sample, UNREADABLE, str(error)))
            return
        text = point.prompt.question_text(sample.question or point.prompt.describe, sample.options)
        message = {"role": "user", "content": [*images, {"type": "text", "text": text}]}
        reply = endpoint.complete([message], point.benchmark.max_new_tokens)
        record = {
            **sample_fields(sample),
            "prompt": point.prompt.hash(bool(sample.options)),
            "status": "ok",
            **read_answer(sample, reply.text, point.prompt, point.config.compat.scoring),
            "frame_indices": indices,
            "visual_tokens": None,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "answered_by": reply.model,
        }
        write(clip, record)

    started = time.perf_counter()
    asked = ask_all(
        "model", tasks, attempt, endpoint.concurrency, endpoint.retries, endpoint.backoff, lambda: stop.asked
    )
    try:
        with progress("asking the model", len(missing)) as advance:
            for (clip, sample), failed in asked:
                if isinstance(failed, TooLong):
                    write(clip, too_long(sample, failed.tokens, failed.limit, str(failed)))
                elif isinstance(failed, RequestFailed):
                    write(clip, failed_record(sample, API_FAILED, str(failed)))
                advance(1)
    finally:
        endpoint.close()
    decode, decoded = sum(clip.seconds for clip in clips), sum(clip.decoded for clip in clips)
    counts = {"frames_decoded": decoded, "frames_from_store": 0, "api_requests": endpoint.requests}
    seconds = {"decode": decode, "api": time.perf_counter() - started}
    answered = sum(sample.id in log.done for sample in missing)
    Times(log.path.with_name(TIMES)).add(answered, seconds)
    return AnswerCost(seconds, decode, counts)
