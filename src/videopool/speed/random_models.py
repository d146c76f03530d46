"""Random models of any size: in files like a released one's, or as tensors without memory; adapters for them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, CLIPVisionConfig, LlamaConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from videopool.models import FAMILIES, Backbone, ModelError, ModelShape, model_shape
from videopool.models.shape import shape_differences

MADE = ("llava", "llava_next")
SHARD = 4e9  # bytes of a file
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
    config = AutoConfig.for_model(
        shape.family,
        vision_config=CLIPVisionConfig(**{key: getattr(shape, name) for key, name in VISION.items()}),
        text_config=LlamaConfig(**text, rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta}),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=shape.vision_layers_run,
        image_seq_length=shape.height * shape.width,
        tie_word_embeddings=shape.tied,
    )
    if differences := shape_differences(shape, model_shape(config)):
        raise ModelError(f"no random model has these sizes: {differences}")
    return config


def meta_backbone(shape: ModelShape, tokenizer: Any, dtype: torch.dtype, attention: str = "eager") -> Backbone:
    """A model of meta tensors, which have sizes and no numbers. Raises ModelError as save_random_model()."""
    with torch.device("meta"):
        model: Any = AutoModelForImageTextToText.from_config(
            _configuration(shape, tokenizer), dtype=dtype, attn_implementation=attention
        )
    return FAMILIES[shape.family](model, tokenizer, None, shape, "meta", "meta", placed=True)


def save_random_model(
    shape: ModelShape, tokenizer: Any, folder: Path, dtype: torch.dtype = torch.float32, shard: float = SHARD
) -> None:
    """Save a model with random weights (speed does not depend on them) like a released one, shard by shard.

    At most one shard is in memory. Matrices are normal, with a standard deviation of (number of columns)^-0.5: options
    then differ by about one in log-probability, so that rounding hardly changes the likeliest. Norms are one, biases
    zero. Raises ModelError if no such model has these sizes, or the vocabulary is smaller than the tokenizer's.
    """
    backbone, side = meta_backbone(shape, tokenizer, dtype), shape.image_size
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    folder.mkdir(parents=True, exist_ok=True)
    backbone.model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {**processor.to_dict(), "image_processor_type": "CLIPImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, default=str))
    shards, sizes = list[dict[str, Tensor]]([{}]), [0.0]
    for name, weight in backbone.model.named_parameters():
        if sizes[-1] + weight.nbytes > shard and shards[-1]:
            shards.append({})
            sizes.append(0.0)
        shards[-1][name] = weight
        sizes[-1] += weight.nbytes
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator, files = torch.Generator(device).manual_seed(0), dict[str, str]()
    for number, weights in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        made = {name: _random(name, weight, generator) for name, weight in weights.items()}
        save_file(made, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(weights, file)
    index = {"metadata": {"total_size": int(sum(sizes))}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _random(name: str, weight: Tensor, generator: torch.Generator) -> Tensor:
    if weight.dim() == 1 and ("norm" in name or name.endswith("bias")):
        return torch.full(weight.shape, float("norm" in name and not name.endswith("bias")), dtype=weight.dtype)
    columns = weight[0].numel() if weight.dim() > 1 else len(weight)
    values = torch.empty(weight.shape, dtype=weight.dtype, device=generator.device)
    return values.normal_(0.0, columns**-0.5, generator=generator).cpu()


def save_random_adapter(shape: ModelShape, folder: Path, rank: int) -> None:
    """Save LoRA of random matrices, B included, on the queries of all layers, as peft does; alpha is the rank."""
    from peft import LoraConfig

    generator, width = torch.Generator().manual_seed(0), shape.heads * shape.head_dim
    queries = r".*language_model\.layers\.\d+\.self_attn\.q_proj"
    LoraConfig(r=rank, lora_alpha=rank, target_modules=queries, inference_mode=True).save_pretrained(str(folder))
    weights = {}
    for layer in range(shape.layers):
        name = f"base_model.model.model.language_model.layers.{layer}.self_attn.q_proj.lora"
        weights[f"{name}_A.weight"] = torch.randn(rank, shape.dim, generator=generator) * shape.dim**-0.5
        weights[f"{name}_B.weight"] = torch.randn(width, rank, generator=generator) * rank**-0.5
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
