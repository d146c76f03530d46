"""Backbones: image-to-text models behind one small interface."""

from videopool.models.backbone import Backbone, ModelShape, load_backbone, load_config, model_shape
from videopool.models.cost import prefill_flops
from videopool.models.errors import ModelError
from videopool.models.identity import identity
from videopool.models.module import VideoLM

__all__ = [
    "Backbone",
    "ModelError",
    "ModelShape",
    "VideoLM",
    "identity",
    "load_backbone",
    "load_config",
    "model_shape",
    "prefill_flops",
]
