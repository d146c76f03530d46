"""A model's configuration; no weights are read."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import fields
from functools import lru_cache
from math import isqrt
from pathlib import Path
from typing import Any, TypeAlias

import torch

from videopool.errors import one_line
from videopool.models.errors import ModelError, is_number, listed
from videopool.models.families import FAMILIES, family_of, kind_of
from videopool.models.original import is_original, original_config
from videopool.models.requirements import misstated
from videopool.models.sizes import check_stretch, feature_layers
from videopool.models.source import CONFIGURATION, locate, read_json
from videopool.notes import note

# Whether a CLS token precedes the patches.
TOWERS = {"clip_vision_model": True, "siglip_vision_model": False, "internvl_vision": True, "smolvlm_vision": False,
          "qwen2_5_vl_vision": False, "qwen3_vl_vision": False, "dinov2": True}  # fmt: skip
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ATTENTIONS = ("sdpa", "eager")  # others take no mask in which the questions of a clip are blind to each other
FrameSize: TypeAlias = int | str | Sequence[int] | None  # of load_backbone()
BY_CLIP = "clip"  # of model.frame_size: views keep the proportions of their clip
RECORD = "videopool"  # a key of config.json that job=merge writes
# Rotary positions that do not depend on the prompt's length or on earlier prompts ("dynamic": within the context).
ROPE_TYPES = ("default", "linear", "llama3", "yarn", "dynamic")
# Keys in files of earlier releases that change nothing here: generation is greedy, and the tokenizer, labels and
# training are configured elsewhere.
HARMLESS = (
    RECORD, "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal", "_commit_hash",
    "_name_or_path", "_pad_token_id", "attn_implementation", "begin_suppress_tokens", "bos_token_id",
    "decoder_start_token_id", "diversity_penalty", "do_sample", "dropout", "early_stopping",
    "encoder_no_repeat_ngram_size", "eos_token_id", "exponential_decay_length_penalty", "finetuning_task",
    "forced_bos_token_id", "forced_eos_token_id", "ignore_index", "image_seq_length", "initializer_factor",
    "initializer_range", "length_penalty", "max_length", "min_length", "mm_newline_position", "name_or_path",
    "num_beam_groups", "num_beams", "num_labels", "num_return_sequences", "out_features", "out_indices",
    "output_attentions", "output_scores", "pad_token_id", "prefix", "pretraining_tp", "projection_dim",
    "remove_invalid_values", "return_dict_in_generate", "sep_token_id", "stage_names", "task_specific_params",
    "temperature", "tf_legacy_loss", "tie_word_embeddings", "tokenizer_class", "top_k", "top_p", "torch_dtype",
    "torchscript", "transformers_version", "typical_p", "use_bfloat16", "use_cache", "use_image_newline_parameter",
    "video_seq_length", "vocab_size",
)  # fmt: skip
# Keys that change nothing as long as they have these values.
DEFAULTS: dict[str, Any] = {
    "add_cross_attention": False, "bad_words_ids": None, "chunk_size_feed_forward": 0, "is_decoder": False,
    "no_repeat_ngram_size": 0, "pruned_heads": {}, "repetition_penalty": 1.0, "suppress_tokens": None,
    "tie_encoder_decoder": False,
}  # fmt: skip


def load_config(
    source: str,
    revision: str | None = None,
    rope_factor: float | None = None,
    target: str | None = None,
    frame_size: FrameSize = None,
) -> Any:
    """A model's transformers configuration; arguments as in load_backbone().

    Raises ModelError if there is none, its family is not supported, or it needs a computation that is not implemented
    here.
    """
    folder = locate(source, revision, wanted=CONFIGURATION)
    try:
        config = deepcopy(_read_config(folder, source, (folder / "config.json").stat().st_mtime_ns))
    except Exception as error:  # whatever transformers raises for a broken file
        raise ModelError(f"model.source={source}: no configuration could be read ({one_line(error)})") from error
    try:
        family = family_of(kind_of(config), target)
    except ModelError as error:
        raise ModelError(f"model.source={source}: {error}") from error
    if problem := misstated(config, read_json(folder / "config.json"), family.mrope):
        raise ModelError(f"model.source={source}: config.json: {problem}")
    vision, unit = config.vision_config, 0
    if family.frame_size:
        vision.image_size, unit = family.frame_size, vision.patch_size * family.merged(config)
    check_frame_size(frame_size, unit, getattr(vision, "image_size", None))
    if family.frame_size:
        vision.image_size = side_of(frame_size, family.frame_size, unit)
        if keeps_proportions(frame_size):
            vision.by_clip = True
    if problem := not_computed(config, target):
        raise ModelError(f"model.source={source}: config.json: {problem}")
    if rope_factor is not None:
        text = config.text_config
        check_stretch(rope_factor, text.rope_parameters.get("rope_type", "default"))
        text.rope_parameters = {**text.rope_parameters, "rope_type": "linear", "factor": float(rope_factor)}
        text.max_position_embeddings = int(text.max_position_embeddings * rope_factor)
    return config


def model_config(model: Mapping[str, Any]) -> Any:
    """The transformers configuration of the group `model`. Raises ModelError as load_config()."""
    keys = ("revision", "rope_factor", "_target_", "frame_size")
    return load_config(model["source"], *(model.get(key) for key in keys))


def recorded(source: str, revision: str | None = None) -> dict[str, Any] | None:
    """What job=merge wrote into a model's config.json, its pooling above all; None for any other model."""
    file = locate(source, revision, wanted=CONFIGURATION) / CONFIGURATION[0]
    record = read_json(file).get(RECORD) if file.is_file() else None
    return record if isinstance(record, dict) else None


@lru_cache(maxsize=8)
def _read_config(folder: Path, source: str, _modified: int) -> Any:
    from transformers import AutoConfig

    if is_original(content := read_json(folder / "config.json")):
        return original_config(content)
    config = AutoConfig.from_pretrained(str(folder))
    if config.model_type in FAMILIES and (unknown := unknown_keys(config, content)):
        note(
            f"model.source={source}: config.json sets {listed(unknown)}; transformers does not know this of such a "
            "model, and nothing here computes it"
        )
    return config


def unknown_keys(config: Any, content: Mapping[str, Any], within: str = "") -> list[str]:
    """Keys of a config.json, with values, that its transformers object does not have and that are not harmless."""
    known = {field.name for field in fields(config)} | set(config.attribute_map) | {"model_type"}
    if "rope_parameters" in known:  # names in older files
        known |= {"rope_theta", "rope_scaling"}
    unknown = []
    for key, value in content.items():
        part = getattr(config, key, None)
        if key in ("text_config", "vision_config") and isinstance(value, Mapping) and part is not None:
            unknown += unknown_keys(part, value, f"{key}.")
        elif key not in known and key not in HARMLESS and value is not None and DEFAULTS.get(key, ...) != value:
            unknown.append(f"{within}{key}={json.dumps(value)[:60]}")
    return unknown


def keeps_proportions(frame_size: FrameSize) -> bool:
    """Whether views have their clip's proportions, and not one size."""
    return frame_size is not None and not is_number(frame_size)


def check_frame_size(frame_size: FrameSize, unit: int, own: int | None) -> None:
    """Raises ModelError for a size of views that a tower cannot take.

    `unit` is the side of a patch of the grid in pixels; 0: the tower takes views of `own` pixels alone.
    """
    if frame_size is None:
        return
    problem = f"the tower takes views of one size, {own}; say null"
    if unit:
        problem = f"give a multiple of {unit}, the side of a patch of the grid in pixels; {BY_CLIP}; or [least,most] "
        problem += f"pixels of a frame, the most at least {unit**2}"
    if not unit or not (_is_side(frame_size, unit) or frame_size == BY_CLIP or _are_limits(frame_size, unit)):
        raise ModelError(f"model.frame_size={frame_size}: {problem}")


def _is_side(value: Any, unit: int) -> bool:
    return _is_whole(value) and value >= unit and value % unit == 0


def _are_limits(value: Any, unit: int) -> bool:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2 or not all(map(_is_whole, value)):
        return False
    return bool(1 <= value[0] <= value[1] and value[1] >= unit**2)


def _is_whole(value: Any) -> bool:
    return is_number(value) and isinstance(value, int)


def side_of(frame_size: FrameSize, usual: int, unit: int) -> int:
    """Side in pixels of views of a size that check_frame_size() allows; of views by clip, the side that is assumed."""
    if frame_size is None or isinstance(frame_size, str):
        return usual
    return frame_size if isinstance(frame_size, int) else isqrt(frame_size[1]) // unit * unit


def not_computed(config: Any, target: str | None) -> str:
    """The first setting that is not computed here, or ""; transformers' own parts compute all others."""
    text, vision = config.text_config, config.vision_config
    for part in (config, text, vision):
        if getattr(part, "quantization_config", None) is not None:
            return "quantization_config: quantised weights are not read; take the model before quantisation"
        if getattr(part, "return_dict", True) is not True:
            return f"return_dict={part.return_dict}: leave it out"
    window, kinds = getattr(text, "sliding_window", None), set(getattr(text, "layer_types", None) or [])
    others = sorted(kinds - {"full_attention", "sliding_attention"})
    if others:
        return f"text_config: layer_types: {', '.join(others)} is not computed here; take a model of full attention"
    if window is not None or getattr(text, "use_sliding_window", False) or kinds - {"full_attention"}:
        return (
            f"text_config: sliding_window={window}: attention in sliding windows is not computed here; set "
            "sliding_window to null"
        )
    rope = (getattr(text, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in ROPE_TYPES:
        return f"text_config: rope_type={rope}: choose one of {', '.join(ROPE_TYPES)}"
    if vision.model_type not in TOWERS:
        return ""  # model_shape() reports it
    for name in ("image_size", "patch_size"):
        size = getattr(vision, name)
        if not isinstance(size, int) and len(set(size)) != 1:
            return f"vision_config: {name}={list(size)}: views and patches must be square"
    if (channels := getattr(vision, "num_channels", 3)) != 3:
        return f"vision_config: num_channels={channels}: frames have 3"
    if getattr(vision, "use_swiglu_ffn", False):
        return "vision_config: use_swiglu_ffn=true: DINOv2's giant is not read; take small, base or large"
    if (together := getattr(vision, "temporal_patch_size", 1)) != family_of(kind_of(config), target).together:
        return f"vision_config: temporal_patch_size={together}: two frames make a patch"
    depth, layers = vision.num_hidden_layers, feature_layers(config)
    levels = list(getattr(vision, "deepstack_visual_indexes", ()))
    if levels != sorted(set(levels) & set(range(depth))) or len(levels) > text.num_hidden_layers:
        return f"vision_config: deepstack_visual_indexes={levels}: the tower has blocks 0..{depth - 1}, each once"
    if not layers or not all(-depth - 1 <= layer <= depth for layer in layers):
        return f"vision_feature_layer={config.vision_feature_layer}: the tower has hidden states {-depth - 1}..{depth}"
    side, merge = vision.image_size, family_of(kind_of(config), target).merged(config)
    side = (side if isinstance(side, int) else side[0]) // (
        vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
    )
    if side % merge:
        return f"{side} x {side} patches of a view cannot be merged by {merge} x {merge}"
    if not hasattr(config, "vision_feature_select_strategy"):
        return ""
    strategy, cls = config.vision_feature_select_strategy, TOWERS[vision.model_type]
    if (strategy == "default") == cls:
        return ""
    why = "it drops the first token, which is a patch in a tower without CLS token; set full"
    if cls:
        why = "it keeps the CLS token among the patches, where a grid has no place for it; set default"
    return f"vision_feature_select_strategy={strategy}: {why}"
