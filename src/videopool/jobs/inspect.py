"""job=inspect: a model's stages and their shapes, from configuration alone."""

from math import prod

from omegaconf import DictConfig

from videopool.models import ModelShape
from videopool.models.cost import parameter_count, weight_bytes
from videopool.models.texts import BLOCK
from videopool.notes import note
from videopool.points.setting import StatedSetting
from videopool.points.twins import map_of
from videopool.pooling import GridPooling
from videopool.runtime.outcome import COMPLETE, Outcome
from videopool.runtime.tables import Heading, Shown, count_text, made_table, size_text
from videopool.runtime.terminal import console


def run(config: DictConfig) -> Outcome:
    """Print the stages of one clip on its way to the language model."""
    point = StatedSetting(config)
    console().print(stage_table(point))
    note(map_of(point.pooling, point.stage, point)[1])
    note(point.assumed)
    return Outcome(COMPLETE, point.name, f"{point.visual_tokens} visual tokens")


def stage_table(point: StatedSetting) -> Shown:
    """One row per stage: shape and size of its output, and its work."""
    model, shape, pooling = point.model, point.shape, point.pooling
    encoder = point.stage == "encoder"
    # [T', H', W'] of a grid pooling, [N] of another
    pooled = list(pooling.out_shape(*point.grid)) if isinstance(pooling, GridPooling) else [point.pooled]
    grid = [point.images, shape.height, shape.width]
    projected = [*(pooled if encoder else grid), shape.dim]
    projector = "projector", projected, _projector(shape)
    dim = shape.vision_dim if encoder else shape.dim
    pooler = "pooling", [*pooled, dim], f"{pooling.label}: {point.pooled} tokens"
    rows = [
        ("pixels", [point.images, 3 * shape.together, shape.image_size, shape.image_size], _pixels(point)),
        ("vision tower", [*grid, shape.vision_dim], _tower(point)),
        *((pooler, projector) if encoder else (projector, pooler)),
        ("language model", [point.visual_tokens, shape.dim], _language_model(point)),
    ]
    size = point.bytes_per_value
    table = made_table(
        [Heading("stage", False), Heading("shape", False), Heading("size"), Heading("what", False, wraps=True)],
        [(name, str(sizes), size_text(prod(sizes) * size), work) for name, sizes, work in rows],
    )
    weights = size_text(weight_bytes(shape, size))
    counts = f"{count_text(parameter_count(shape))} weights, {weights} in {model['dtype']}"
    title = f"{point.model_name} ({shape.family}): {model['source']}"
    return Shown(table, title, (counts, "sizes are those of one clip"))


def _pixels(point: StatedSetting) -> str:
    if point.pooling.tiles:
        return f"one image that shows {point.frames} frames"
    if "thumbnail" in point.pooling.needs:
        return f"one view of each of {point.frames} frames, then an image of some of them"
    each = "each frame" if point.shape.together == 1 else f"each {point.shape.together} frames"
    return f"one view of {each}, patches of {point.shape.patch} x {point.shape.patch}"


def _tower(point: StatedSetting) -> str:
    shape = point.shape
    layers = f"{shape.vision_layers_run} of {shape.vision_layers} layers, {shape.vision_heads} heads"
    cls = "CLS kept for the pooling" if "cls" in point.pooling.needs else "CLS dropped"
    work = f"{layers}, MLP {shape.vision_intermediate}; {cls if shape.cls else 'no CLS'}"
    if shape.merge > 1:
        work += f"; {shape.merge} x {shape.merge} patches side by side"
    if shape.feature_layers > 1:
        work += f"; {shape.feature_layers} layers of {shape.tower_dim} side by side"
    if shape.levels:
        work += f"; DeepStack reads {shape.levels} more"
    if shape.towers > 1:
        work += f"; the one for videos of {shape.towers} towers"
    return work


def _projector(shape: ModelShape) -> str:
    norm = "norm, " if shape.projector_norm else ""
    if shape.projector_layers == 1:
        return f"{norm}{shape.vision_dim} -> {shape.dim}"
    between = shape.projector_width or shape.dim
    each = f", and one for each of {shape.levels} levels" if shape.levels else ""
    return f"{norm}{shape.vision_dim} -> {between} -> {shape.dim}, GELU between{each}"


def _layout(point: StatedSetting) -> str:
    """What stands among the pooled tokens."""
    shape = point.shape
    if point.layout == BLOCK or not shape.spreads:
        return f"{point.beside} separator after the pooled tokens"
    parts = ["a newline after each row"] if shape.row_newlines else []
    parts += [f"about {shape.frame_text} tokens of text between frames"] if shape.frame_text else []
    return f"{point.beside} at most among the pooled tokens: {', '.join(parts)}"


def _language_model(point: StatedSetting) -> str:
    shape = point.shape
    own_keys = f" ({shape.kv_heads} for keys and values)" if shape.kv_heads != shape.heads else ""
    trained = f" ({shape.rope_range} trained)" if shape.rope_range != shape.context else ""
    separators = f"; {_layout(point)}" if point.beside else ""
    heads = f"{shape.heads} heads{own_keys} of {shape.head_dim}"
    sizes = f"{shape.layers} layers, {heads}, MLP {shape.intermediate}"
    return f"{shape.text}: {sizes}, context {shape.context}{trained}{separators}"
