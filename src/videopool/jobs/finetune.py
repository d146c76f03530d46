"""job=finetune: train LoRA and the projector under one pooling, export the weights, evaluate them."""

import gc
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, open_dict

from videopool.benchmarks.errors import listed
from videopool.config.build import plain
from videopool.evaluation.contents import ClipStates, ends_of
from videopool.jobs import evaluate
from videopool.points.lifecycle import folder_of
from videopool.runtime.log import say
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.runtime.ranks import SHARDING
from videopool.training.point import EXPORT, TrainingPoint
from videopool.training_data import TrainingDataError


def run(config: DictConfig) -> Outcome:
    """Train, or resume, or find the training finished; then evaluate the export, if job.evaluate is true."""
    point = TrainingPoint(config)
    tested = evaluate.prepare(evaluation(config, None)) if config.job.evaluate else None
    torch.manual_seed(point.seed)
    identity = point.identity()
    folder = folder_of(config, point.name, identity)
    media = {f"{source.name}/{example.name}": example.media for source in point.sources for example in source.examples}
    states = ClipStates(folder, media)

    def keep_media() -> None:
        if config.force or not states.kept("ends"):
            states.keep({name: ends_of(path) for name, path in media.items()})

    # Steps cannot be taken back.
    if changed := [] if config.force else states.changed(states.kept("ends"), ends_of):
        media_now = f"media with other contents than when the training began: {len(changed)} ({listed(changed)})"
        advice = "say force=true to train anew, or study=... to keep this run"
        raise TrainingDataError(f"{folder.path.name}: {media_now}; {advice}")
    fresh, message = config.force or not folder.finished, "finished before"
    if fresh:
        from videopool.training.run import train_point  # which imports Lightning

        point.check()
        if tested is not None:
            tested.check()
        message = train_point(point, folder, identity, keep_media)
    if config.job.evaluate:
        gc.collect()  # the trained model, which a reference cycle of Lightning's trainer holds
        say(f"        {folder.path.name}: {message}; evaluating")
        return evaluate.run(evaluation(config, folder.path / EXPORT))
    return Outcome(COMPLETE, folder.path.name, message, str(folder.path), fresh=fresh)


def tell(config: DictConfig, outcome: Outcome) -> None:
    """Print the scores of the exported weights, if they were evaluated."""
    if config.job.evaluate:
        evaluate.tell(config, outcome)


def sum_up(config: DictConfig, outcomes: Sequence[dict[str, Any]]) -> None:
    """Write the report of the points that evaluate the exported weights."""
    if config.job.evaluate:
        evaluate.sum_up(config, outcomes)


def evaluation(config: DictConfig, checkpoint: Path | None) -> DictConfig:
    """The configuration that evaluates exported weights, or the base's, under the pooling of their training."""
    job = plain(config.job.evaluation)
    config = deepcopy(config)
    with open_dict(config):
        config.frames, config.job = job["frames"], job["job"]
        config.lora.checkpoint, config.lora.alpha = checkpoint and str(checkpoint), None
        if str(config.trainer.strategy).startswith(SHARDING):  # of training
            config.trainer.strategy, config.trainer.devices = "auto", 1
        config.force = False
        del config["training"], config["training_data"]
    return config
