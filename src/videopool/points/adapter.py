"""A checkpoint put onto a model, as the group `lora` names it."""

from typing import Any

from videopool.config.errors import ConfigError
from videopool.models import load_adapter


def read_adapter(lora: dict[str, Any]) -> dict[str, Any] | None:
    """Checkpoint, identity, alpha and so on of the group `lora`; None for the model as released."""
    if lora["checkpoint"] is None:
        for key in ("alpha", "projector"):
            if lora[key] is not None:
                raise ConfigError(f"lora.{key}={lora[key]}: there is no lora.checkpoint to scale")
        return None
    projector = lora["projector"]
    if projector is not None and (isinstance(projector, bool) or not isinstance(projector, (int, float))):
        raise ConfigError(f"lora.projector={projector!r}: give a number, or null for the checkpoint's own")
    checkpoint = load_adapter(str(lora["checkpoint"]))
    alpha = checkpoint.alpha if lora["alpha"] is None else lora["alpha"]
    about = {
        "checkpoint": checkpoint.source,
        "identity": checkpoint.identity,
        "projector": None if projector is None else float(projector),
        "trained_pooling": checkpoint.trained_pooling,
        "recipe": checkpoint.recipe,
        "training": checkpoint.training,
    }
    if not checkpoint.ranks:
        if lora["alpha"] is not None:
            raise ConfigError(
                f"lora.alpha={lora['alpha']}: {checkpoint.source} has no LoRA to scale; say lora.alpha=null"
            )
        return {**about, "alpha": None}
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not alpha >= 0:
        raise ConfigError(f"lora.alpha={alpha!r}: give a number of at least 0 (the checkpoint does not say one)")
    return {**about, "alpha": float(alpha)}


def adapter_identity(adapter: dict[str, Any]) -> dict[str, Any]:
    """What determines the weights; the projector only where it is not the checkpoint's own."""
    named = {key: adapter[key] for key in ("identity", "alpha")}
    return named if adapter["projector"] is None else {**named, "projector": adapter["projector"]}
