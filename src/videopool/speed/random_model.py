"""LLaVA models of given sizes with random weights: speed does not depend on the weights' values."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils import logging as transformers_logging

from videopool.models import FAMILIES, Backbone, ModelError, ModelShape, identity, model_shape
from videopool.models.shape import shape_differences

MADE = ("llava", "llava_next")
# Keys of transformers' configurations, and the sizes in a ModelShape.
VISION = {
    "hidden_size": "vision_dim", "projection_dim": "vision_dim", "intermediate_size": "vision_intermediate",
    "num_hidden_layers": "vision_layers", "num_attention_heads": "vision_heads", "image_size": "image_size",
    "patch_size": "patch",
}  # fmt: skip
TEXT = {
    "hidden_size": "dim", "intermediate_size": "intermediate", "num_hidden_layers": "layers", "head_dim": "head_dim",
    "num_attention_heads": "heads", "num_key_value_heads": "kv_heads", "vocab_size": "vocabulary",
    "max_position_embeddings": "context", "tie_word_embeddings": "tied",
}  # fmt: skip


def _configuration(shape: ModelShape, tokenizer: Any) -> Any:
    """A transformers configuration with a CLIP tower and a LLaMA of these sizes."""
    if shape.family not in MADE or shape.text != "llama" or not shape.cls or shape.feature_layers != 1:
        raise ModelError(f"no random {shape.family} on {shape.text}: {', '.join(MADE)} on llama with CLIP only")
    if shape.vocabulary < len(tokenizer):
        raise ModelError(f"a vocabulary of {shape.vocabulary} does not hold the tokenizer's {len(tokenizer)} words")
    text = {key: getattr(shape, name) for key, name in TEXT.items()}
    text |= {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = FAMILIES[shape.family].transformers_class().config_class(
        vision_config=CLIPVisionConfig(**{key: getattr(shape, name) for key, name in VISION.items()}),
        text_config=LlamaConfig(**text, rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta}),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=shape.vision_layers_run,
        image_seq_length=shape.height * shape.width,
        tie_word_embeddings=shape.tied,
    )  # fmt: skip
    if differences := shape_differences(shape, model_shape(config)):
        raise ModelError(f"no random model has these sizes: {differences}")
    return config


@torch.no_grad()
def _fill(model: nn.Module) -> None:
    """Random matrices in place: normal, with a standard deviation of (number of columns)^-0.5.

    Options of the model then differ by about one in log-probability, so that rounding hardly changes the likeliest.
    Vectors (norms, biases) keep their initial values.
    """
    generator = torch.Generator(device=next(model.parameters()).device).manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=generator)


def random_backbone(
    shape: ModelShape, tokenizer: Any, folder: Path, name: str, device: str, dtype: torch.dtype
) -> Backbone:
    """A model whose weights are made on the device and are in no file; the folder gets all its other files.

    Raises ModelError if no such model has these sizes, or the vocabulary is smaller than the tokenizer's.
    """
    config, side = _configuration(shape, tokenizer), shape.image_size
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {**processor.to_dict(), "image_processor_type": "CLIPImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, default=str))
    family, default = FAMILIES[shape.family], torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = family.transformers_class()(config)
    finally:
        torch.set_default_dtype(default)
    _fill(model)
    # Placed: otherwise Lightning would move the weights to the CPU at the end of every point.
    return family(model, tokenizer, processor, shape, name, identity(str(folder)), placed=True)


def save_random_model(shape: ModelShape, tokenizer: Any, folder: Path) -> None:
    """Make a model in float32 and save it like a released one. Raises ModelError as random_backbone()."""
    backbone = random_backbone(shape, tokenizer, folder, "random", "cpu", torch.float32)
    transformers_logging.disable_progress_bar()
    try:
        backbone.model.save_pretrained(folder)
    finally:
        transformers_logging.enable_progress_bar()
