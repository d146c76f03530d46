"""Presentation times of frames, from time stamps that may repeat, jump or be missing."""

from collections.abc import Sequence

import numpy as np

EVEN_SPACING = 0.5  # times this close to an even spacing, in frame durations, count as even
CLOCK_GAP = 10.0  # seconds; FFmpeg's -dts_delta_threshold, where a container's clock may jump


def clock_jumps(stamps: Sequence[int | None], tick: float, may_skip: bool) -> bool:
    """Whether clips were joined: the clock goes backwards or, with `may_skip`, far ahead.

    `stamps` are decoding time stamps in the file's order, in units of `tick` seconds.
    """
    steps = np.diff(np.array([stamp for stamp in stamps if stamp is not None], float)) * tick
    return bool((steps < 0).any() or (may_skip and (steps > CLOCK_GAP).any()))


def timeline(stamps: Sequence[int | None], tick: float, period: float, jumps: bool, may_skip: bool) -> np.ndarray:
    """Seconds [num_frames] from the first frame, never falling.

    Args:
        stamps: presentation time stamps in presentation order, in units of `tick` seconds; None where one is missing.
        period: seconds between frames, for missing stamps and where clips were joined.
        jumps: the clock jumps, so a joined clip goes on one period after the previous one. Otherwise, stamps out of
            order belong to the frames in ascending order.
        may_skip: a gap of CLOCK_GAP is a jump too.
    """
    known = [place for place, stamp in enumerate(stamps) if stamp is not None]
    if not known:
        return np.arange(len(stamps)) * period
    seconds = np.array([stamps[place] for place in known], float) * tick
    if jumps:
        steps = np.diff(seconds)
        joined = (steps < 0) | (may_skip & (steps > CLOCK_GAP))
        steps[joined] = period * np.diff(known)[joined]
        seconds = np.concatenate([seconds[:1], seconds[0] + np.cumsum(steps)])
    else:
        seconds = np.sort(seconds)
    before, after = np.arange(known[0], 0, -1) * period, np.arange(1, len(stamps) - known[-1]) * period
    between = np.interp(np.arange(known[0], known[-1] + 1), known, seconds)
    times = np.concatenate([seconds[0] - before, between, seconds[-1] + after])
    return times - times[0]


def rate_of(seconds: np.ndarray, nominal: float) -> tuple[float, bool]:
    """Frames per second of frames at `seconds` [num_frames]; and whether they are evenly spaced.

    The nominal rate (the container's, 0 if unknown) if frames are evenly spaced at it, else the mean rate.
    """
    span = float(seconds[-1])
    mean = (len(seconds) - 1) / span if span > 0 else nominal or 1.0
    fps = nominal or mean
    even = np.abs(seconds - np.arange(len(seconds)) / fps).max() <= EVEN_SPACING / fps
    return (fps if even else mean), bool(even)
