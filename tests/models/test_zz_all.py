"""Adapters of peft: what their settings say is computed as peft computes it, or refused in one line."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from random_models import FAMILIES, SIDE, save
from videopool.models import VideoLM, attach, load_adapter, load_backbone, set_alpha
from videopool.models.families import FAMILIES as KINDS
from videopool.pooling import FrameCls, NoPooling, Strided

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
QV = ["q_proj", "v_proj"]
COMPUTED = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "alphas": {"alpha_pattern": {"v_proj": 3, r"^model\.language_model\.layers\.1\.self_attn\.q_proj": 40}},
    "ranks": {"rank_pattern": {"q_proj": 2, "layers.2.self_attn.v_proj": 5}, "use_rslora": True},
    "ranks and alphas": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 2, "v_proj": 9}},
    "some layers": {"layers_to_transform": [0, 2], "layers_pattern": "layers"},
    "one layer": {"layers_to_transform": 1},
    "expression": {"target_modules": r".*language_model\.layers\.[01]\.(self_attn\.k_proj|mlp\.up_proj)"},
    "tower": {"target_modules": r".*tower\..*(q_proj|fc1)"},
    "all": {"target_modules": "all-linear"},
    "left out": {"exclude_modules": r".*tower.*"},
    "dora": {"use_dora": True},
    "dora, rslora": {"use_dora": True, "use_rslora": True, "alpha_pattern": {"q_proj": 3}},
    "biases": {"bias": "all"},
    "biases of lora": {"bias": "lora_only"},
    "all and biases": {"target_modules": "all-linear", "bias": "all"},
    "lora with bias": {"target_modules": ["q_proj", "fc1", "fc2"], "lora_bias": True},
    "projector": {"modules_to_save": ["multi_modal_projector"]},
    "half a projector": {"modules_to_save": ["linear_2"]},
    "norms": {"modules_to_save": ["layernorm"]},
    "words": {"modules_to_save": ["embed_tokens"]},
    "head": {"modules_to_save": ["lm_head"]},
    "words and head": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "lora on the head": {"target_modules": ["q_proj", "lm_head"]},
    "other starts": {"init_lora_weights": "gaussian", "lora_dropout": 0.3, "fan_in_fan_out": True},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Bases by name; one of them has one matrix for word embeddings and output."""
    made = {family: save(tmp_path_factory.mktemp(family), family) for family in FAMILIES}
    return {**made, "tied": save(tmp_path_factory.mktemp("tied"), "llava_onevision", tied=True)}


def architecture(folder):
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    return KINDS[kind].architecture.from_pretrained(folder).eval()


def adapter(folder, to, seed=5, **settings):
    """An adapter that peft has saved, all of whose numbers are random."""
    model = get_peft_model(
        architecture(folder), LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": QV, **settings})
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.save_pretrained(to)
    return to


def ours(backbone, pixels, words="USER: {}\nis there any red star ? ASSISTANT:"):
    """Logits, and the same prompt as transformers takes it."""
    kind, marker = backbone.model.config.model_type, backbone.media_ids["video"]
    pooling = {"video_llava": FrameCls(NoPooling()), "llava_onevision": Strided(2, "bilinear")}.get(kind, NoPooling())
    ids = torch.tensor([backbone.tokenizer.encode(words.format(backbone.image_token))])
    lm = VideoLM(backbone, pooling)
    with torch.inference_mode():
        tokens = lm.visual_tokens(backbone.features(pixels)[None])
        logits = lm(ids, [[tokens[0]]])[0]
    place = ids[0].tolist().index(marker)
    return logits, torch.cat([ids[:, :place], torch.full((1, tokens.shape[1]), marker), ids[:, place + 1 :]], 1)


@torch.inference_mode()
def theirs(model, ids, pixels, kind, marker):
    if kind == "llava":
        return model(input_ids=ids, pixel_values=pixels).logits
    if kind != "llava_next":
        return model(input_ids=ids, pixel_values_videos=pixels[None]).logits
    inner = model.get_base_model() if isinstance(model, PeftModel) else model  # whose own forward cuts tiles
    states = inner.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    merged = inner.get_input_embeddings()(ids)
    merged[0, ids[0] == marker] = inner.model.multi_modal_projector(states)[0]
    return inner(inputs_embeds=merged).logits


def compare(folder, path, alpha=None):
    """Logits of the model here and in peft, at an alpha that peft reads as the trained one."""
    backbone = load_backbone(str(folder))
    pixels = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    before, _ = ours(backbone, pixels)
    checkpoint = load_adapter(str(path))
    attach(backbone, checkpoint)
    if alpha is not None:
        set_alpha(backbone, alpha)
        changed = path.with_name(f"{path.name}-{alpha}")
        shutil.copytree(path, changed, dirs_exist_ok=True)
        told = json.loads((path / "adapter_config.json").read_text())
        share = alpha / told["lora_alpha"]
        told["lora_alpha"], told["alpha_pattern"] = alpha, {k: v * share for k, v in told["alpha_pattern"].items()}
        (changed / "adapter_config.json").write_text(json.dumps(told))
        path = changed
    logits, ids = ours(backbone, pixels)
    peft = PeftModel.from_pretrained(architecture(folder), path).eval()
    expected = theirs(peft, ids, pixels, backbone.model.config.model_type, backbone.media_ids["video"])
    torch.testing.assert_close(logits, expected, **CLOSE)
    assert not torch.allclose(logits, before, atol=1e-3)
    return backbone


@pytest.mark.parametrize("name", COMPUTED)
def test_settings_are_computed_as_peft_computes_them(folders, tmp_path, name):
    """Each on one family or other, at the trained alpha and at another."""
    for number, family in enumerate((*FAMILIES, "tied")):
        path = adapter(folders[family], tmp_path / str(number), **COMPUTED[name])
        compare(folders[family], path)
        compare(folders[family], path, 2.5)
