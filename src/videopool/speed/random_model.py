"""LLaVA models with random weights of given sizes: speed does not depend on what a model knows."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils import logging as transformers_logging

from videopool.models import FAMILIES, Backbone, ModelError, ModelShape, identity, model_shape
from videopool.models.shape import shape_differences

ARCHITECTURES: dict[str, tuple[type, type]] = {
    "llava": (LlavaConfig, LlavaForConditionalGeneration),
    "llava_next": (LlavaNextConfig, LlavaNextForConditionalGeneration),
}


def configuration(shape: ModelShape, tokenizer: Any) -> Any:
    """A transformers configuration with a CLIP tower and a LLaMA of these sizes.

    Raises:
        ModelError: sizes that no such model has, or a vocabulary smaller than the tokenizer's.
    """
    if shape.family not in ARCHITECTURES or shape.text != "llama" or not shape.cls or shape.feature_layers != 1:
        raise ModelError(
            f"no random {shape.family} on {shape.text}: {', '.join(ARCHITECTURES)} on llama with CLIP only"
        )
    if shape.vocabulary < len(tokenizer):
        raise ModelError(f"a vocabulary of {shape.vocabulary} does not hold the tokenizer's {len(tokenizer)} words")
    vision = CLIPVisionConfig(
        hidden_size=shape.vision_dim,
        intermediate_size=shape.vision_intermediate,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=shape.vision_heads,
        image_size=shape.image_size,
        patch_size=shape.patch,
        projection_dim=shape.vision_dim,
    )
    text = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.dim,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.context,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=shape.tied,
    )
    kind, _ = ARCHITECTURES[shape.family]
    config = kind(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=shape.vision_layers_run,
        image_seq_length=shape.height * shape.width,
        tie_word_embeddings=shape.tied,
    )
    if differences := shape_differences(shape, model_shape(config)):
        raise ModelError(f"no random model has these sizes: {differences}")
    return config


def image_processor(shape: ModelShape) -> Any:
    """CLIP's resize, crop and normalisation at the tower's size."""
    side = shape.image_size
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def fill(model: nn.Module, seed: int) -> None:
    """Random weights in place: normal, with a standard deviation of (columns of the matrix)^-0.5.

    Vectors (norms, biases) stay as they were made. Options of random models then differ by about one in
    log-probability, so that which is the likeliest does not hang on rounding.
    """
    first = next(model.parameters())
    generator = torch.Generator(device=first.device).manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=generator)


def save_description(config: Any, tokenizer: Any, shape: ModelShape, folder: Path) -> None:
    """Everything of a model folder but the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = image_processor(shape).to_dict()
    settings["image_processor_type"] = "CLIPImageProcessor"
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, default=str))


def save_random_model(shape: ModelShape, tokenizer: Any, folder: Path, seed: int = 0) -> None:
    """Make a model in float32 and save it as released ones are, for the ordinary loader.

    Raises:
        ModelError: as configuration().
    """
    config = configuration(shape, tokenizer)
    model = ARCHITECTURES[shape.family][1](config)
    fill(model, seed)
    save_description(config, tokenizer, shape, folder)
    transformers_logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
    finally:
        transformers_logging.enable_progress_bar()


def random_backbone(
    shape: ModelShape, tokenizer: Any, folder: Path, name: str, device: str, dtype: torch.dtype, seed: int = 0
) -> Backbone:
    """A model whose weights are made where they are used, and are in no file.

    Args:
        folder: gets the configuration, the tokenizer and the image processor, so that it reads as a model's.
        device: "cuda" or "cpu".

    Raises:
        ModelError: as configuration().
    """
    config = configuration(shape, tokenizer)
    save_description(config, tokenizer, shape, folder)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = ARCHITECTURES[shape.family][1](config)
    finally:
        torch.set_default_dtype(before)
    fill(model, seed)
    family = FAMILIES[config.model_type]
    # Placed: Lightning would take the weights to the CPU at the end of every point.
    return family(model, tokenizer, image_processor(shape), shape, name, identity(str(folder)), placed=True)
