"""Sizes from configurations and conf/model files, and what they say about cost, against transformers and torch."""

from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    DynamicCache,
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
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen3Config,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipVisionConfig,
    SiglipVisionModel,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMVisionConfig,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)

from composed import composed
from random_models import QWEN, save
from videopool.models import ModelError, load_backbone, load_config
from videopool.models.backbone import VISION_CHUNK
from videopool.models.cost import (
    feature_bytes,
    kv_cache_bytes,
    parameter_count,
    peak_bytes,
    prefill_flops,
    projector_flops,
    tower_flops,
    weight_bytes,
)
from videopool.models.passes import tower_pass
from videopool.models.shape import ModelShape, model_shape, point_shape, shape_differences, shape_from
from videopool.models.tower_outputs import LayerStates
from videopool.paths import shipped
from videopool.reading.answers import greedy_answers, next_token_logits, prefill
from videopool.speed.meta import Live

FAMILIES = {
    "llava": (LlavaConfig, LlavaForConditionalGeneration),
    "llava_next": (LlavaNextConfig, LlavaNextForConditionalGeneration),
    "llava_onevision": (LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration),
    "video_llava": (VideoLlavaConfig, VideoLlavaForConditionalGeneration),
    "llava_video": (LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration),
    "internvl": (InternVLConfig, InternVLForConditionalGeneration),
    "smolvlm": (SmolVLMConfig, SmolVLMForConditionalGeneration),
    "qwen2_5_vl": (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration),
    "qwen3_vl": (Qwen3VLConfig, Qwen3VLForConditionalGeneration),
}
TEXTS = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
RELEASED = sorted(p.stem for p in (shipped("conf") / "model").glob("*.yaml") if "shape:\n" in p.read_text())


def block(name):
    return OmegaConf.to_container(composed(f"model={name}").model.shape)


def qwen(shape):
    """As configuration()."""
    sections = [shape.head_dim // 2 - 2 * (shape.head_dim // 6), *[shape.head_dim // 6] * 2]
    vision = {
        "depth": shape.vision_layers, "hidden_size": shape.tower_dim, "intermediate_size": shape.vision_intermediate,
        "num_heads": shape.vision_heads, "patch_size": shape.patch, "spatial_merge_size": shape.merge,
        "out_hidden_size": shape.dim, "temporal_patch_size": shape.together,
    }  # fmt: skip
    if shape.levels:
        last = shape.vision_layers
        vision |= {"deepstack_visual_indexes": list(range(last - 2 * shape.levels, last, 2))}
        vision |= {"num_position_embeddings": shape.tower_positions}
    else:
        vision |= {"window_size": shape.window * shape.patch, "fullatt_block_indexes": list(range(shape.whole_blocks))}
    text = {
        "hidden_size": shape.dim, "intermediate_size": shape.intermediate, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.context, "tie_word_embeddings": shape.tied,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta, "mrope_section": sections},
        **({"head_dim": shape.head_dim} if shape.levels else {}),
    }  # fmt: skip
    config = FAMILIES[shape.family][0](vision_config=vision, text_config=text, tie_word_embeddings=shape.tied)
    config.vision_config.image_size = shape.image_size  # as loading sets it
    return config


def configuration(shape):
    """The transformers configuration that a shape describes."""
    if shape.mrope:
        return qwen(shape)
    vision_kind = CLIPVisionConfig if shape.cls else SiglipVisionConfig
    vision_kind = {"internvl": InternVLVisionConfig, "smolvlm": SmolVLMVisionConfig}.get(shape.tower, vision_kind)
    vision = vision_kind(
        hidden_size=shape.tower_dim,
        intermediate_size=shape.vision_intermediate,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=shape.vision_heads,
        image_size=shape.image_size,
        patch_size=shape.patch,
        **({"vision_use_head": shape.pooling_head} if vision_kind is SiglipVisionConfig else {}),
        **({"attention_bias": True} if shape.tower == "internvl" else {}),
    )
    text = TEXTS[shape.text](
        hidden_size=shape.dim,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.context,
        tie_word_embeddings=shape.tied,
        rope_parameters={"rope_theta": shape.rope_theta, "rope_type": shape.rope_type, "factor": shape.rope_factor},
        **({"head_dim": shape.head_dim} if shape.text == "qwen3" else {}),
        **({"attention_bias": shape.qkv_bias} if shape.text == "llama" else {}),
    )
    more = {"mm_newline_position": "grid"} if shape.row_newlines else {}
    if shape.family == "internvl":
        more = {"downsample_ratio": 1 / shape.merge}
    if shape.family == "smolvlm":
        return SmolVLMConfig(
            vision_config=vision, text_config=text, scale_factor=shape.merge, tie_word_embeddings=shape.tied
        )
    return FAMILIES[shape.family][0](
        **more,
        vision_config=vision,
        text_config=text,
        vision_feature_layer=shape.vision_layers_run - shape.vision_layers - 1,
        tie_word_embeddings=shape.tied,
        **({} if shape.family == "internvl" else {"multimodal_projector_bias": shape.projector_bias}),
    )


def small(family="llava", text="llama", **changes):
    sizes = {
        "height": 6, "width": 6, "vision_dim": 32, "dim": 48, "context": 4096, "layers": 3, "heads": 4, "kv_heads": 2,
        "head_dim": 12, "intermediate": 112, "vocabulary": 70, "family": family, "text": text, "vision_layers": 4,
        "vision_layers_run": 3, "vision_heads": 4, "vision_intermediate": 80, "patch": 4, "image_size": 24,
    }  # fmt: skip
    if family == "llava_onevision":
        sizes |= {"cls": False, "separators": 1}
    if family == "video_llava":
        sizes |= {"towers": 2}
    if family == "llava_video":
        sizes |= {"cls": False, "row_newlines": True}
    if family == "internvl":
        sizes |= {"height": 3, "width": 3, "merge": 2, "vision_dim": 128, "tower": "internvl", "projector_norm": True}
        sizes |= {"frame_text": 7, "vision_layers_run": 4}
    if family == "smolvlm":
        sizes |= {"height": 2, "width": 2, "merge": 3, "vision_dim": 288, "tower": "smolvlm", "cls": False}
        sizes |= {"frame_text": 13, "vision_layers_run": 4, "projector_layers": 1, "projector_bias": False}
    if family in QWEN:
        sizes |= {"height": 5, "width": 5, "image_size": 40, "merge": 2, "vision_dim": 128, "tower": family}
        sizes |= {"cls": False, "together": 2, "mrope": True, "vision_layers_run": 4, "projector_width": 128}
    if family == "qwen2_5_vl":
        sizes |= {"window": 4, "whole_blocks": 1}
    if family == "qwen3_vl":
        sizes |= {"levels": 2, "tower_positions": 36, "frame_text": 9}
    if text in ("qwen2", "qwen2_5_vl_text"):
        sizes |= {"qkv_bias": True}
    return shape_from({**sizes, **changes})


SMALL = [
    small("llava", "llama"),
    small("llava", "llama", qkv_bias=True, tied=True),
    small("llava", "mistral", projector_bias=False),
    small("llava", "qwen2", cls=False, pooling_head=True),
    small("llava_next", "mistral"),
    small("llava_onevision", "qwen2", tied=True),
    small("video_llava", "llama"),
    small("llava_video", "qwen2"),
    small("internvl", "qwen3"),
    small("internvl", "qwen2"),
    small("smolvlm", "llama"),
    small("qwen2_5_vl", "qwen2_5_vl_text"),
    small("qwen3_vl", "qwen3_vl_text", tied=True),
]


def weights_of(shape):
    with torch.device("meta"):
        model = FAMILIES[shape.family][1](configuration(shape))
        model.tie_weights()
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", RELEASED)
def test_released_models_have_the_sizes_that_their_files_say(name):
    shape = shape_from(block(name))
    assert model_shape(configuration(shape)) == shape
    assert parameter_count(shape) == weights_of(shape)


BILLIONS = {"llava_1.5_7b": 7.06, "llava_next_vicuna_13b": 13.35, "llava_next_34b": 34.75, "video_llava_7b": 7.37}
BILLIONS |= {"llava_onevision_0.5b": 0.894, "llava_onevision_7b": 8.03, "llava_video_7b": 8.03, "llava_video_72b": 73.2}
BILLIONS |= {"internvl3_8b": 7.94, "internvl3_5_8b": 8.53, "smolvlm2_256m": 0.2565, "smolvlm2_500m": 0.5075}
BILLIONS |= {"smolvlm2_2.2b": 2.247, "qwen2.5_vl_7b": 8.29, "qwen2.5_vl_3b": 3.755}
BILLIONS |= {"qwen3_vl_2b": 2.1275, "qwen3_vl_4b": 4.438, "qwen3_vl_8b": 8.767}


@pytest.mark.parametrize("name", BILLIONS)
def test_released_models_keep_their_totals(name):
    assert parameter_count(shape_from(block(name))) / 1e9 == pytest.approx(BILLIONS[name], rel=0.002)


@pytest.mark.parametrize("shape", SMALL, ids=lambda s: f"{s.family}-{s.text}")
def test_parameters_of_small_models(shape):
    assert model_shape(configuration(shape)) == shape
    assert parameter_count(shape) == weights_of(shape)
    assert weight_bytes(shape, 2) == 2 * parameter_count(shape)


def counted(function, *arguments, **options):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(*arguments, **options)
    return counter.get_total_flops()


@pytest.mark.parametrize("text", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("tokens", [64, 700])
def test_prefill_agrees_with_torchs_counter(text, tokens):
    shape = small("llava", text)
    model = LlavaForConditionalGeneration._from_config(configuration(shape), attn_implementation="eager").eval()
    real = counted(model.model.language_model, inputs_embeds=torch.randn(1, tokens, shape.dim), use_cache=False)
    assert prefill_flops(shape, tokens) == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize("kind", [CLIPVisionModel, SiglipVisionModel])
@pytest.mark.parametrize("layers_run", [2, 4])
def test_tower_up_to_the_feature_layer_agrees_with_torchs_counter(kind, layers_run):
    shape = small(cls=kind is CLIPVisionModel, vision_layers_run=layers_run)
    config = configuration(shape).vision_config
    config.num_hidden_layers = layers_run
    model = kind._from_config(config, attn_implementation="eager").eval()
    assert tower_flops(shape, 5) == pytest.approx(counted(model, torch.randn(5, 3, 24, 24)), rel=0.02)


@pytest.mark.parametrize("shape", [replace(SMALL[7], vision_layers_run=4), *SMALL[-4:-2]], ids=lambda s: s.family)
def test_towers_of_added_families_agree_with_torchs_counter(shape):
    """The tower's positions are those before the merging."""
    model = FAMILIES[shape.family][1]._from_config(configuration(shape), attn_implementation="eager").eval()
    tower = getattr(model.model, "vision_tower", None) or model.model.vision_model
    assert tower_flops(shape, 5) == pytest.approx(counted(tower, torch.randn(5, 3, 24, 24)), rel=0.02)
    projector = getattr(model.model, "multi_modal_projector", None) or model.model.connector.modality_projection
    tokens = torch.randn(2, 9, shape.vision_dim)
    assert projector_flops(shape, 18) == pytest.approx(counted(projector, tokens), rel=0.02)


@pytest.mark.parametrize("shape", SMALL[-2:], ids=lambda s: s.family)
def test_qwens_towers_and_language_models_agree_with_torchs_counter(shape):
    """Windows of 4 x 4 patches, and smaller ones at the edges of 10 x 10; DeepStack's projectors are in the tower."""
    model = FAMILIES[shape.family][1]._from_config(configuration(shape), attn_implementation="eager").eval()
    side, tokens = shape.height * shape.merge, 5 * shape.height * shape.width
    patches = torch.randn(5 * side**2, 3 * shape.together * shape.patch**2)
    real = counted(model.model.visual, patches, grid_thw=torch.tensor([[5, side, side]]))
    assert tower_flops(shape, 5) + projector_flops(shape, tokens) == pytest.approx(real, rel=0.02)
    real = counted(model.model.language_model, inputs_embeds=torch.randn(1, 300, shape.dim), use_cache=False)
    assert prefill_flops(shape, 300) == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize("shape", SMALL[:4:3], ids=lambda s: s.text)
def test_projector_agrees_with_torchs_counter(shape):
    model = LlavaForConditionalGeneration(configuration(shape))
    real = counted(model.model.multi_modal_projector, torch.randn(2, 36, shape.vision_dim))
    assert projector_flops(shape, 72) == pytest.approx(real, rel=0.02)


def test_the_published_setting():
    """Vicuna-7B over 16 frames pooled to 12 x 12: about 32 TFLOPs, after 5.9 for CLIP's tower."""
    shape = shape_from(block("llava_next_vicuna_7b"))
    assert prefill_flops(shape, 2304) / 1e12 == pytest.approx(32, rel=0.03)
    assert tower_flops(shape, 16) / 1e12 == pytest.approx(5.9, rel=0.03)
    assert kv_cache_bytes(shape, 2304, 2) == 2304 * 524288
    assert feature_bytes(shape, 2) == 577 * 1024 * 2


@pytest.mark.parametrize("shape", SMALL, ids=lambda s: f"{s.family}-{s.text}")
def test_cache_is_as_large_as_transformers(shape):
    model = FAMILIES[shape.family][1](configuration(shape)).eval()
    cache = DynamicCache(config=model.config.text_config)
    text = getattr(model.model, "language_model", None) or model.model.text_model
    text(inputs_embeds=torch.randn(1, 50, shape.dim), past_key_values=cache)
    assert kv_cache_bytes(shape, 50, 4) == sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


@torch.inference_mode()
def traced_peak(shape, frames, tokens, attention):
    """Most bytes that activations take at once while one clip goes through all parts, as job=evaluate does it."""
    model = LlavaForConditionalGeneration._from_config(configuration(shape), attn_implementation=attention).eval()
    pixels = torch.randn(frames, 3, shape.image_size, shape.image_size)
    first = int(shape.cls)
    size = first + shape.height * shape.width, shape.vision_dim
    own = LayerStates("", size, (shape.vision_layers_run,))
    tower = model.model.vision_tower
    with Live() as live:
        features = torch.cat([tower_pass(tower, chunk, [own])[0] for chunk in pixels.split(VISION_CHUNK)])
        grid = model.model.multi_modal_projector(features[:, first:])
        read = grid.flatten(0, 1)[:tokens][None].clone()
        del features, grid
        cache = DynamicCache(config=model.config.text_config)
        hidden = model.model.language_model(inputs_embeds=read, past_key_values=cache, use_cache=True).last_hidden_state
        model.lm_head(hidden[:, -1])
    return live.peak


@pytest.mark.parametrize(
    ("frames", "tokens", "attention"),
    [(2, 72, "sdpa"), (4, 30, "sdpa"), (40, 36, "sdpa"), (40, 1440, "sdpa"), (40, 1440, "eager")],
)
@pytest.mark.parametrize("text", ["llama", "qwen2"])
def test_peak_is_near_a_traced_pass(text, frames, tokens, attention):
    shape = small("llava", text, context=9000)
    estimate = peak_bytes(shape, frames, tokens, 4, attention=attention) - weight_bytes(shape, 4)
    assert 0.95 < estimate / traced_peak(shape, frames, tokens, attention) < 1.35


def test_peak_grows_with_what_is_read():
    shape = shape_from(block("llava_next_vicuna_7b"))
    few, many = peak_bytes(shape, 16, 2304, 2), peak_bytes(shape, 16, 9216, 2)
    assert weight_bytes(shape, 2) < few < many
    assert peak_bytes(shape, 16, 2304, 2, clips=4) > few
    assert peak_bytes(shape, 16, 9216, 2, attention="eager") > many


def test_older_code_may_give_sizes_by_place():
    shape = ModelShape(24, 24, 1024, 4096, 4096, 32, 32, 32, 128, 11008, 32064)
    assert shape.vocabulary == 32064
    assert shape.rope_range == 4096


def test_several_feature_layers_stand_side_by_side():
    config = configuration(small())
    config.vision_feature_layer = [-2, -3]
    shape = model_shape(config)
    assert (shape.vision_dim, shape.tower_dim, shape.vision_layers_run) == (64, 32, 3)
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    assert parameter_count(shape) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("layer", [-1, -2, 0, 2])
def test_layers_run_follow_hidden_states(layer):
    config = configuration(small())
    config.vision_feature_layer = layer
    assert model_shape(config).vision_layers_run == {-1: 4, -2: 3, 0: 0, 2: 2}[layer]


@pytest.mark.parametrize(
    ("rope", "context", "expected"),
    [
        ({"rope_type": "default"}, 4096, 4096),
        ({"rope_type": "linear", "factor": 4.0}, 16384, 4096),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}, 32768, 8192),
    ],
)
def test_rope_range_is_what_was_trained(rope, context, expected):
    config = configuration(small())
    config.text_config.rope_parameters = {"rope_theta": 10000.0, **rope}
    config.text_config.max_position_embeddings = context
    shape = model_shape(config)
    assert (shape.context, shape.rope_range) == (context, expected)


def test_stretching_scales_the_context_alone():
    shape = small().stretched(2)
    assert (shape.context, shape.rope_range, shape.rope_type, shape.rope_factor) == (8192, 4096, "linear", 2.0)
    assert small().stretched(None) == small()
    for factor in (0.5, True, "2"):
        with pytest.raises(ModelError, match="rope_factor"):
            small().stretched(factor)
    with pytest.raises(ModelError, match="scales its positions already"):
        shape.stretched(2)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"layer": 3}, "no such key: layer"),
        ({"layers": None}, "layers must be a whole number"),
        ({"layers": 0}, "layers must be a whole number of at least 1, got 0"),
        ({"layers": True}, "layers must be a whole number"),
        ({"dim": "wide"}, "dim must be a whole number of at least 1, got 'wide'"),
        ({"cls": 1}, "cls must be true or false"),
        ({"rope_theta": -1.0}, "rope_theta must be a positive number"),
        ({"family": "blip"}, "family='blip': choose one of llava, "),
        ({"text": "gpt2"}, "text='gpt2': choose one of llama"),
        ({"height": 7}, "makes a grid of 6 x 6"),
        ({"vision_layers_run": 5}, "is more than vision_layers=4"),
        ({"kv_heads": 3}, "heads=4 is no multiple of kv_heads=3"),
        ({"separators": -1}, "separators must be a whole number of at least 0"),
    ],
)
def test_a_wrong_block_is_told_in_one_line(changes, told):
    with pytest.raises(ModelError) as error:
        small(**changes)
    assert told in str(error.value)
    assert str(error.value).startswith("model.shape")
    assert "\n" not in str(error.value)


def test_a_block_of_another_model_is_told():
    assert shape_differences(small(), small()) == ""
    assert shape_differences(small(layers=5, tied=True), small()) == "layers=5, found 3; tied=True, found False"


def test_missing_sizes_are_all_named():
    with pytest.raises(ModelError, match=r"missing: .*vision_dim, .*layers, .*vision_heads, .*patch, .*family"):
        shape_from({"height": 24, "width": 24, "dim": 4096})
    with pytest.raises(ModelError, match="names and sizes"):
        shape_from("7b")


def test_other_language_models_and_towers_are_refused():
    for part, kind in (("text_config", "gpt2"), ("vision_config", "vit")):
        config = configuration(small())
        setattr(getattr(config, part), "model_type", kind)  # noqa: B010 (a class attribute of frozen name)
        with pytest.raises(ModelError, match=f"{kind!r} is not supported"):
            model_shape(config)


def test_a_block_serves_a_hub_id_and_a_folder_serves_itself(tmp_path):
    model = {"source": "llava-hf/llava-1.5-7b-hf", "revision": None, "shape": block("llava_1.5_7b")}
    assert point_shape(model).dim == 4096
    assert point_shape({**model, "rope_factor": 2}).context == 8192
    configuration(small()).save_pretrained(tmp_path / "mine")
    (tmp_path / "mine" / "model.safetensors").touch()
    folder = {**model, "source": str(tmp_path / "mine")}
    assert point_shape(folder) == small()
    assert point_shape({**folder, "shape": None, "rope_factor": 2}).context == 8192
    mini = "videopool:shapes/mini_llava"
    assert point_shape({"source": mini, "shape": None}).height == 12
    assert point_shape({"source": mini, "rope_factor": 2}) == model_shape(load_config(mini, rope_factor=2))
    with pytest.raises(ModelError, match="no folder"):
        point_shape({**model, "source": "./nowhere"})


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("clips", "tokens", "questions", "written"), [(4, 100, 25, 4), (8, 300, 3, 0)])
def test_peak_of_many_questions_is_near_a_traced_pass(tmp_path, clips, tokens, questions, written, attention):
    backbone = load_backbone(str(save(tmp_path, "llava")), attention=attention)
    backbone.end_ids, asked = frozenset({-1}), [[[number] * 20 for number in range(questions)]] * clips
    with Live() as live:
        prefix = prefill(backbone, [], torch.randn(clips, tokens, backbone.shape.dim))
        if written:
            greedy_answers(backbone, prefix, asked, written)
        else:
            next_token_logits(backbone, prefix, asked)
    estimate = peak_bytes(backbone.shape, 0, tokens, 4, clips, questions, 20, written, attention)
    assert 0.95 < (estimate - weight_bytes(backbone.shape, 4)) / live.peak < 1.1
