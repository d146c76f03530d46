"""Backbones: image-to-text models behind one small interface; what they need is imported when it is used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from videopool.models.errors import ModelError

if TYPE_CHECKING:
    from videopool.models.adapter import attach, set_alpha
    from videopool.models.backbone import Backbone
    from videopool.models.checkpoint import AdapterCheckpoint, load_adapter
    from videopool.models.configuration import load_config
    from videopool.models.cost import prefill_flops
    from videopool.models.families import FAMILIES
    from videopool.models.loading import load_backbone
    from videopool.models.module import VideoLM
    from videopool.models.shape import ModelShape, model_shape
    from videopool.models.source import identity

__all__ = [
    "FAMILIES",
    "AdapterCheckpoint",
    "Backbone",
    "ModelError",
    "ModelShape",
    "VideoLM",
    "attach",
    "identity",
    "load_adapter",
    "load_backbone",
    "load_config",
    "model_shape",
    "prefill_flops",
    "set_alpha",
]
_PLACES = {
    "adapter": ("attach", "set_alpha"),
    "checkpoint": ("AdapterCheckpoint", "load_adapter"),
    "backbone": ("Backbone",),
    "configuration": ("load_config",),
    "cost": ("prefill_flops",),
    "families": ("FAMILIES",),
    "source": ("identity",),
    "loading": ("load_backbone",),
    "module": ("VideoLM",),
    "shape": ("ModelShape", "model_shape"),
}


def __getattr__(name: str) -> Any:
    for module, names in _PLACES.items():
        if name in names:
            value = getattr(import_module(f"videopool.models.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
