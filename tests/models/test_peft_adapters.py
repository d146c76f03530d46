"""Adapters of peft: what their settings say is computed as peft computes it, or refused in one line."""

import json
import shutil
from copy import deepcopy
from functools import cache

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from both_ways import CLOSE, ours, theirs
from random_models import FAMILIES, SIDE, save
from videopool.models import ModelError, attach, load_adapter, load_backbone, set_alpha
from videopool.models.families import FAMILIES as KINDS
from videopool.models.lora import set_projector

QV = ["q_proj", "v_proj"]
FILE = "adapter_model.safetensors"
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


@cache
def loaded(folder):
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    return KINDS[kind].transformers_class().from_pretrained(folder).eval()


def architecture(folder):
    """To be changed: a copy takes less time than to load it."""
    return deepcopy(loaded(folder))


@pytest.fixture(scope="module")
def plain(folders, tmp_path_factory):
    """An adapter of LLaVA's with peft's own settings, to be copied."""
    return adapter(folders["llava"], tmp_path_factory.mktemp("adapter"))


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


def compare(folder, path, *alphas):
    """Logits of the model here and in peft: as trained, then at alphas that peft reads as trained ones."""
    backbone = load_backbone(str(folder))
    pixels = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    before, _ = ours(backbone, pixels)
    attach(backbone, load_adapter(str(path)))
    told = json.loads((path / "adapter_config.json").read_text())
    for alpha in (None, *alphas):
        changed = path
        if alpha is not None:
            set_alpha(backbone, alpha)
            changed = path.with_name(f"{path.name}-{alpha}")
            shutil.copytree(path, changed, dirs_exist_ok=True)
            patterns = {key: value * alpha / told["lora_alpha"] for key, value in told["alpha_pattern"].items()}
            own = json.dumps({**told, "lora_alpha": alpha, "alpha_pattern": patterns})
            (changed / "adapter_config.json").write_text(own)
        logits, ids = ours(backbone, pixels)
        peft = PeftModel.from_pretrained(architecture(folder), changed).eval()
        expected = theirs(peft, ids, pixels, backbone.model.config.model_type, backbone.media_ids["video"])
        torch.testing.assert_close(logits, expected, **CLOSE)
        assert not torch.allclose(logits, before, atol=1e-3)
    return backbone


@pytest.mark.parametrize("name", COMPUTED)
def test_settings_are_computed_as_peft_computes_them(folders, tmp_path, name):
    """Each in one family, those that reach words or output layer also where the two are one; at two alphas."""
    family = FAMILIES[list(COMPUTED).index(name) % 4]
    path = adapter(folders[family], tmp_path / "one", **COMPUTED[name])
    compare(folders[family], path, 2.5)
    if "words" in name or "head" in name:
        compare(folders["tied"], adapter(folders["tied"], tmp_path / "tied", **COMPUTED[name]))


def test_alpha_changes_in_proportion_and_comes_back(folders, tmp_path):
    """Where modules have alphas of their own, 0 switches all off and the trained alpha is the trained model."""
    path = adapter(folders["llava"], tmp_path / "a", alpha_pattern={"v_proj": 3}, use_rslora=True)
    backbone = load_backbone(str(folders["llava"]))
    pixels = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    base = ours(backbone, pixels)[0]
    # A part of these is in the tower, which alpha switches as well.
    attach(backbone, load_adapter(str(path)))
    trained = ours(backbone, pixels)[0]
    set_alpha(backbone, 0)
    assert torch.equal(ours(backbone, pixels)[0], base)
    set_alpha(backbone, 6)
    assert torch.equal(ours(backbone, pixels)[0], trained)


def test_projector_is_interpolated_beside_lora_on_it(folders, tmp_path):
    """Of what has LoRA, the base's weights and the checkpoint's biases are the two ends."""
    path = adapter(folders["llava"], tmp_path / "a", target_modules="all-linear", bias="all")
    backbone = load_backbone(str(folders["llava"]))
    pixels = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    attach(backbone, load_adapter(str(path)))
    trained = ours(backbone, pixels)[0]
    set_projector(backbone, 0)
    assert not torch.equal(ours(backbone, pixels)[0], trained)
    set_projector(backbone, 1)
    assert torch.equal(ours(backbone, pixels)[0], trained)


def test_dora_has_no_alpha_of_0(folders, tmp_path):
    backbone = load_backbone(str(folders["llava"]))
    attach(backbone, load_adapter(str(adapter(folders["llava"], tmp_path / "a", use_dora=True))))
    with pytest.raises(ModelError, match=r"lora\.alpha=0: .* is DoRA") as caught:
        set_alpha(backbone, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "LOHA"}, "peft_type=LOHA"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa has changed the weights of the base"),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights=pissa_niter_16"),
        ({"init_lora_weights": "olora"}, "init_lora_weights=olora"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights=loftq"),
        ({"init_lora_weights": "corda"}, "init_lora_weights=corda"),
        ({"init_lora_weights": "lora_ga"}, "init_lora_weights=lora_ga"),
        ({"init_lora_weights": "of tomorrow"}, "init_lora_weights=of tomorrow"),
        ({"trainable_token_indices": [1, 2]}, r"trainable_token_indices=\[1, 2\]"),
        ({"target_parameters": ["self_attn.q_proj.weight"]}, "target_parameters="),
        ({"alora_invocation_tokens": [5]}, r"alora_invocation_tokens=\[5\]"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication="),
        ({"use_qalora": True}, "use_qalora=true"),
        ({"use_bdlora": {"nblocks": 2}}, "use_bdlora="),
        ({"arrow_config": {"top_k": 2}}, "arrow_config="),
        ({"kasa_config": {"beta": 1}}, "kasa_config="),
        ({"monteclora_config": {"num_samples": 2}}, "monteclora_config="),
        ({"velora_config": {"scale": 2}}, "velora_config="),
        ({"ensure_weight_tying": True}, "ensure_weight_tying=true"),
        ({"use_tomorrow": 1}, "use_tomorrow=1"),
        ({"use_dora": True}, "says use_dora=True, and the weights have no lora_magnitude_vector"),
        ({"lora_bias": True}, "says lora_bias=True"),
        ({"r": 8}, r"says rank 8 of .*q_proj, whose matrices have 4|says rank 8 of .*v_proj, whose matrices have 4"),
        ({"rank_pattern": {"v_proj": 2}}, "says rank 2 of .*v_proj, whose matrices have 4"),
        ({"layers_to_transform": [0]}, "leaves out .*which has matrices"),
        ({"exclude_modules": ["v_proj"]}, "leaves out .*v_proj, which has matrices"),
        ({"target_modules": ["q_proj"]}, "leaves out .*v_proj, which has matrices"),
        ({"target_modules": ["q_proj", "v_proj", "o_proj"]}, "incomplete: missing keys: .*o_proj.lora_A.weight"),
        ({"modules_to_save": ["multi_modal_projector"]}, "incomplete: missing keys: multi_modal_projector.linear_1"),
        ({"lora_alpha": "16"}, 'lora_alpha="16"'),
        ({"lora_alpha": float("nan")}, "lora_alpha=NaN"),
        ({"alpha_pattern": {"(": 2}}, "alpha_pattern="),
        ({"alpha_pattern": [2]}, "alpha_pattern="),
        ({"lora_alpha": 0, "alpha_pattern": {"q_proj": 2}}, "lora_alpha=0 beside an alpha_pattern"),
        ({"bias": "some"}, 'bias="some"'),
    ],
)
def test_other_settings_are_refused_in_one_line(folders, plain, tmp_path, changes, words):
    path = shutil.copytree(plain, tmp_path / "a")
    told = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps({**told, **changes}))
    with pytest.raises(ModelError, match=words) as caught:
        attach(load_backbone(str(folders["llava"])), load_adapter(str(path)))
    assert "\n" not in str(caught.value)
    assert f"lora.checkpoint={path}" in str(caught.value)


def test_other_kinds_of_adapters_are_refused(folders, tmp_path):
    """As peft saves them."""
    ia3 = get_peft_model(architecture(folders["llava"]), IA3Config(target_modules=QV, feedforward_modules=[]))
    ia3.save_pretrained(tmp_path / "ia3")
    words = adapter(folders["llava"], tmp_path / "words", target_modules=["embed_tokens", "q_proj"])
    for path, said in ((tmp_path / "ia3", "peft_type=IA3"), (words, "lora_embedding_A")):
        with pytest.raises(ModelError, match=said) as caught:
            attach(load_backbone(str(folders["llava"])), load_adapter(str(path)))
        assert "\n" not in str(caught.value)


def test_unknown_keys_that_are_off_are_named(folders, tmp_path, capfd):
    path = adapter(folders["llava"], tmp_path / "a")
    told = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps({**told, "use_tomorrow": False, "next_config": None}))
    load_adapter(str(path))
    said = capfd.readouterr().err
    assert "use_tomorrow" in said
    assert "next_config" not in said
    assert said.count("videopool: ") == 1


def test_an_adapter_of_the_language_model_alone(folders, tmp_path):
    """Names end as in the whole model, and targets reach no tower that was not there."""
    path = adapter(folders["llava"], tmp_path / "a", exclude_modules=".*tower.*")
    weights = {name.replace("model.language_model.", "model."): one for name, one in load_file(path / FILE).items()}
    save_file(weights, path / FILE)
    told = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps({**told, "exclude_modules": None}))
    backbone = load_backbone(str(folders["llava"]))
    attach(backbone, load_adapter(str(path)))
    assert not [name for name, _ in backbone.model.named_parameters() if "lora_" in name and "tower" in name]


def test_names_of_earlier_releases(folders, tmp_path):
    """An expression fits the names that modules had, and the matrices are all there."""
    path = adapter(folders["llava"], tmp_path / "a", target_modules=r".*language_model\.layers\.\d\.self_attn\.q_proj")
    expected = compare(folders["llava"], path)
    weights = {
        name.replace("model.language_model.", "language_model.model."): one
        for name, one in load_file(path / FILE).items()
    }
    save_file(weights, path / FILE)
    told = json.loads((path / "adapter_config.json").read_text())
    changed = {"target_modules": r"language_model\.model\.layers\.\d\.self_attn\.q_proj"}
    (path / "adapter_config.json").write_text(json.dumps({**told, **changed}))
    backbone = load_backbone(str(folders["llava"]))
    attach(backbone, load_adapter(str(path)))
    pixels = torch.randn(1, 3, SIDE, SIDE)
    assert torch.equal(ours(backbone, pixels)[0], ours(expected, pixels)[0])
