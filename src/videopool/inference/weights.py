"""Weights, loaded once in a process for all points that use them."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from videopool.models import Backbone, attach, load_adapter, load_backbone, set_alpha
from videopool.models.adapter import set_projector

# Of the group `model`, what loading takes.
SETTINGS = ("source", "name", "dtype", "attention", "revision", "device_map", "max_memory", "rope_factor")


def _settings(model: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: model.get(name) for name in SETTINGS}, "target": model.get("_target_")}


@lru_cache(maxsize=1)
def _load(settings: str, _identity: str) -> Backbone:
    return load_backbone(**json.loads(settings))


@lru_cache(maxsize=1)
def _load_with_checkpoint(settings: str, _identity: str, checkpoint: str, _checkpoint_identity: str) -> Backbone:
    backbone = load_backbone(**json.loads(settings))
    attach(backbone, load_adapter(checkpoint))
    return backbone


def own_backbone(model: Mapping[str, Any]) -> Backbone:
    """The model for one user that will change its weights; shared ones are forgotten, so that there is one in memory.

    Args:
        model: the group `model`.
    """
    _load.cache_clear()
    _load_with_checkpoint.cache_clear()
    return load_backbone(**_settings(model))


def point_backbone(model: Mapping[str, Any], identity: str, adapter: Mapping[str, Any] | None) -> Backbone:
    """The model, loaded once in a process for all points that use it; only alpha and projector are set for each.

    Args:
        model: the group `model`.
        identity: of its files, so that changed files are loaded anew.
        adapter: what is put onto it: checkpoint, identity of its files, alpha of LoRA, and projector between the
            base's (0) and the checkpoint's (1), None for the checkpoint's.
    """
    settings = json.dumps(_settings(model), sort_keys=True)
    if adapter is None:
        _load_with_checkpoint.cache_clear()  # never two models in memory
        return _load(settings, identity)
    _load.cache_clear()
    backbone = _load_with_checkpoint(settings, identity, adapter["checkpoint"], adapter["identity"])
    if adapter["alpha"] is not None:
        set_alpha(backbone, adapter["alpha"])
    if adapter["projector"] is not None or backbone.tuned_projector is not None:
        set_projector(backbone, 1.0 if adapter["projector"] is None else adapter["projector"])
    return backbone
