"""What determines the features that a point's tower makes."""

import hashlib
import json
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from omegaconf import DictConfig, OmegaConf

from videopool.config.build import build
from videopool.config.own_code import own_code
from videopool.features import FrameSource, software
from videopool.inference.load_plan import image_processor_of
from videopool.models import Backbone
from videopool.models.adapter import lora_scales
from videopool.results import fingerprint

MEDIA = "video"
# Of a tower's configuration: what does not change its numbers, or is said elsewhere.
NOT_COMPARED = ("transformers_version", "architectures", "dtype")

QUIET: dict[str, Any] = {"devices": 1, "strategy": "auto", "logger": False, "enable_checkpointing": False}

_hashes: WeakKeyDictionary[Backbone, dict[tuple[Any, ...], str]] = WeakKeyDictionary()


def frame_source(config: DictConfig, backbone: Backbone, media: str = MEDIA) -> FrameSource:
    """The source of a point's features.

    Args:
        config: of the point.
        backbone: its model.
        media: "video" or "image": which tower.
    """
    shape = backbone.shape
    if backbone.tower(media) is backbone.tower(MEDIA):
        media = MEDIA  # an image is a clip of one frame, and shares features with it
    device = next(backbone.tower(media).parameters()).device.type
    if not backbone.placed:
        # The trainer moves the model there when it runs.
        device = trainer_device(config).type
    tower = tower_hash(backbone, media)
    if code := own_code(config, ["model"]):  # a class of the user's may make other features of the same weights
        tower += f" read by {config.model._target_} {fingerprint(code)}"
    arithmetic = (device, config.model.attention, config.trainer.get("precision") or "32-true")
    return FrameSource(
        reader=str(config.job.reader),
        processor=processor_hash(image_processor_of(config, backbone)),
        tower=tower,
        media=media,
        layer=backbone.feature_layer,
        dtype=str(backbone.dtype).removeprefix("torch."),
        shape=(backbone.extra + shape.height * shape.width, shape.vision_dim),
        arithmetic=" ".join(map(str, arithmetic)),
        software=software(str(config.job.reader)),
        model=backbone.name,
    )


def trainer_device(config: DictConfig) -> torch.device:
    """The device that a point's trainer runs on."""
    return _root_device(OmegaConf.to_yaml(config.trainer, resolve=True))


@cache
def _root_device(trainer: str) -> torch.device:
    """That of a trainer by its node of the configuration (YAML)."""
    made = build(OmegaConf.create({"trainer": OmegaConf.create(trainer)}), "trainer", **QUIET)
    device: torch.device = made.strategy.root_device
    return device


def processor_hash(image_processor: Any) -> str:
    """SHA-256 of an image processor's class and settings."""
    settings = {"class": type(image_processor).__name__, **image_processor.to_dict()}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def tower_hash(backbone: Backbone, media: str = MEDIA) -> str:
    """SHA-256 of the tower's configuration, weights and LoRA scales as they are now; taken once for each state.

    Models that have one tower in common share it. Where weights are not in memory, the identity of the files
    that they are from stands for them.
    """
    state = (media, backbone.identity, backbone.dtype, tuple(lora_scales(backbone.tower(media)).items()))
    kept = _hashes.setdefault(backbone, {})
    if state not in kept:
        kept[state] = _hash(backbone, media)
    return kept[state]


def _hash(backbone: Backbone, media: str) -> str:
    tower: Any = backbone.tower(media)
    settings = tower.config.to_dict().items()
    settings = {name: value for name, value in settings if name[0] != "_" and name not in NOT_COMPARED}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    if scales := lora_scales(tower):
        digest.update(json.dumps(scales, sort_keys=True).encode())
    for name, weight in sorted(tower.state_dict().items()):
        if weight.is_meta:
            return f"tower of {backbone.identity}" + (f", LoRA {digest.hexdigest()}" if scales else "")
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}\0".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
