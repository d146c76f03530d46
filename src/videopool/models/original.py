"""LLaVA-Video's own checkpoints, saved by its training code, read as transformers' LLaVA-OneVision.

Their config.json holds Qwen2's sizes and the tower's name; the tokenizer has no places for images, and the tower's
image processor is that of its own release. Weights have other names.
"""

from collections.abc import Mapping
from typing import Any

from videopool.models.errors import ModelError

ARCHITECTURE = "LlavaQwenForCausalLM"
# Names of weights, as regular expressions, and those of transformers.
KEYS = {
    r"^model\.vision_tower\.vision_tower\.vision_model\.": "model.vision_tower.",
    r"^model\.mm_projector\.0\.": "model.multi_modal_projector.linear_1.",
    r"^model\.mm_projector\.2\.": "model.multi_modal_projector.linear_2.",
    r"^model\.(embed_tokens|layers|norm)\.": r"model.language_model.\1.",
}
SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "patch_size": 14}
# By name: sizes of the tower; training leaves out its last layer and its pooling head.
TOWERS: dict[str, dict[str, Any]] = {
    "google/siglip-so400m-patch14-384": {**SIGLIP, "image_size": 384, "num_hidden_layers": 26},
}
QWEN2_WORDS = 151646  # of Qwen2's tokenizer
PLACES = ("<image>", "<video>")  # behind the tokenizer's own words, as in transformers' conversions
# Settings whose other values change what a clip's tokens are: what is read.
READ = {"mm_projector_type": "mlp2x_gelu", "mm_vision_select_layer": -2, "mm_patch_merge_type": None}


def is_original(content: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of such a checkpoint."""
    return ARCHITECTURE in (content.get("architectures") or ())


def original_config(content: Mapping[str, Any]) -> Any:
    """Its transformers configuration. Raises ModelError for a tower, or parts around it, of another kind."""
    from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

    tower = content.get("mm_vision_tower")
    if tower not in TOWERS:
        raise ModelError(f"mm_vision_tower={tower}: choose one of {', '.join(TOWERS)}")
    for key, value in READ.items():
        if value is not None and content.get(key, value) != value:
            raise ModelError(f"{key}={content[key]}: only {value} is read")
    text: Any = Qwen2Config.from_dict({**content, "model_type": "qwen2", "architectures": None})
    first = int(content.get("image_token_index", QWEN2_WORDS))
    made: Any = LlavaOnevisionConfig
    return made(
        text_config=text,
        vision_config=SiglipVisionConfig(**TOWERS[tower], vision_use_head=False),
        image_token_index=first,
        video_token_index=first + 1,
        tie_word_embeddings=bool(content.get("tie_word_embeddings", False)),
        mm_newline_position=content.get("mm_newline_position"),
    )


def with_places(tokenizer: Any) -> Any:
    """A tokenizer with words for images and videos behind its own."""
    tokenizer.add_special_tokens({"additional_special_tokens": list(PLACES)}, replace_extra_special_tokens=False)
    return tokenizer
