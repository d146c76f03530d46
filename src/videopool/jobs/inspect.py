"""job=inspect: a model's stages and their shapes, from configuration alone."""

from omegaconf import DictConfig
from rich.table import Table

from videopool.models.cost import parameter_count, weight_bytes
from videopool.planning.cost import GB, MB
from videopool.points.setting import Setting, setting
from videopool.pooling import GridPooling
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.runtime.terminal import console


def run(config: DictConfig) -> Outcome:
    """Print what becomes of a clip on its way to the language model."""
    point = setting(config)
    screen = console()
    screen.print(stage_table(point))
    return Outcome(COMPLETE, point.name, f"{point.tokens} visual tokens")


def stage_table(point: Setting) -> Table:
    """One line a stage: shape of what it puts out, size of it, and what is done."""
    model, shape = point.model, point.shape
    table = Table(title=f"{point.label} ({shape.family}): {model['source']}")
    for name in ("stage", "shape", "MB", "what"):
        table.add_column(name, justify="right" if name == "MB" else "left")
    rows = [("pixels", [point.images, 3, shape.image_size, shape.image_size], _pixels(point)), _tower(point)]
    projector, pooling = _projector(point), _pooling(point)
    rows += [pooling, projector] if point.stage == "encoder" else [projector, pooling]
    rows.append(("language model", [point.tokens, shape.dim], _language_model(point)))
    for name, sizes, what in rows:
        values = point.bytes_per_value
        for size in sizes:
            values *= size
        table.add_row(name, "[" + ", ".join(map(str, sizes)) + "]", f"{values / MB:.4g}", what)
    billions, weights = parameter_count(shape) / 1e9, weight_bytes(shape, point.bytes_per_value) / GB
    table.caption = f"{billions:.4g} billion weights, {weights:.3g} GB in {model['dtype']}; sizes are those of one clip"
    return table


def _pixels(point: Setting) -> str:
    if point.pooling.tiles:
        return f"one image that shows {point.frames} frames"
    if "thumbnail" in point.pooling.needs:
        return f"one view of each of {point.frames} frames, then an image of some of them"
    return f"one view of each frame, patches of {point.shape.patch} x {point.shape.patch}"


def _tower(point: Setting) -> tuple[str, list[int], str]:
    shape = point.shape
    what = f"{shape.vision_layers_run} of {shape.vision_layers} layers, {shape.vision_heads} heads"
    what += f", MLP {shape.vision_intermediate}; "
    kept = "kept for the pooling" if "cls" in point.pooling.needs else "dropped"
    what += f"CLS {kept}" if shape.cls else "no CLS"
    if shape.feature_layers > 1:
        what += f"; {shape.feature_layers} layers of {shape.tower_dim} side by side"
    if shape.towers > 1:
        what += f"; the one for videos of {shape.towers} towers"
    return "vision tower", [point.images, shape.height, shape.width, shape.vision_dim], what


def _projector(point: Setting) -> tuple[str, list[int], str]:
    shape = point.shape
    what = f"{shape.vision_dim} -> {shape.dim} -> {shape.dim}, GELU between"
    if point.stage == "encoder":
        return "projector", [*_pooled(point), shape.dim], what
    return "projector", [point.images, shape.height, shape.width, shape.dim], what


def _pooling(point: Setting) -> tuple[str, list[int], str]:
    dim = point.shape.vision_dim if point.stage == "encoder" else point.shape.dim
    return "pooling", [*_pooled(point), dim], f"{point.pooling.label}: {point.pooled} tokens"


def _pooled(point: Setting) -> list[int]:
    """[T', H', W'] of a grid pooling, [N] of another."""
    if isinstance(point.pooling, GridPooling):
        return list(point.pooling.out_shape(point.grid_frames, point.shape.height, point.shape.width))
    return [point.pooled]


def _language_model(point: Setting) -> str:
    shape = point.shape
    groups = f"{shape.heads} heads" + (
        f" ({shape.kv_heads} for keys and values)" if shape.kv_heads != shape.heads else ""
    )
    what = f"{shape.text}: {shape.layers} layers, {groups} of {shape.head_dim}, MLP {shape.intermediate}, "
    what += f"context {shape.context}"
    if shape.rope_range != shape.context:
        what += f" ({shape.rope_range} trained)"
    if shape.separators:
        what += f"; {shape.separators} separator behind the pooled tokens"
    return what
