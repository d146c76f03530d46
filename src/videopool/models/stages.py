"""Where a pooling may act in a model, and whether the two fit."""

from videopool.models.errors import ModelError
from videopool.models.shape import ModelShape
from videopool.pooling import Pooling

STAGES = ("projector", "encoder")
PROVIDED = frozenset({"cls", "thumbnail"})  # fields of PoolingContext that can be filled in here


def check_needs(pooling: Pooling, shape: ModelShape, name: str) -> None:
    """Raises ModelError for a pooling that needs what a model does not have."""
    lacking = pooling.needs - (PROVIDED if shape.cls else PROVIDED - {"cls"})
    if lacking:
        raise ModelError(f"pooling {pooling.label} needs {', '.join(sorted(lacking))}, which {name} does not give")


def check_context(name: str, context: int, length: int) -> None:
    """Raises ModelError where a sequence is longer than a model's context."""
    if length > context:
        raise ModelError(
            f"{length} tokens do not fit {name}'s context of {context}: take fewer frames, a pooling with fewer "
            "tokens, or model.rope_factor"
        )
