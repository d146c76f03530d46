"""What an export says of its training, so that tables can tell trained points apart: data, steps, computation."""

from typing import Any

from videopool.config.errors import ConfigError
from videopool.models.cost import training_flops
from videopool.results import fingerprint
from videopool.training.batches import Encoder, Schedule
from videopool.training.point import TrainingPoint


class TrainingFacts:
    """Facts of a run up to a step; goes on from the step that it was asked about before.

    Args:
        point: the run's configuration.
        schedule: what each step sees.
    """

    def __init__(self, point: TrainingPoint, schedule: Schedule) -> None:
        self.point, self.schedule = point, schedule
        self._step, self._flops = 0, 0.0

    def upto(self, step: int) -> dict[str, Any]:
        """Facts behind a step.

        Returns:
            `clips` and `images` that the data has, held-out ones left out; `examples` shown, each time counted;
            `steps`; `tflops` of learning from them, see training_flops(); `data`, a hash of what is trained on.
        """
        if step < self._step:
            self._step, self._flops = 0, 0.0
        batch, sources = self.schedule.batch, self.schedule.mixture.sources
        for lesson in self.schedule.lessons(self._step * batch, (step - self._step) * batch):
            self._flops += _flops(self.point, lesson.example.kind, len(lesson.encoded.input_ids))
        self._step = step
        return {
            "clips": sum(source.media("video") for source in sources),
            "images": sum(source.media("image") for source in sources),
            "examples": step * batch,
            "steps": step,
            "tflops": round(self._flops / 1e12, 6),
            "data": fingerprint({source.name: source.digest for source in sources})[:12],
        }


def steps_within(point: TrainingPoint, encoder: Encoder) -> int:
    """Optimiser steps of a run: as its configuration says, or as many as training.tflops is enough for.

    Raises:
        ConfigError: it is not enough for one.
    """
    budget = point.settings["tflops"]
    if budget is None:
        return point.steps
    costs = []
    for place in range(point.split[0].length(1)):
        _, example = point.split[0].at(place)
        if (encoded := encoder(example)) is not None:
            costs.append(_flops(point, example.kind, len(encoded.input_ids)))
    step = sum(costs) / max(1, len(costs)) * int(point.settings["global_batch"])
    steps = round(budget * 1e12 / step) if costs else 0
    if steps < 1:
        raise ConfigError(f"training.tflops={budget:g} is not enough for one step, which takes {step / 1e12:.3g}")
    return steps


def _flops(point: TrainingPoint, kind: str, text: int) -> float:
    """Operations of learning from a conversation; one token of its text stands for the clip."""
    tokens = point.tokens_of(kind)
    patches = point.frames_of(kind) * point.shape.height * point.shape.width
    projected = patches if point.stage == "projector" else tokens
    return training_flops(point.shape, tokens + text - 1, projected, bool(point.settings["checkpoint_gradients"]))
