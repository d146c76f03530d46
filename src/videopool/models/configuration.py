"""A model's configuration, without anything that its weights would need."""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from videopool.models.errors import ModelError
from videopool.models.families import FAMILIES, family_of
from videopool.models.source import CONFIGURATION, locate
from videopool.notes import note

TOWERS = {"clip_vision_model": True, "siglip_vision_model": False}  # whether a CLS token stands before the patches
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LISTED_KEYS = 4
# Rotary positions that do not depend on how long the prompt is, or on those that were read before.
ROPE_TYPES = ("default", "linear", "llama3", "yarn")
# In files of earlier releases, without effect on what is computed here: generation is greedy, and tokens, labels and
# training are others' business.
HARMLESS = (
    "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal", "_commit_hash",
    "_name_or_path", "attn_implementation", "begin_suppress_tokens", "bos_token_id", "decoder_start_token_id",
    "diversity_penalty", "do_sample", "dropout", "early_stopping", "encoder_no_repeat_ngram_size", "eos_token_id",
    "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "ignore_index",
    "image_seq_length", "initializer_factor", "initializer_range", "length_penalty", "max_length", "min_length",
    "name_or_path", "num_beam_groups", "num_beams", "num_labels", "num_return_sequences", "output_attentions",
    "output_scores", "pad_token_id", "prefix", "pretraining_tp", "projection_dim", "remove_invalid_values",
    "return_dict_in_generate", "sep_token_id", "task_specific_params", "temperature", "tf_legacy_loss",
    "tie_word_embeddings", "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "transformers_version",
    "typical_p", "use_bfloat16", "use_cache", "use_image_newline_parameter", "video_seq_length", "vocab_size",
)  # fmt: skip
# Harmless as long as they have these values, which say nothing.
DEFAULTS: dict[str, Any] = {
    "add_cross_attention": False, "bad_words_ids": None, "chunk_size_feed_forward": 0, "is_decoder": False,
    "no_repeat_ngram_size": 0, "pruned_heads": {}, "repetition_penalty": 1.0, "suppress_tokens": None,
    "tie_encoder_decoder": False,
}  # fmt: skip


def load_config(
    source: str, revision: str | None = None, rope_factor: float | None = None, target: str | None = None
) -> Any:
    """A model's transformers configuration.

    Args:
        source: folder, Hugging Face id, or "videopool:...".
        revision: commit or branch on the hub.
        rope_factor: stretch the language model's rotary positions by this factor (linear scaling), and its
            context with them.
        target: the user's class for the family, as family_of() takes it.

    Raises:
        ModelError: there is none, it is of a family that is not supported, or it asks for what is not computed here.
    """
    folder = locate(source, revision, wanted=CONFIGURATION)
    refuse_adapter(folder, source)
    try:
        config = deepcopy(_read_config(folder, source, (folder / "config.json").stat().st_mtime_ns))
    except Exception as error:  # whatever transformers makes of a broken file
        raise ModelError(f"model.source={source}: no configuration could be read ({first_line(error)})") from error
    try:
        family_of(config.model_type, target)
    except ModelError as error:
        raise ModelError(f"model.source={source}: {error}") from error
    if wrong := _not_computed(config):
        raise ModelError(f"model.source={source}: config.json: {wrong}")
    if rope_factor is not None:
        _stretch(config.text_config, rope_factor)
    return config


def model_config(model: Mapping[str, Any]) -> Any:
    """The transformers configuration of the group `model`. Raises ModelError as load_config()."""
    return load_config(model["source"], *(model.get(key) for key in ("revision", "rope_factor", "_target_")))


def refuse_adapter(folder: Path, source: str) -> None:
    """Raises ModelError for an adapter's folder: transformers would load the base that it names, wherever that is."""
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"model.source={source}: {folder} is an adapter (adapter_config.json); give its base as model.source and "
            "the folder as lora.checkpoint"
        )


@lru_cache(maxsize=8)
def _read_config(folder: Path, source: str, _modified: int) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder))
    if config.model_type in FAMILIES and (unknown := unknown_keys(config, read_json(folder / "config.json"))):
        more = f" and {len(unknown) - LISTED_KEYS} more" if len(unknown) > LISTED_KEYS else ""
        note(
            f"model.source={source}: config.json says {', '.join(unknown[:LISTED_KEYS])}{more}, which "
            "transformers does not know of such a model and nothing here computes"
        )
    return config


def unknown_keys(config: Any, content: Mapping[str, Any], within: str = "") -> list[str]:
    """Keys of a config.json, with values, that its classes in transformers do not have and that are not harmless.

    Args:
        config: what transformers made of it.
        content: of the file.
        within: name of the part that it is of, with a dot.
    """
    known = {field.name for field in fields(config)} | set(config.attribute_map) | {"model_type"}
    if "rope_parameters" in known:  # what older files say instead
        known |= {"rope_theta", "rope_scaling"}
    found = []
    for key, value in content.items():
        part = getattr(config, key, None)
        if key in ("text_config", "vision_config") and isinstance(value, Mapping) and part is not None:
            found += unknown_keys(part, value, f"{key}.")
        elif key not in known and key not in HARMLESS and value is not None and DEFAULTS.get(key, ...) != value:
            found.append(f"{within}{key}={json.dumps(value)[:60]}")
    return found


def _not_computed(config: Any) -> str:
    """What a configuration asks for that is not computed here, or ""; all else is done by transformers' own parts."""
    text, vision = config.text_config, config.vision_config
    for part in (config, text, vision):
        if getattr(part, "quantization_config", None) is not None:
            return "quantization_config: quantised weights are not read; take the model as it was before"
        if getattr(part, "return_dict", True) is not True:
            return f"return_dict={part.return_dict}: leave it out"
    windows = [kind for kind in getattr(text, "layer_types", None) or [] if kind != "full_attention"]
    if getattr(text, "sliding_window", None) is not None or getattr(text, "use_sliding_window", False) or windows:
        said = f"sliding_window={getattr(text, 'sliding_window', None)}"
        return f"text_config: {said}: attention in sliding windows is not computed here; set sliding_window to null"
    rope = (getattr(text, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in ROPE_TYPES:
        return f"text_config: rope_type={rope}: choose one of {', '.join(ROPE_TYPES)}"
    if vision.model_type not in TOWERS:
        return ""  # model_shape() says so
    for name in ("image_size", "patch_size"):
        size = getattr(vision, name)
        if not isinstance(size, int) and len(set(size)) != 1:
            return f"vision_config: {name}={list(size)}: views and patches are square here"
    if vision.num_channels != 3:
        return f"vision_config: num_channels={vision.num_channels}: frames have 3"
    return _features_not_computed(config, vision)


def _features_not_computed(config: Any, vision: Any) -> str:
    depth, chosen = vision.num_hidden_layers, config.vision_feature_layer
    layers = [chosen] if isinstance(chosen, int) else list(chosen)
    if not layers or not all(-depth - 1 <= layer <= depth for layer in layers):
        return f"vision_feature_layer={chosen}: the tower has hidden states {-depth - 1}..{depth}"
    strategy, cls = config.vision_feature_select_strategy, TOWERS[vision.model_type]
    if (strategy == "default") != cls:
        why = (
            "it keeps the CLS token among the patches, where a grid has no place for it; say default"
            if cls
            else "it leaves the first token out, which is a patch in a tower without CLS token; say full"
        )
        return f"vision_feature_select_strategy={strategy}: {why}"
    return ""


def _stretch(text: Any, factor: float) -> None:
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or factor < 1:
        raise ModelError(f"model.rope_factor={factor!r}: give a number of at least 1, or null")
    rope = dict(text.rope_parameters)
    if rope.get("rope_type", "default") != "default":
        raise ModelError(f"model.rope_factor={factor}: the model scales its positions already ({rope['rope_type']})")
    text.rope_parameters = {**rope, "rope_type": "linear", "factor": float(factor)}
    text.max_position_embeddings = int(text.max_position_embeddings * factor)


def name_keys(wrong: Mapping[str, list[str]]) -> str:
    """The first few of each kind of wrong keys, and how many more there are."""
    parts = []
    for kind, keys in wrong.items():
        more = f" and {len(keys) - LISTED_KEYS} more" if len(keys) > LISTED_KEYS else ""
        parts.append(f"{kind.replace('_', ' ')}: {', '.join(keys[:LISTED_KEYS])}{more}")
    return "; ".join(parts)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object beside a model's weights. Raises ModelError if it is broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: no JSON object")
    return content


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
