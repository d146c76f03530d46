"""Assembly: a LLaVA of any supported tower and language model, joined by a projector that nobody has trained yet."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AddedToken,
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    LlavaConfig,
)
from transformers import LlavaForConditionalGeneration as LlavaModel

from videopool.errors import one_line
from videopool.models.backbone import Backbone
from videopool.models.configuration import DTYPES, TOWERS, not_computed
from videopool.models.errors import ModelError, listed
from videopool.models.families import Llava
from videopool.models.loading import load_image_processor, load_tokenizer, silent
from videopool.models.shape import TEXT_MODELS, model_shape
from videopool.models.source import check_weights, locate
from videopool.video import to_pixels

IMAGE = "<image>"
RESIZED = "dinov2"  # its configuration has the size of its training; its image processor makes smaller views
CLASSES = {"clip_vision_model": "CLIPVisionModel", "siglip_vision_model": "SiglipVisionModel", RESIZED: "Dinov2Model"}
FLOOR = 1e-6  # of the features' largest variance: directions with less are rounding, and not enlarged


def assemble(tower: str, language: str, layer: int = -2, dtype: str = "float32", seed: int = 0) -> Backbone:
    """A LLaVA-1.5 of a tower and a language model (folders or Hugging Face ids; of a LLaVA, its own), with a random
    projector.

    Args:
        layer: hidden state of the tower that is projected; -2 leaves its last layer but one, as in LLaVA.
        seed: of the projector.

    Raises ModelError if a part is not supported, not whole, or quantised.
    """
    vision, seen = _part(tower, "job.tower"), _configuration(tower, "job.tower")
    seen = getattr(seen, "vision_config", seen)
    if seen.model_type not in CLASSES:
        raise ModelError(f"job.tower={tower}: {seen.model_type} is not supported; supported: {', '.join(CLASSES)}")
    depth = int(seen.num_hidden_layers)
    if not -depth - 1 <= layer <= depth:
        raise ModelError(f"job.layer={layer}: {tower} has {depth} layers")
    text, read = _part(language, "job.language"), _configuration(language, "job.language")
    reader = (
        AutoModelForImageTextToText if hasattr(read, "text_config") else AutoModelForCausalLM
    )  # of a LLaVA: its own
    if read.get_text_config().model_type not in TEXT_MODELS:
        known = ", ".join(TEXT_MODELS)
        raise ModelError(f"job.language={language}: {read.model_type} is not supported; supported: {known}")
    tokenizer = load_tokenizer(language, key="job.language")
    encoder = _weights(_class(CLASSES[seen.model_type]), vision, seen, dtype, f"job.tower={tower}")
    writer = _weights(reader, text, read, dtype, f"job.language={language}")
    if len(tokenizer) > (known := writer.get_input_embeddings().num_embeddings):
        problem = f"its tokenizer has {len(tokenizer)} entries, its weights {known}: they do not belong together"
        raise ModelError(f"job.language={language}: {problem}")
    if IMAGE not in tokenizer.get_vocab():
        tokenizer.add_tokens([AddedToken(IMAGE, special=True, normalized=False)])
    if len(tokenizer) > known:  # no room for the image token
        writer.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    side, patch = int(seen.image_size), int(seen.patch_size)
    if seen.model_type == RESIZED:
        side = _view(load_image_processor(tower, key="job.tower"))
        _resize(encoder, side)
    config = LlavaConfig(
        vision_config=encoder.config, text_config=writer.config.get_text_config(),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=layer, vision_feature_select_strategy="default" if TOWERS[seen.model_type] else "full",
        projector_hidden_act="gelu", image_seq_length=(side // patch) ** 2,
        tie_word_embeddings=bool(writer.config.tie_word_embeddings),
    )  # fmt: skip
    if problem := not_computed(config, None):
        raise ModelError(f"job.tower={tower} with job.language={language}: {problem}")
    with torch.device("meta"):
        whole: Any = LlavaModel(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        projector = type(whole.model.multi_modal_projector)(config).to(DTYPES[dtype])
    whole.model.vision_tower = encoder
    whole.model.language_model = getattr(writer.model, "language_model", writer.model)
    whole.model.multi_modal_projector, whole.lm_head = projector, writer.lm_head
    whole.generation_config = writer.generation_config
    processor = load_image_processor(tower, image_size=side, key="job.tower")
    return Llava(whole, tokenizer, processor, model_shape(config), "assembled", "assembled")


def whiten(projector: Any, features: Tensor, length: float, seed: int = 0) -> None:
    """Set a LLaVA projector so that its tokens resemble words before any training.

    The first matrix turns features [N, Dv] into uncorrelated numbers of mean 0 and mean variance 1 (PCA whitening, then
    a random rotation), so that no direction of high variance rules the GELU; with fewer hidden units than features, the
    directions of least variance are left out. The second is a random rotation, with a bias and a scale that give
    tokens the mean 0 and the median norm `length`.

    Raises ModelError if the features do not vary.
    """
    first, second, act = projector.linear_1, projector.linear_2, projector.act
    x = features.double()
    mean = x.mean(dim=0)
    variances, directions = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    if not variances[-1] > 0:
        raise ModelError("the tower's features do not vary: take other clips, or another job.layer")
    hidden, kept = first.out_features, min(first.out_features, first.in_features)
    scales = variances[-kept:].clamp(min=FLOOR * variances[-1]).rsqrt()
    generator = torch.Generator().manual_seed(seed)
    turn = _orthonormal(hidden, kept, generator) * (hidden / kept) ** 0.5
    rotation = _orthonormal(second.out_features, hidden, generator)
    weight = turn @ (directions[:, -kept:] * scales).T
    tokens = act((x - mean) @ weight.T) @ rotation.T
    centre = tokens.mean(dim=0)
    size = length / (tokens - centre).norm(dim=-1).median()
    with torch.no_grad():
        for layer, values, bias in ((first, weight, -weight @ mean), (second, rotation * size, -centre * size)):
            layer.weight.copy_(values)
            layer.bias.copy_(bias)


def save_assembled(backbone: Backbone, tower: str, folder: Path) -> None:
    """Save a model as transformers' Llava, with the tower's own image processor."""
    with silent():
        backbone.model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    AutoImageProcessor.from_pretrained(str(locate(tower)), backend="pil").save_pretrained(folder)


def median_length(vectors: Tensor) -> float:
    """Median norm of vectors [N, D]; those of zeros, which fill tables up, do not count."""
    norms = vectors.double().norm(dim=-1)
    return float(norms[norms > 0].median())


def sampled(grids: Iterable[Tensor], each: int, seed: int = 0) -> Tensor:
    """At most so many patches of each of several grids [..., Dv], drawn at random: [N, Dv].

    Raises ModelError if there are no grids.
    """
    generator, found = torch.Generator().manual_seed(seed), list[Tensor]()
    for grid in grids:
        patches = grid.flatten(0, -2)
        found.append(patches[torch.randperm(len(patches), generator=generator)[:each]].cpu())
    if not found:
        raise ModelError("no clip of the benchmark could be read, so there are no features for the projector to fit")
    return torch.cat(found)


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """A random matrix [rows, columns] whose rows or columns, whichever are fewer, are orthonormal."""
    drawn = torch.randn(max(rows, columns), min(rows, columns), generator=generator, dtype=torch.float64)
    found = torch.linalg.qr(drawn).Q
    return found if rows >= columns else found.T


def _view(processor: Any) -> int:
    """The side of the views that an image processor makes."""
    return int(to_pixels(processor, np.zeros((1, 64, 96, 3), np.uint8)).shape[-1])


@torch.no_grad()
def _resize(tower: Any, side: int) -> None:
    """Fix a DINOv2's position embeddings as it interpolates them itself for views of this side."""
    embeddings, patch = tower.embeddings, int(tower.config.patch_size)
    words = torch.empty(1, 1 + (side // patch) ** 2, tower.config.hidden_size)  # only its size counts
    embeddings.position_embeddings = nn.Parameter(embeddings.interpolate_pos_encoding(words, side, side))
    tower.config.image_size = side


def _class(name: str) -> Any:
    import transformers

    return getattr(transformers, name)


def _part(source: str, key: str) -> Path:
    """The folder of a part, with its weights. Raises ModelError if it is not whole."""
    folder = locate(source, key=key)
    check_weights(folder, f"{key}={source}")
    return folder


def _configuration(source: str, key: str) -> Any:
    try:
        config = AutoConfig.from_pretrained(str(locate(source, key=key)))
    except Exception as error:  # whatever transformers raises for a broken file
        raise ModelError(f"{key}={source}: no configuration could be read ({one_line(error)})") from error
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(f"{key}={source}: its weights are quantised; take the model that it was made of")
    return config


def _weights(cls: Any, folder: Path, config: Any, dtype: str, where: str) -> Any:
    try:
        with silent():
            model, report = cls.from_pretrained(
                str(folder), config=config, dtype=DTYPES[dtype], output_loading_info=True, use_safetensors=True,
                ignore_mismatched_sizes=True,  # told below
            )  # fmt: skip
    except Exception as error:  # whatever transformers raises for wrong weights
        raise ModelError(f"{where}: {one_line(error)}") from error
    if sizes := [f"{name} is {[*found]} and not {[*own]}" for name, found, own in report["mismatched_keys"]]:
        raise ModelError(f"{where}: weights have other sizes than config.json: {listed(sorted(sizes))}")
    if report["missing_keys"]:
        raise ModelError(f"{where}: weights are missing: {listed(sorted(report['missing_keys']))}")
    return model
