"""Recordings of what public code of compression methods returned: inputs by recipe, outputs by number."""

import hashlib
import json
from functools import lru_cache

import numpy as np
import pytest
import torch

from conftest import GOLDENS

FOLDER = GOLDENS / "compression"


def recorded(method):
    """The cases of a method, each with its outputs, or one that skips where the recordings are absent."""
    if not (FOLDER / method / "cases.json").exists():
        why = f"no recordings of {method} below VIDEOPOOL_GOLDENS ({FOLDER})"
        return [pytest.param(None, id="absent", marks=pytest.mark.skip(reason=why))]
    cases = json.loads((FOLDER / method / "cases.json").read_text())["cases"]
    return [pytest.param({**case, "folder": FOLDER / method}, id=case["name"]) for case in cases]


OPEN: dict = {}


def outputs(case, name):
    """An array that was recorded with a case."""
    file = case["folder"] / "outputs.npz"
    if file not in OPEN:
        OPEN[file] = np.load(file)
    return OPEN[file][f"{case['name']}.{name}"]


def checked(values, digest):
    assert hashlib.sha256(np.ascontiguousarray(values, np.float32).tobytes()).hexdigest() == digest
    return values


def normal(seed, shape):
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def attention(kind, seed, shape):
    logits = 2 * np.random.RandomState(seed).standard_normal(shape)
    if kind == "uniform":
        logits = logits * 0
    elif kind in ("ties", "rounded"):
        logits = np.rint(logits)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def frame_vectors(kind, seed, frames):
    rs = np.random.RandomState(seed)
    if kind == "wild":
        found = rs.standard_normal((frames, 6))
    elif kind == "slow":
        found = rs.standard_normal((1, 6)) + 0.15 * rs.standard_normal((frames, 6))
    elif kind == "shots":
        shots = rs.standard_normal((-(-frames // 4), 6))
        found = shots[np.arange(frames) // 4] + 0.1 * rs.standard_normal((frames, 6))
    else:
        found = np.repeat(rs.standard_normal((1, 6)), frames, 0)
    return found.astype(np.float32)


def make_grid(kind, seed, shape):
    """[T, H, W, D], float32."""
    frames, height, width, dim = shape
    rs = np.random.RandomState(seed)
    n = lambda *size: rs.standard_normal(size)  # noqa: E731
    times = np.arange(frames)
    if kind == "random":
        x = n(*shape)
    elif kind == "drift":
        base = n(height, width, dim)
        x = base[None] + 0.5 * n(*shape)
    elif kind == "scenes":
        base, noise = n(-(-frames // 3), height, width, dim), n(*shape)
        amplitude = (0.05 + 1.5 * np.arange(height * width) / (height * width)).reshape(height, width, 1)
        x = base[times // 3] + amplitude * noise
    elif kind == "smooth":
        mean, low, noise = 2.0 * n(dim), n(-(-height // 2), -(-width // 2), dim), n(*shape)
        x = mean + np.repeat(np.repeat(low, 2, 0), 2, 1)[:height, :width][None] + 0.4 * noise
    elif kind == "static":
        x = np.repeat(n(1, height, width, dim), frames, 0)
    elif kind == "moving":
        h, w = max(1, height // 2), max(1, width // 2)
        background, block = n(height, width, dim), n(h, w, dim)
        x = np.repeat(background[None], frames, 0)
        for t in times:
            row, col = t % (height - h + 1), t % (width - w + 1)
            x[t, row : row + h, col : col + w] = block
    elif kind == "dup":
        x = n(-(-frames // 2), height, width, dim)[times // 2]
    elif kind == "zeros":
        x = n(*shape)
        x[:, 0, 0] = 0
        x[times, times % height, (2 * times + 1) % width] = 0
    elif kind == "outlier":
        x = n(*shape)
        even = times[::2]
        x[even, even % height, (even + 1) % width] *= 40
    elif kind in ("corner", "constant"):
        x = np.broadcast_to(n(dim), shape).copy()
        if kind == "corner":
            x[:, 0, 0] *= -1
    else:
        assert kind == "ties", kind
        x = rs.randint(-1, 2, size=shape).astype(np.float64)
    return x.astype(np.float32)


def grid_of(case, dtype=torch.float64):
    """The case's patch grid [1, T, H, W, D]."""
    about = case["grid"]
    if "values" in about:
        return torch.from_numpy(about["values"].reshape(about["shape"])).to(dtype)[None]
    return torch.from_numpy(_grid(about["kind"], about["seed"], tuple(about["shape"]), about["sha256"])).to(dtype)[None]


@lru_cache(4)
def _grid(kind, seed, shape, digest):
    return checked(make_grid(kind, seed, shape), digest)
