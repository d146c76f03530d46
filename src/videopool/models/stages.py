"""Where a pooling acts in a model, and whether the two fit."""

from videopool.models.errors import ModelError
from videopool.models.sizes import ModelShape
from videopool.models.tower_outputs import tower_outputs
from videopool.pooling import Pooling, class_name
from videopool.pooling.base import TOWER

STAGES = ("projector", "encoder")
FRAME_TIMES, CLS, TEXT, THUMBNAIL = "frame_times", "cls", "text", "thumbnail"  # fields of PoolingContext
PROVIDED = frozenset({FRAME_TIMES, CLS, TEXT, THUMBNAIL, *TOWER})


def check_needs(pooling: Pooling, shape: ModelShape, name: str, stage: str, one_question: bool = True) -> None:
    """Raises ModelError unless a model, named for errors, gives a pooling the context that it needs at a stage.

    With one_question, visual tokens serve one question, so they may depend on it.
    """
    if not isinstance(pooling.needs, (frozenset, set)):
        raise ModelError(f"pooling {class_name(pooling)}: needs must be a set of names, got {pooling.needs!r}")
    missing = pooling.needs - (PROVIDED if shape.cls else PROVIDED - {CLS})
    if missing:
        raise ModelError(f"pooling {pooling.label} needs {', '.join(sorted(missing))}, which {name} does not give")
    if shape.by_clip and (pooling.tiles or THUMBNAIL in pooling.needs):
        raise ModelError(
            f"pooling {pooling.label} makes an image of frames, which has other proportions than they: say "
            "model.frame_size=<pixels>"
        )
    tower_outputs(pooling, shape, name)
    if TEXT in pooling.needs and stage != "projector":
        raise ModelError(
            f"pooling {pooling.label} compares patches with the prompt, whose vector exists only after the projector: "
            f"say pooling.stage=projector, not {stage}"
        )
    if TEXT in pooling.needs and not one_question:
        raise ModelError(
            f"pooling {pooling.label} gives each question its own visual tokens; a conversation of several questions "
            "has no single prompt to pool by, so it cannot be trained under"
        )


def check_context(name: str, context: int, length: int, whole: bool = False) -> None:
    """Raises ModelError if a sequence is longer than a model's context; `whole`: with positions in the whole grid."""
    if length > context:
        counted = "positions of the whole grid" if whole else "tokens"
        other = "positions=contiguous" if whole else "a pooling with fewer tokens"
        raise ModelError(
            f"{length} {counted} do not fit {name}'s context of {context}: take fewer frames, {other}, or "
            "model.rope_factor"
        )
