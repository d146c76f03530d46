"""Which frames of a clip a model sees."""

import hashlib
from abc import ABC, abstractmethod
from itertools import cycle, islice, pairwise

import numpy as np

from videopool.errors import UserError
from videopool.video.clip import ClipBoundsError, ClipInfo

TICK = 0.002  # seconds; tolerance for files that round times to milliseconds


class FrameSamplingError(UserError, ValueError):
    """A sampler's settings make no sense."""


def bounds_to_span(info: ClipInfo, start: float | None, end: float | None, path: str = "clip") -> tuple[int, int]:
    """First and last frame (0-based, inclusive) between two bounds in seconds, cut to the clip.

    With even spacing a bound of t seconds is frame round(t * fps), halves to even, as in PLLaVA's evaluation; frame
    numbers count from info.first_index. With uneven spacing the time stamps decide. Raises ClipBoundsError if the
    stretch is empty or lies outside the clip.
    """
    last = info.num_frames - 1
    if start is None and end is None:
        return 0, last
    begin = -np.inf if start is None else float(start)
    finish = np.inf if end is None else float(end)
    if np.isnan(begin) or np.isnan(finish) or begin > finish:
        raise ClipBoundsError(path, f"start {start} s comes after end {end} s")
    if info.timestamps is not None:
        inside = np.flatnonzero((info.timestamps >= begin - 1e-6) & (info.timestamps <= finish + 1e-6))
        if len(inside):
            return int(inside[0]), int(inside[-1])
        if begin <= info.timestamps[-1] + 1 / info.fps and finish >= 0:
            # Between two frames, the earlier one is on the screen.
            index = int(np.searchsorted(info.timestamps, begin, side="right")) - 1
            return index, index
        raise ClipBoundsError(path, f"{start}..{end} s lies outside the clip (0..{info.timestamps[-1]:.2f} s)")
    low = 0 if np.isinf(begin) else max(0, round(begin * info.fps) - info.first_index)
    high = last if np.isinf(finish) else min(last, round(finish * info.fps) - info.first_index)
    if low > last or high < low:
        raise ClipBoundsError(path, f"{start}..{end} s lies outside the clip (0..{last / info.fps:.2f} s)")
    return low, high


class Sampler(ABC):
    """Chooses `num` frame indices from a clip's length and timing, without reading it.

    Raises FrameSamplingError for settings that make no sense.
    """

    def __init__(self, num: int = 16) -> None:
        if isinstance(num, bool) or not isinstance(num, int) or num < 1:
            raise FrameSamplingError(f"frames.num must be a positive integer, got {num!r}")
        self.num = num

    def indices(
        self, info: ClipInfo, start: float | None = None, end: float | None = None, key: str = "clip"
    ) -> list[int]:
        """Frame indices, repeated where the clip is shorter than num. Ascending, except for CyclingSampler.

        Args:
            start, end: bounds in seconds, or None. Raises ClipBoundsError if they lie outside the clip.
            key: the clip's name, for errors and a random sampler's seed.
        """
        first, last = bounds_to_span(info, start, end, key)
        return [min(max(int(i), first), last) for i in self.choose_in(info, first, last, key)]

    def choose_in(self, info: ClipInfo, first: int, last: int, key: str) -> list[int]:
        """Indices in first..last (inclusive). Samplers that use frame times override this in place of choose()."""
        return self.choose(first, last, info.fps, key)

    @abstractmethod
    def choose(self, first: int, last: int, fps: float, key: str) -> list[int]:
        """Indices in first..last (inclusive)."""


class UniformSampler(Sampler):
    """The middle of each of num equal segments: PLLaVA's evaluation (tasks/eval/eval_utils.py, get_index)."""

    def choose(self, first: int, last: int, fps: float, key: str) -> list[int]:
        segment = float(last - first) / self.num
        return [int(first + segment / 2 + np.round(segment * i)) for i in range(self.num)]


class CyclingSampler(UniformSampler):
    """UniformSampler's frames once each, then from the start again: PLLaVA's evaluation on GIFs shorter than num."""

    def choose(self, first: int, last: int, fps: float, key: str) -> list[int]:
        once = list(dict.fromkeys(super().choose(first, last, fps, key)))
        return [once[i % len(once)] for i in range(self.num)]


class MiddleSampler(Sampler):
    """One frame of each of num equal intervals: PLLaVA's training (dataset/video_utils.py, get_frame_indices).

    Intervals end at whole frames. A clip shorter than num shows each frame once, then repeats the last. The frame is
    `fix_start` frames after the start of its interval; None for its middle.
    """

    def __init__(self, num: int = 16, fix_start: int | None = None) -> None:
        super().__init__(num)
        if fix_start is not None and (isinstance(fix_start, bool) or not isinstance(fix_start, int) or fix_start < 0):
            raise FrameSamplingError(f"frames.fix_start must be null or a number of frames, got {fix_start!r}")
        self.fix_start = fix_start

    def choose(self, first: int, last: int, fps: float, key: str) -> list[int]:
        length = last - first + 1
        edges = np.linspace(0, length, min(self.num, length) + 1)
        if self.fix_start is None:
            chosen = [first + (int(a) + int(b) - 1) // 2 for a, b in pairwise(edges)]
        else:
            chosen = [first + int(a) + self.fix_start for a in edges[:-1]]
        return chosen + chosen[-1:] * (self.num - len(chosen))


class LinspaceSampler(Sampler):
    """num evenly spaced frames from the first to the last; for num=1, the first."""

    def choose(self, first: int, last: int, fps: float, key: str) -> list[int]:
        return [round(float(i)) for i in np.linspace(first, last, self.num)]


class NestedSampler(Sampler):
    """Evenly spread frames that contain those of every smaller num.

    The first num frames of one sequence, in order of time. Its j-th lies at 1/3 + v(j), modulo 1, of the clip; v is the
    van der Corput sequence 0, 1/2, 1/4, 3/4, 1/8, ... (Niederreiter 1992, Random Number Generation and Quasi-Monte
    Carlo Methods, chapter 3). For num=2^k the spacing is even, and each frame lies a third or two thirds into its
    segment; up to 2^(k+1), each of those 2^k segments shows one frame or two. Clips shorter than num show every frame.
    """

    def choose(self, first: int, last: int, fps: float, key: str) -> list[int]:
        length = last - first + 1
        bits = (length - 1).bit_length()
        order: dict[int, None] = {}  # each frame once: short clips get some again
        for place in range(2**bits):
            reversed_bits = int(f"{place:0{bits}b}"[::-1], 2)  # v = reversed_bits / 2^bits
            order[first + length * (2**bits + 3 * reversed_bits) // (3 * 2**bits) % length] = None
            if len(order) == self.num:
                break
        return sorted(islice(cycle(order), self.num))


class InteriorSampler(Sampler):
    """num evenly spaced frames without the ends: a linspace of num + 2 frames without its ends (IG-VLM)."""

    def choose(self, first: int, last: int, fps: float, key: str) -> list[int]:
        return [int(i) for i in np.linspace(first, last, self.num + 2)[1:-1]]


class FpsSampler(Sampler):
    """One frame every 1 / rate seconds, by time stamps where spacing is uneven; thinned evenly to num, or else `most`.

    A frame that stays on the screen for several periods counts once. `centred` takes the middle of each period, as in
    PLLaVA's training, instead of its first frame; a clip shorter than half a period then shows its middle frame.
    """

    def __init__(self, num: int = 16, rate: float = 1.0, centred: bool = False, most: int | None = None) -> None:
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise FrameSamplingError(f"frames.most must be null or a positive integer, got {most!r}")
        super().__init__(num if most is None else most)
        if not rate > 0:
            raise FrameSamplingError(f"frames.rate must be above 0 frames per second, got {rate!r}")
        self.rate = rate
        self.centred = centred

    def choose_in(self, info: ClipInfo, first: int, last: int, key: str) -> list[int]:
        if info.timestamps is None:
            return self.choose(first, last, info.fps, key)
        times = info.timestamps[first : last + 1]
        start = times[0] + (0.5 / self.rate if self.centred else 0.0)
        # Number of periods begun before each frame. A frame is chosen if a period begins while it is on the screen.
        begun = np.maximum(np.ceil((times - start - TICK) * self.rate), 0)
        all_begun = np.floor((times[-1] - start + TICK) * self.rate) + 1
        chosen = first + np.flatnonzero(begun < np.append(begun[1:], all_begun))
        if not len(chosen):
            chosen = first + np.searchsorted(times, [(times[0] + times[-1]) / 2 + TICK], side="right") - 1
        return self._thinned([int(i) for i in chosen])

    def choose(self, first: int, last: int, fps: float, key: str) -> list[int]:
        if self.centred and fps > self.rate:
            # In seconds: counted in frames, halves would round differently from the reference.
            period = 1 / self.rate
            seconds = np.arange(period / 2, (last - first + 1) / fps + period / 2, period)
            frames = [first + int(i) for i in np.round(seconds * fps)]
            chosen = [i for i in frames if i <= last] or [(first + last) // 2]
        else:
            chosen = [int(i) for i in np.arange(first, last + 1, max(1.0, fps / self.rate))]
        return self._thinned(chosen)

    def _thinned(self, chosen: list[int]) -> list[int]:
        if len(chosen) <= self.num:
            return chosen
        return [chosen[round(float(i))] for i in np.linspace(0, len(chosen) - 1, self.num)]


class RandomSampler(Sampler):
    """A random frame of each of num equal segments, for training; seed and the clip's key alone determine the draw."""

    def __init__(self, num: int = 16, seed: int = 0) -> None:
        super().__init__(num)
        self.seed = seed

    def choose(self, first: int, last: int, fps: float, key: str) -> list[int]:
        digest = hashlib.sha256(f"{self.seed}\0{key}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        edges = np.linspace(first, last + 1, self.num + 1)
        return [int(rng.integers(int(a), max(int(a) + 1, int(b)))) for a, b in pairwise(edges)]
