"""Backbones: image-to-text models behind one small interface."""

from videopool.models.adapter import AdapterCheckpoint, attach, load_adapter, set_alpha
from videopool.models.backbone import Backbone
from videopool.models.cost import prefill_flops
from videopool.models.errors import ModelError
from videopool.models.families import FAMILIES
from videopool.models.identity import identity
from videopool.models.loading import load_backbone, load_config
from videopool.models.module import VideoLM
from videopool.models.shape import ModelShape, model_shape

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
