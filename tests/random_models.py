"""Random models of each family, tiny, saved by transformers in a folder as released ones are."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLTextConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLTextConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMVisionConfig,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)

from videopool.shapes.tokenizer import build_tokenizer

SIDE, PATCH = 48, 8  # pixels; 6 x 6 patches
NEW = ("llava_video", "internvl", "smolvlm")  # which save_new() makes
QWEN = ("qwen2_5_vl", "qwen3_vl")
ADDED = (*NEW, *QWEN)


def save_added(folder: Path, family: str) -> Path:
    """Make and save a model of a family in ADDED."""
    return save_qwen(folder, family) if family in QWEN else save_new(folder, family)


def tokenizer_with(*words: str):
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(words)})
    return tokenizer


def clip(side=SIDE, **more):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    return CLIPVisionConfig(**sizes, image_size=side, patch_size=PATCH, projection_dim=16, **more)


def siglip():
    return SiglipVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=SIDE,
        patch_size=PATCH, vision_use_head=False,
    )  # fmt: skip


def text(kind, tokenizer, **more):
    return kind(
        vocab_size=len(tokenizer) + 3,  # released models are padded too
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **more,
    )


def save(folder: Path, family: str, seed: int = 0, **more) -> Path:
    """Make and save a model of a family: "llava", "llava_next", "llava_onevision" or "video_llava"."""
    torch.manual_seed(seed)  # also for what the loop below leaves as it is made
    tokenizer, side = tokenizer_with("<video>"), more.get("side", SIDE)
    marks = {name: tokenizer.convert_tokens_to_ids(f"<{name}>") for name in ("image", "video")}
    crop = {"do_center_crop": True, "size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    tied = {"tie_word_embeddings": more.get("tied", False)}
    square = {"do_center_crop": False, "size": {"height": SIDE, "width": SIDE}}
    if family == "llava":
        model = LlavaForConditionalGeneration(
            LlavaConfig(
                vision_config=clip(side), text_config=text(LlamaConfig, tokenizer), image_token_index=marks["image"],
                vision_feature_layer=more.get("layers", -2), image_seq_length=36,
            )
        )  # fmt: skip
        kind, view = "CLIPImageProcessor", crop
    elif family == "llava_next":
        model = LlavaNextForConditionalGeneration(
            LlavaNextConfig(
                vision_config=clip(), text_config=text(MistralConfig, tokenizer, sliding_window=None),
                image_token_index=marks["image"], image_grid_pinpoints=[[SIDE, 2 * SIDE], [2 * SIDE, SIDE]],
            )
        )  # fmt: skip
        kind, view = "LlavaNextImageProcessor", {**crop, "image_grid_pinpoints": [[SIDE, 2 * SIDE]]}
    elif family == "llava_onevision":
        model = LlavaOnevisionForConditionalGeneration(
            LlavaOnevisionConfig(
                vision_config=siglip(), text_config=text(Qwen2Config, tokenizer, **tied),
                image_token_index=marks["image"], video_token_index=marks["video"],
            )
        )  # fmt: skip
        kind, view = "LlavaOnevisionImageProcessor", square
    else:
        model = VideoLlavaForConditionalGeneration(
            VideoLlavaConfig(
                vision_config=clip(), text_config=text(LlamaConfig, tokenizer),
                image_token_index=marks["image"], video_token_index=marks["video"],
            )
        )  # fmt: skip
        kind, view = "VideoLlavaImageProcessor", crop
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {"image_processor_type": kind, "do_resize": True, "resample": 3, "do_rescale": True, **view}
    settings |= {"do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def like_mini(folder: Path) -> list[str]:
    """Words that choose a model with the toy model's patches, words and name, but a fraction of its weights."""
    return ["model=local", "model.name=mini", "prompt=plain", f"model.source={save(folder, 'llava', side=2 * SIDE)}"]


def byte_tokenizer(*words: str):
    """Byte-level BPE with few merges, which span line breaks, blanks and words as those of released models do."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ċ", "Ċ"), ("Ġ", "t"), ("Ġt", "h"), ("r", "a"), ("F", "ra"), ("Ġ", "Y"), ("0", "0"), (":", "Ġ")]
    vocabulary = {word: number for number, word in enumerate([*alphabet, *map("".join, merges)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>", bos_token="<s>")
    made.add_special_tokens({"additional_special_tokens": list(words)})
    return made


def save_new(folder: Path, family: str, seed: int = 0, text_kind: Any = None) -> Path:
    """Make and save a model of a family in NEW."""
    marks = {
        "llava_video": ("<image>", "<video>"),
        "internvl": ("<IMG_CONTEXT>", "<img>", "</img>", "<video>"),
        "smolvlm": ("<image>", "<fake_token_around_image>", "<global-img>"),
    }[family]
    tokenizer = byte_tokenizer(*marks)
    place = tokenizer.convert_tokens_to_ids(marks[0])
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    square = {"do_center_crop": False, "size": {"height": SIDE, "width": SIDE}}
    torch.manual_seed(seed)
    if family == "llava_video":
        model = LlavaOnevisionForConditionalGeneration(
            LlavaOnevisionConfig(
                vision_config=siglip(), text_config=text(text_kind or Qwen2Config, tokenizer), image_token_index=place,
                video_token_index=place + 1, mm_newline_position="grid",
            )
        )  # fmt: skip
        kind = "LlavaOnevisionImageProcessor"
    elif family == "internvl":
        vision = InternVLVisionConfig(
            **sizes, image_size=[SIDE, SIDE], patch_size=[PATCH, PATCH], attention_bias=True, use_mean_pooling=True,
            norm_type="layer_norm",
        )  # fmt: skip
        own = text(text_kind or Qwen3Config, tokenizer, head_dim=16, tie_word_embeddings=False)
        model = InternVLForConditionalGeneration(
            InternVLConfig(
                vision_config=vision, text_config=own, image_token_id=place, image_seq_length=9,
                tie_word_embeddings=False,
            )
        )  # fmt: skip
        kind = "GotOcr2ImageProcessor"
    else:
        model = SmolVLMForConditionalGeneration(
            SmolVLMConfig(
                vision_config=SmolVLMVisionConfig(**sizes, image_size=SIDE, patch_size=PATCH), scale_factor=3,
                text_config=text(text_kind or LlamaConfig, tokenizer), image_token_id=place,
            )
        )  # fmt: skip
        kind = "SmolVLMImageProcessor"
        square = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5)
            elif "norm" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {"image_processor_type": kind, "do_resize": True, "resample": 3, "do_rescale": True, **square}
    settings |= {"do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def save_qwen(folder: Path, family: str = "qwen2_5_vl", seed: int = 0) -> Path:
    """Make and save a model of a family in QWEN: patches of 8 pixels, of which 2 x 2 merge.

    Qwen2.5-VL's tower attends in windows of 4 x 4; Qwen3-VL's has two levels of DeepStack, and 4 x 4 positions.
    """
    words = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    tokenizer = byte_tokenizer(*words)
    ids = tokenizer.convert_tokens_to_ids(list(words))
    torch.manual_seed(seed)
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "patch_size": 8, "out_hidden_size": 64,
    }  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    kinds: tuple[Any, Any, Any] = Qwen2_5_VLTextConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
    more: dict[str, Any] = {}
    if family == "qwen3_vl":
        kinds = Qwen3VLTextConfig, Qwen3VLConfig, Qwen3VLForConditionalGeneration
        vision |= {"depth": 3, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16}
        more = {"head_dim": 16}
    else:
        vision |= {"window_size": 32, "fullatt_block_indexes": [1], "tokens_per_second": 2}
    own = text(kinds[0], tokenizer, rope_parameters=rope, **more)
    model = kinds[2](
        kinds[1](
            vision_config=vision, text_config=own.to_dict(), image_token_id=ids[0], video_token_id=ids[1],
            vision_start_token_id=ids[2], vision_end_token_id=ids[3],
        )
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * parameter[0].numel() ** -0.5)
            elif "norm" in name or "ln_q" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {"image_processor_type": "Qwen2VLImageProcessor", "do_resize": True, "resample": 3, "do_rescale": True}
    settings |= {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.5, 0.5], "merge_size": 2}
    settings |= {"patch_size": 8, "size": {"shortest_edge": 64, "longest_edge": 65536}, "temporal_patch_size": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


PART_VIEW = {"do_resize": True, "resample": 3, "do_rescale": True, "do_normalize": True}
PART_VIEW |= {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.5, 0.5]}
SQUARE = {"size": {"height": SIDE, "width": SIDE}, "image_processor_type": "SiglipImageProcessor"}
CROP = {"do_center_crop": True, "size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
CROP |= {"image_processor_type": "CLIPImageProcessor"}


def save_parts(root: Path) -> Path:
    """Save towers ("clip", "tower", "siglip", "dino") and language models ("llama", "qwen2") in folders of their own.

    The table of "llama" ends with its tokenizer's last word.
    """
    torch.manual_seed(0)
    dino = Dinov2Model(
        Dinov2Config(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, mlp_ratio=2, image_size=7 * PATCH,
                     patch_size=PATCH, layerscale_value=0.5)
    )  # fmt: skip
    with torch.no_grad():
        for weight in (dino.embeddings.position_embeddings, dino.embeddings.cls_token):
            weight.normal_()
    whole = CLIPConfig(
        text_config=CLIPTextConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2),
        vision_config=clip(),
    )
    words = {word: number for number, word in enumerate(["<s>", "</s>", "<unk>", "what", "is", "it", "A", "B", "red"])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")), bos_token="<s>", eos_token="</s>",
        unk_token="<unk>", pad_token="</s>",
    )  # fmt: skip
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}{{ ' is it' }}"
    made = {
        "clip": (CLIPModel(whole), CROP),
        "tower": (CLIPVisionModel(clip()), CROP),
        "siglip": (SiglipVisionModel(siglip()), SQUARE),
        "dino": (dino, CROP | {"image_processor_type": "BitImageProcessor"}),
        "llama": (AutoModelForCausalLM.from_config(text(LlamaConfig, tokenizer)), None),
        "qwen2": (AutoModelForCausalLM.from_config(text(Qwen2Config, tokenizer, tie_word_embeddings=True)), None),
    }
    made["llama"][0].resize_token_embeddings(len(tokenizer))
    for name, (model, view) in made.items():
        model.save_pretrained(root / name)
        if view is None:
            tokenizer.save_pretrained(root / name)
        else:
            (root / name / "preprocessor_config.json").write_text(json.dumps(PART_VIEW | view))
    return root


FAMILIES = ("llava", "llava_next", "llava_onevision", "video_llava")


def lora_checkpoint(backbone, to, rank=4, prefix="base_model.model.language_model.base_model.model.model.", **drop):
    """A checkpoint of LoRA on queries and values and of the projector, with random numbers."""
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for number, layer in enumerate(backbone.model.model.language_model.layers):
        for name in ("q_proj", "v_proj"):
            weight = getattr(layer.self_attn, name).weight
            at = f"{prefix}layers.{number}.self_attn.{name}"
            tensors[f"{at}.lora_A.weight"] = torch.randn(rank, weight.shape[1], generator=generator) * 0.1
            tensors[f"{at}.lora_B.weight"] = torch.randn(weight.shape[0], rank, generator=generator) * 0.1
    for name, value in backbone.model.model.multi_modal_projector.state_dict().items():
        noise = torch.randn(value.shape, generator=generator) * 0.01
        tensors[f"whatever.multi_modal_projector.{name}"] = value + noise
    for name in drop.get("without", ()):
        tensors = {key: value for key, value in tensors.items() if name not in key}
    tensors |= drop.get("more", {})
    to.mkdir(parents=True)
    save_file(tensors, to / "model.safetensors")
    (to / "config.json").write_text("{}")
    return str(to), tensors
