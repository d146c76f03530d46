"""What a model's config.json says is computed as transformers computes it, refused in one line, or named in one."""

import json
import shutil
from copy import deepcopy

import pytest
import torch
from transformers.initialization import no_init_weights

from both_ways import CLOSE, ours, theirs
from random_models import ADDED, FAMILIES, QWEN, SIDE, save, save_added
from videopool.models import ModelError, load_backbone, load_config
from videopool.models.configuration import unknown_keys
from videopool.models.families import FAMILIES as KINDS

LONG = {"rope_theta": 5000.0, "factor": 4.0, "original_max_position_embeddings": 1024}
# Changes of a configuration, by part; the weights are made anew for each.
COMPUTED = {
    "projector without bias": {"multimodal_projector_bias": False},
    "another activation": {"projector_hidden_act": "relu"},
    "first layer": {"vision_feature_layer": 1},
    "embeddings": {"vision_feature_layer": [0]},  # transformers itself takes no bare 0
    "last layer": {"vision_feature_layer": -1},
    "several layers": {"vision_feature_layer": [-1, 1, -2, -1]},
    "image_seq_length": {"image_seq_length": 9},
    "tied": {"tie_word_embeddings": True},
    "wide heads": {"text_config": {"head_dim": 24}},
    "biases": {"text_config": {"attention_bias": True, "mlp_bias": True}},
    "no dropout in evaluation": {
        "text_config": {"attention_dropout": 0.5},
        "vision_config": {"attention_dropout": 0.5},
    },
    "activations": {"text_config": {"hidden_act": "gelu"}, "vision_config": {"hidden_act": "relu"}},
    "norms": {"text_config": {"rms_norm_eps": 0.1}, "vision_config": {"layer_norm_eps": 0.1}},
    "theta": {"text_config": {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}},
    "linear": {"text_config": {"rope_parameters": {"rope_type": "linear", **LONG}}},
    "dynamic": {"text_config": {"rope_parameters": {"rope_type": "dynamic", **LONG}}},
    "yarn": {"text_config": {"rope_parameters": {"rope_type": "yarn", **LONG}}},
    "llama3": {
        "text_config": {
            "rope_parameters": {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, **LONG}
        }
    },
    "rope as older files say it": {
        "text_config": {"rope_parameters": None, "rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    },
    "default window of another family": {"text_config": {"max_window_layers": 1}},
}
REFUSED = {
    "other strategy": ({"vision_feature_select_strategy": None}, "vision_feature_select_strategy="),
    "layer out of reach": ({"vision_feature_layer": 9}, r"vision_feature_layer=9: the tower has hidden states -"),
    "one layer out of reach": ({"vision_feature_layer": [-1, -9]}, "vision_feature_layer="),
    "no layer": ({"vision_feature_layer": []}, "vision_feature_layer="),
    "longrope": (
        {
            "text_config": {
                "rope_parameters": {"rope_type": "longrope", "short_factor": [1] * 8, "long_factor": [2] * 8, **LONG}
            }
        },
        "rope_type=longrope",
    ),
    "quantised": (
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        "quantization_config: quantised weights",
    ),
    "wide views": ({"vision_config": {"image_size": [48, 96]}}, "image_size="),
    "long patches": ({"vision_config": {"patch_size": [8, 16]}}, "patch_size="),
    "grey frames": ({"vision_config": {"num_channels": 1}}, "num_channels=1"),
    "tuples": ({"return_dict": False}, "return_dict=False"),
    "a strategy of another name": ({"vision_feature_select_strategy": "cls_patch"}, "no configuration could be read"),
    "an unknown activation": ({"projector_hidden_act": "magic"}, "magic"),
}


def changed(content, changes):
    """A configuration with changes put into its parts."""
    parts = {
        key: {**content[key], **value} for key, value in changes.items() if key.endswith("_config") and key in content
    }
    return {**content, **changes, **parts}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {family: save(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


@pytest.fixture
def model(folders, tmp_path):
    """A folder with the changed configuration of a family; `weights`: with transformers' model, of random ones."""

    def make(family, changes, weights=False):
        folder = tmp_path / family
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(folders[family], folder)
        content = changed(json.loads((folder / "config.json").read_text()), changes)
        (folder / "config.json").write_text(json.dumps(content))
        if weights:
            kind = KINDS[family].transformers_class()
            with no_init_weights():
                made = kind(kind.config_class.from_pretrained(folder))
            made.tie_weights()
            generator = torch.Generator().manual_seed(2)
            with torch.no_grad():
                for weight in made.parameters():
                    weight.copy_(torch.randn(weight.shape, generator=generator) * weight.shape[-1] ** -0.5)
            made.save_pretrained(folder)
            (folder / "config.json").write_text(json.dumps(content))
            return folder, made.eval()
        return folder

    return make


@pytest.mark.parametrize("name", COMPUTED)
def test_configurations_are_computed_as_transformers_computes_them(model, name):
    """Each in one family after the other; the logits of a frame, and the tower's part of them."""
    number = list(COMPUTED).index(name)
    for family in (FAMILIES[number % 4], FAMILIES[(number + 2) % 4]):
        folder, reference = model(family, COMPUTED[name], weights=True)
        backbone = load_backbone(str(folder))
        pixels = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
        logits, ids = ours(backbone, pixels)
        expected = theirs(reference, ids, pixels, family, backbone.media_ids["video"])
        torch.testing.assert_close(logits, expected, **CLOSE)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_computed_is_refused_in_one_line(model, name):
    changes, words = REFUSED[name]
    for family in FAMILIES:
        if name == "other strategy":
            changes = {"vision_feature_select_strategy": "default" if family == "llava_onevision" else "full"}
        folder = model(family, changes)
        with pytest.raises(ModelError, match=words) as caught:
            load_backbone(str(folder))
        assert "\n" not in str(caught.value)
        assert f"model.source={folder}" in str(caught.value)


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("llava_next", {"sliding_window": 64}),
        ("llava_next", {"sliding_window": 100_000}),
        ("llava_onevision", {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}),
        ("llava_onevision", {"use_sliding_window": True}),
        ("llava_onevision", {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}),
        ("llava", {"model_type": "mistral"}),  # whose default is a window
    ],
)
def test_sliding_windows_are_refused_before_anything_is_loaded(model, family, text):
    folder = model(family, {"text_config": text})
    content = json.loads((folder / "config.json").read_text())
    if "layer_types" not in text:
        content["text_config"].pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="sliding windows") as caught:
        load_config(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "part", "changes", "words"),
    [
        ("smolvlm", None, {"scale_factor": 2}, r"connector.*proj\.weight is \[64, 288\] and not \[64, 128\]"),
        ("qwen3_vl", "vision_config", {"num_position_embeddings": 25}, r"pos_embed.* is \[16, 32\] and not \[25, 32\]"),
        ("qwen3_vl", "text_config", {"layer_types": ["linear_attention"] * 3}, "linear_attention is not computed here"),
    ],
)
def test_a_wrong_grid_and_other_attention_are_told(tmp_path, family, part, changes, words):
    """A grid that its files contradict by the sizes of weights; attention that is not full by its name."""
    folder = save_added(tmp_path, family)
    content = json.loads((folder / "config.json").read_text())
    (content if part is None else content[part]).update(changes)
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=rf"model\.source={folder}: .*{words}") as caught:
        load_backbone(str(folder))
    assert "\n" not in str(caught.value)


WITHOUT = object()  # in place of a value: the key is missing
ROPE, VISION = "text_config.rope_parameters.", "vision_config."
MISSTATED = [
    (QWEN, f"{ROPE}mrope_section", WITHOUT, "mrope_section is missing: say how 8 pairs are shared"),
    (QWEN, f"{ROPE}mrope_section", [2, 2, 2], r"mrope_section=\[2, 2, 2\]: give 3 whole numbers with a sum of 8"),
    (QWEN, f"{ROPE}mrope_section", [4, 4], r"mrope_section=\[4, 4\]: give 3"),
    (QWEN, f"{ROPE}mrope_section", [-2, 5, 5], r"mrope_section=\[-2, 5, 5\]: give 3"),
    (QWEN, f"{ROPE}mrope_section", "233", "mrope_section=233: give 3"),
    (QWEN, ROPE[:-1], WITHOUT, r"rope_theta is missing, and transformers assumes [15]0+\.0; state it"),
    (QWEN[:1], f"{ROPE}mrope_interleaved", True, "mrope_interleaved=True: qwen2_5_vl has False"),
    (QWEN[1:], f"{ROPE}mrope_interleaved", False, "mrope_interleaved=False: qwen3_vl has True"),
    (ADDED, f"{ROPE}rope_theta", 0.0, r"rope_theta=0\.0: give a number above 1"),
    (ADDED, f"{ROPE}rope_theta", "x", "rope_theta='x': give a number above 1"),
    (ADDED, f"{ROPE}partial_rotary_factor", 0.5, r"partial_rotary_factor=0\.5"),
    (QWEN[:1], f"{VISION}tokens_per_second", WITHOUT, "tokens_per_second is missing, and transformers assumes 4"),
    (QWEN[:1], f"{VISION}tokens_per_second", 0, "tokens_per_second=0: give a number above 0"),
    (QWEN[:1], f"{VISION}window_size", 20, "window_size=20: give a multiple of 16 pixels"),
    (QWEN[:1], f"{VISION}window_size", 0, "window_size=0: give a whole number"),
    (QWEN[:1], f"{VISION}fullatt_block_indexes", [9], r"fullatt_block_indexes=\[9\]: the tower has blocks 0\.\.1"),
    (QWEN[1:], f"{VISION}deepstack_visual_indexes", WITHOUT, r"deepstack_visual_indexes=\[8, 16, 24\]: the tower has"),
    (QWEN[1:], f"{VISION}num_position_embeddings", 20, "num_position_embeddings=20: they fill no square"),
    (QWEN, f"{VISION}spatial_merge_size", 0, "spatial_merge_size=0: give a whole number"),
    (QWEN, f"{VISION}temporal_patch_size", 1, "temporal_patch_size=1: two frames make a patch"),
    (QWEN, f"{VISION}num_heads", 5, "5 heads cannot share a width of 32"),
    (ADDED, f"{VISION}patch_size", 0, r"patch_size=[(0, )]+: give a whole number"),
    (QWEN, "video_token_id", WITHOUT, r"video_token_id=151656: the vocabulary has tokens 0\.\."),
    (QWEN, "image_token_id", 999, r"image_token_id=999: the vocabulary has tokens 0\.\."),
    (ADDED[:1], "image_token_index", -1, r"image_token_id=-1: the vocabulary has tokens 0\.\."),
    (["internvl"], "downsample_ratio", 0.3, r"downsample_ratio=0\.3: give 1 over a whole number"),
    (["smolvlm"], "scale_factor", 0, "scale_factor=0: give a whole number"),
]


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    root = tmp_path_factory.mktemp("added")
    return {family: json.loads((save_added(root / family, family) / "config.json").read_text()) for family in ADDED}


@pytest.mark.parametrize(("families", "key", "value", "words"), MISSTATED)
def test_settings_that_transformers_would_guess_or_round_are_told(added, tmp_path, families, key, value, words):
    """Whatever reads the configuration, as a plan does, before any weights."""
    for family in families:
        part = content = deepcopy(added[family])
        *path, last = key.split(".")
        for name in path:
            part = part[name]
        if value is WITHOUT:
            del part[last]
        else:
            part[last] = value
        (tmp_path / "config.json").write_text(json.dumps(content))
        with pytest.raises(ModelError, match=rf"model\.source={tmp_path}: config\.json: .*{words}") as caught:
            load_config(str(tmp_path))
        assert "\n" not in str(caught.value)


def test_older_spellings_of_three_axes_are_read(added, tmp_path):
    """Qwen2.5-VL's released files have one level, rope_theta beside rope_scaling, whose type is "mrope"."""
    content = deepcopy(added["qwen2_5_vl"])
    text = content.pop("text_config")
    del text["rope_parameters"], text["model_type"]
    text |= {"rope_theta": 5e5, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
    (tmp_path / "config.json").write_text(json.dumps({**text, **content}))
    rope = load_config(str(tmp_path)).text_config.rope_parameters
    assert (rope["rope_theta"], rope["mrope_section"], rope["rope_type"]) == (5e5, [2, 3, 3], "default")


def test_keys_that_nobody_knows_are_named(model, capfd):
    folder = model(
        "llava",
        {
            "mm_projector_type": "mlp2x_gelu",
            "repetition_penalty": 1.2,
            "text_config": {"attention_sinks": 4, "logit_softcap": None},
            "vision_config": {"registers": False, "pruned_heads": {}, "temperature": 0.2},
        },
    )
    load_config(str(folder))
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    for words in (
        'mm_projector_type="mlp2x_gelu"', "repetition_penalty=1.2", "text_config.attention_sinks=4",
        "vision_config.registers=false", str(folder),
    ):  # fmt: skip
        assert words in told
    for words in ("softcap", "pruned", "temperature"):
        assert words not in told
    load_config(str(folder))
    assert capfd.readouterr().err == ""  # once in a process is enough


# As the released models have them, of several releases of transformers.
RELEASED = {
    "llava": {
        "architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100, "image_seq_length": 576,
        "image_token_index": 32000, "model_type": "llava", "pad_token_id": 32001, "projector_hidden_act": "gelu",
        "text_config": {
            "_name_or_path": "lmsys/vicuna-7b-v1.5", "architectures": ["LlamaForCausalLM"],
            "max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-05, "torch_dtype": "float16",
            "vocab_size": 32064,
        },
        "tie_word_embeddings": False, "torch_dtype": "float16", "transformers_version": "4.36.0.dev0",
        "vision_config": {
            "hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "model_type": "clip_vision_model",
            "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768,
            "vocab_size": 32000,
        },
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "vocab_size": 32064,
    },
    "llava_next": {
        "ignore_index": -100, "image_grid_pinpoints": [[336, 672]], "image_token_index": 32000,
        "model_type": "llava_next", "text_config": {
            "_name_or_path": "mistralai/Mistral-7B-Instruct-v0.2", "architectures": ["MistralForCausalLM"],
            "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
            "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": None,
            "torch_dtype": "bfloat16", "vocab_size": 32064,
        }, "use_image_newline_parameter": True, "vocab_size": 32064,
    },
    "llava_onevision": {
        "model_type": "llava_onevision", "image_token_index": 151646, "video_token_index": 151647,
        "text_config": {
            "_name_or_path": "Qwen/Qwen2-7B-Instruct", "architectures": ["Qwen2ForCausalLM"], "bos_token_id": 151643,
            "eos_token_id": 151645, "max_window_layers": 28, "model_type": "qwen2", "rope_theta": 1000000.0,
            "torch_dtype": "bfloat16", "use_sliding_window": False, "vocab_size": 152000,
        },
        "vision_aspect_ratio": "anyres_max_9", "use_image_newline_parameter": True,
        "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1152, "num_attention_heads": 16,
                          "vision_use_head": False, "torch_dtype": "bfloat16", "_attn_implementation_autoset": True},
        "vision_feature_layer": -1, "vision_feature_select_strategy": "full", "tie_word_embeddings": False,
    },
    "video_llava": {
        "model_type": "video_llava", "ignore_index": -100, "video_token_index": 32001, "vocab_size": 32002,
        "image_seq_length": 256, "video_seq_length": 2056, "vision_feature_layer": -2,
    },
}  # fmt: skip


@pytest.mark.parametrize("family", RELEASED)
def test_released_configurations_are_taken_without_a_word(tmp_path, family, capfd):
    (tmp_path / "config.json").write_text(json.dumps(RELEASED[family]))
    config = load_config(str(tmp_path))
    assert config.model_type == family
    assert capfd.readouterr().err == ""
    assert unknown_keys(config, RELEASED[family]) == []


def test_an_adapter_is_no_model(folders, tmp_path):
    shutil.copytree(folders["llava"], tmp_path / "m")
    (tmp_path / "m" / "adapter_config.json").write_text('{"base_model_name_or_path": "nobody/nothing"}')
    with pytest.raises(ModelError, match=r"is an adapter.*lora\.checkpoint"):
        load_backbone(str(tmp_path / "m"))
