"""The part rates of job=speed: operations per second of the model's parts, against bare products of their matrices."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from videopool.models import Backbone, prefill_flops
from videopool.models.cost import tower_flops
from videopool.models.tower_outputs import blocks_of
from videopool.reading.answers import greedy_answers, next_token_logits, prefill
from videopool.speed.bench import Bench, Line
from videopool.speed.timing import medians

BEFORE, QUESTION = 32, 40  # tokens of a prompt before its visual tokens, and of a question


class Work(NamedTuple):
    """A part of the model at work."""

    run: Callable[[], Any]
    flops: float  # as models.cost counts them
    layers: Iterable[nn.Module]  # whose matrices it multiplies ...
    rows: int  # ... with so many rows
    label: str
    base: Callable[[], Any] | None = None  # the same with `times` of these operations less
    times: int = 1


def rates(bench: Bench, line: Line) -> dict[str, Any]:
    """Part h: tower, prefill, question rows and decoding, each beside torch.matmul of the same shapes, in turns.

    `share` is the part's operations per second over those of the products, which use the model's own matrices. A step
    of decoding is the difference between answers of one token and of several.
    """
    settings, model = bench.size["rates"], bench.backbone
    step, side = line("rates", 1), int(settings["side"])
    square = torch.randn(side, side, device=model.device, dtype=model.dtype)
    many, rows = square.repeat(16, 1), list[dict[str, Any]]()  # more than caches hold
    with torch.inference_mode(), without_end(model):
        works = dict(works_of(model, settings))
        timed: dict[str, Callable[[], Any]] = {"square": lambda: square @ square, "copy": many.clone}
        for name, work in works.items():
            bases = {} if work.base is None else {f"{name} base": work.base}
            timed |= {name: work.run, **bases, f"{name} products": products(model, work)}
        spent = medians(timed, int(bench.config.job.repeats))
    step()
    for name, work in works.items():
        seconds = max(1e-9, spent[name] - spent.get(f"{name} base", 0.0)) / work.times
        flops = sum(2 * work.rows * own.weight.numel() for own in _matrices(work))
        own, bare = work.flops / seconds, flops / spent[f"{name} products"]
        rows.append({
            "what": name, "label": work.label, "seconds": seconds, "tflops": own / 1e12, "product_tflops": bare / 1e12,
            "share": own / bare,
        })  # fmt: skip
    return {
        "side": side, "square_tflops": 2 * side**3 / spent["square"] / 1e12,
        "copy_gb_per_second": 2 * many.nbytes / spent["copy"] / 1e9, "rows": rows,
    }  # fmt: skip


def works_of(model: Backbone, settings: dict[str, Any]) -> Iterator[tuple[str, Work]]:
    """The parts of a model by name, on random inputs; settings as in job.sizes.tiny.rates."""
    shape, device, dtype = model.shape, model.device, model.dtype
    llm, before, frames = model.language_model.layers, [0] * BEFORE, int(settings["frames"])
    tower: Any = model.tower("video")
    pixels = torch.randn(frames, 3, shape.image_size, shape.image_size, device=device, dtype=dtype)
    positions, width = frames * shape.tower_rows, (1 + shape.levels) * shape.dim  # with DeepStack's levels
    run = blocks_of(tower)[: shape.vision_layers_run]
    yield "tower", Work(lambda: model.features(pixels), tower_flops(shape, frames), run, positions, f"{frames} frames")
    for count in settings["tokens"]:
        clips = max(1, int(settings["batch"]) // count)
        tokens = torch.randn(clips, count, width, device=device, dtype=dtype)
        length = BEFORE + count
        work = Work(
            partial(prefill, model, before, tokens), clips * prefill_flops(shape, length), llm, clips * length,
            f"{clips} x {count} visual tokens",
        )  # fmt: skip
        yield f"prefill {count}", work
    asked, count = int(settings["asked"]), int(settings["prefix"])
    questions = [[[number, *[1] * (QUESTION - 1)] for number in range(asked)]]  # which share no beginning
    prefix = prefill(model, before, torch.randn(1, count, width, device=device, dtype=dtype))
    length, label = prefix.length, f"{asked} questions behind {count} visual tokens"

    def read() -> None:
        next_token_logits(model, prefix, questions)
        prefix.cache.crop(-asked * QUESTION)

    yield "questions", Work(read, prefill_flops(shape, asked * QUESTION, length), llm, asked * QUESTION, label)

    def write(tokens: int) -> None:
        greedy_answers(model, deepcopy(prefix), questions, tokens)

    times = int(settings["written"])  # tokens behind the first, in one row for all answers
    step = prefill_flops(shape, asked, length + asked * QUESTION + asked * (times - 1) // 2)
    yield (
        "decoding",
        Work(partial(write, 1 + times), step, llm, asked, f"{asked} answers at once", partial(write, 1), times),
    )


@contextmanager
def without_end(model: Backbone) -> Iterator[None]:
    """Answers that no token ends: all are as long as they may be."""
    kept, model.end_ids = model.end_ids, frozenset({-1})
    try:
        yield
    finally:
        model.end_ids = kept


def _matrices(work: Work) -> list[nn.Linear]:
    return [own for layer in work.layers for own in layer.modules() if isinstance(own, nn.Linear)]


def products(model: Backbone, work: Work) -> Callable[[], None]:
    """The products of the rows with each matrix, and nothing else."""
    matrices = _matrices(work)
    widths = {own.in_features for own in matrices}
    inputs = {width: torch.randn(work.rows, width, device=model.device, dtype=model.dtype) for width in widths}

    def run() -> None:
        for own in matrices:
            torch.matmul(inputs[own.in_features], own.weight.T)

    return run
