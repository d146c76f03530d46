"""The part meta of job=speed: released models as meta tensors, whose sizes and memory are counted without a number."""

from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from videopool.config.build import build_pooling, plain
from videopool.models import Backbone, cost
from videopool.models.configuration import DTYPES
from videopool.models.lora import checkpoint_gradients, make_trainable, trainable, training_mode
from videopool.reading.module import VideoLM
from videopool.runtime.live import Live
from videopool.speed.bench import Bench, Line, released_shape
from videopool.speed.random_models import meta_backbone

TEXT = 256  # tokens of a conversation


def meta(bench: Bench, line: Line) -> dict[str, Any]:
    """Part j: of released models the number of tensors, their bytes, and the peak of reading a clip, beside plan's.

    Then a training step with LoRA on a clip and a conversation: the sizes of all gradients, and its peak memory.
    """
    settings, tokenizer, rows = bench.config.job.meta, instantiate(bench.config.job.tokenizer), list[dict[str, Any]]()
    step, pooling, frames = line("released models", len(settings.models)), build_pooling(settings), int(settings.frames)
    for name in settings.models:
        shape, dtype = released_shape(name), DTYPES[bench.size["dtype"]]
        backbone = meta_backbone(shape, tokenizer, dtype)
        weights = dict(backbone.model.named_parameters())
        lm = VideoLM(backbone, pooling)
        tokens = pooling.num_tokens(frames, shape.height, shape.width)
        held = sum(one.nbytes for one in weights.values())
        with Live() as live, torch.inference_mode():
            cache = DynamicCache(config=backbone.model.config.text_config)
            _read(backbone, lm.visual_tokens(_features(backbone, frames)), cache)
        row = {
            "model": name, "frames": frames, "visual_tokens": tokens, "tensors": len(weights), "weight_bytes": held,
            "planned_weight_bytes": cost.weight_bytes(shape, dtype.itemsize), "peak_bytes": held + live.peak,
            "planned_bytes": cost.peak_bytes(shape, frames, tokens + TEXT, dtype.itemsize, attention="eager"),
        }  # fmt: skip
        rows.append(row | _training_step(lm, frames, held, plain(bench.config.job.training.recipe)["lora"]))
        step()
    return {"rows": rows}


def _features(backbone: Backbone, frames: int) -> Tensor:
    """Features [1, T, C + H*W, Dv] of a clip."""
    side = backbone.shape.image_size
    return backbone.features(torch.empty(frames, 3, side, side, device="meta", dtype=backbone.dtype))[None]


def _read(backbone: Backbone, visual: Tensor, cache: Any = None) -> Tensor:
    """Last hidden states of visual tokens [1, N, D] and a text after them."""
    text = backbone.embed(torch.zeros(1, TEXT, dtype=torch.long, device="meta"))
    embeddings = torch.cat([visual.to(text.dtype), text], dim=1)
    places = torch.arange(embeddings.shape[1], device="meta")
    # With a mask, as nothing can ask meta tensors whether they need one.
    mask = torch.empty(1, 1, len(places), len(places), device="meta", dtype=text.dtype)
    return backbone.read(embeddings, mask, places[None], cache)


def _training_step(lm: VideoLM, frames: int, held: int, lora: dict[str, Any]) -> dict[str, Any]:
    """Sizes of a step's gradients, with gradient checkpointing; its peak counts AdamW's two states as well.

    Raises AssertionError if a trained weight has no gradient of its size.
    """
    backbone, features = lm.backbone, _features(lm.backbone, frames)
    with torch.device("meta"):
        make_trainable(backbone, lora)
    checkpoint_gradients(backbone)
    training_mode(backbone)
    trained = trainable(backbone)
    with Live() as live:
        visual = lm.visual_tokens(features.to(next(backbone.projector.parameters()).dtype))
        logits = backbone.logits(_read(backbone, visual)[0, -TEXT:])
        cross_entropy(logits, torch.zeros(TEXT, dtype=torch.long, device="meta")).backward()
    wrong = [name for name, one in trained.items() if one.grad is None or one.grad.shape != one.shape]
    if wrong:
        raise AssertionError(f"{wrong[0]} and {len(wrong) - 1} more get no gradient of their size")
    size = sum(one.nbytes for one in trained.values())
    return {
        "trained_tensors": len(trained), "trained": sum(one.numel() for one in trained.values()),
        "training_bytes": held + size + live.peak + 2 * size,
    }  # fmt: skip
