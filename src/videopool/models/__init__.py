"""Backbones: image-to-text models behind one interface."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from videopool.models.backbone import Backbone
from videopool.models.checkpoint import AdapterCheckpoint, load_adapter
from videopool.models.configuration import load_config
from videopool.models.cost import prefill_flops
from videopool.models.errors import ModelError
from videopool.models.families import FAMILIES
from videopool.models.lora import attach, set_alpha
from videopool.models.shape import ModelShape, model_shape
from videopool.models.source import identity

if TYPE_CHECKING:
    from videopool.models.loading import load_backbone

__all__ = [
    "FAMILIES", "AdapterCheckpoint", "Backbone", "ModelError", "ModelShape", "attach", "identity",
    "load_adapter", "load_backbone", "load_config", "model_shape", "prefill_flops", "set_alpha",
]  # fmt: skip
_LATER = {"load_backbone": "loading"}  # transformers takes seconds to import


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals().setdefault(name, getattr(import_module(f"videopool.models.{_LATER[name]}"), name))
