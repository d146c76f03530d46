"""One loaded backbone per process, for all points that use it."""

from collections.abc import Mapping
from typing import Any

from videopool.models import Backbone, attach, load_adapter, load_backbone, set_alpha
from videopool.models.lora import set_projector
from videopool.runtime import log
from videopool.runtime.progress import progress

# Keys of the group `model` that loading takes.
SETTINGS = ("source", "name", "dtype", "attention", "revision", "device_map", "max_memory", "rope_factor", "tower",
            "frame_size")  # fmt: skip

_loaded: dict[str, Backbone] = {}  # at most one, by everything that its weights depend on but alpha and projector


def own_backbone(model: Mapping[str, Any]) -> Backbone:
    """The model of the group `model`, for a user that changes its weights; the shared one leaves memory."""
    _loaded.clear()
    settings: dict[str, Any] = {name: model.get(name) for name in SETTINGS}
    log.detail(f"weights of {model.get('name')} from {model.get('source')}")
    with progress(f"reading the weights of {model.get('name')}"):
        return load_backbone(**settings, target=model.get("_target_"))


def point_backbone(model: Mapping[str, Any], identity: str, adapter: Mapping[str, Any] | None) -> Backbone:
    """The model of the group `model` with this identity of its files, loaded once for all points that use it.

    For each, alpha of LoRA and projector, between the base's (0) and the adapter's (1 or None), are set anew.
    """
    settings = [model.get(name) for name in (*SETTINGS, "_target_")]
    key = repr([settings, identity, adapter and (adapter["checkpoint"], adapter["identity"])])
    if key not in _loaded:
        backbone = own_backbone(model)
        if adapter is not None:
            attach(backbone, load_adapter(adapter["checkpoint"]))
        _loaded[key] = backbone
    backbone = _loaded[key]
    if adapter is not None and adapter["alpha"] is not None:
        set_alpha(backbone, adapter["alpha"])
    if adapter is not None and (adapter["projector"] is not None or backbone.tuned_projector is not None):
        set_projector(backbone, 1.0 if adapter["projector"] is None else adapter["projector"])
    return backbone
