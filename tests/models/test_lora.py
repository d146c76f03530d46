"""What fine-tuning may change of a model, and what it writes of it for others to read."""

import json
import re

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from transformers import LlavaForConditionalGeneration

from both_ways import batch_logits
from random_models import FAMILIES, save
from videopool.models import ModelError, attach, load_adapter, load_backbone, set_alpha
from videopool.models.checkpoint import probe, same_base
from videopool.models.lora import make_trainable, restore, set_projector, trainable, training_mode
from videopool.pooling import NoPooling
from videopool.reading.module import VideoLM
from videopool.training.export import export

LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": ["q_proj", "v_proj"]}


@pytest.mark.parametrize("family", FAMILIES)
def test_only_attention_of_the_language_model_and_the_projector_are_trained(tmp_path, family):
    backbone = load_backbone(str(save(tmp_path, family)))
    make_trainable(backbone, {**LORA, "dropout": 0.1, "targets": list(backbone.attention)})
    training_mode(backbone)
    assert not any(isinstance(module, LoraLayer) for module in backbone.tower("video").modules())
    found = trainable(backbone)
    layers = len(backbone.parts.language_model.layers)
    matrices = [name for name in found if "lora_" in name]
    assert len(matrices) == layers * len(backbone.attention) * 2
    assert all(re.search(r"language_model\.layers\.\d+\.self_attn\.[qkvo]_proj\.lora_", name) for name in matrices)
    rest = [name for name in found if "lora_" not in name]
    assert rest
    assert all("multi_modal_projector." in name for name in rest)
    assert not any(module.training for module in backbone.tower("video").modules())
    assert backbone.parts.language_model.training


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"targets": ["q_proj", "fc1"]}, "training.lora.targets"),
        ({"targets": []}, "training.lora.targets"),
        ({"rank": 0}, "training.lora.rank=0"),
        ({"alpha": 0}, "training.lora.alpha=0"),
        ({"dropout": 1}, "training.lora.dropout=1"),
    ],
)
def test_settings_of_lora_that_make_no_sense(change, words):
    backbone = load_backbone("videopool:shapes/mini_llava")
    with pytest.raises(ModelError, match=re.escape(words)):
        make_trainable(backbone, {**LORA, **change})


def logits(backbone, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = VideoLM(backbone, NoPooling()).visual_tokens(torch.randn(1, 1, 145, 128, generator=generator))
    ids = torch.tensor([backbone.tokenizer.encode("USER: <image>\nis there any red star ? ASSISTANT:")])
    with torch.inference_mode():
        return batch_logits(VideoLM(backbone, NoPooling()), ids, [[tokens[0]]])


def about_training(told):
    pooling = {"label": "none", "stage": "projector", "settings": {}}
    base = {"source": "mini", "probe": told}
    return {"base": base, "trained_pooling": pooling, "recipe": "r", "training": {}, "lora_alpha": LORA["alpha"]}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """The mini model with other LoRA and projector, its logits, and what was exported of it."""
    backbone = load_backbone("videopool:shapes/mini_llava")
    told = probe(backbone)
    make_trainable(backbone, LORA)
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: value.detach() + 0.05 * torch.randn(value.shape, generator=generator)
        for name, value in trainable(backbone).items()
    }
    restore(backbone, weights)
    assert probe(backbone) == told
    folder = tmp_path_factory.mktemp("export")
    export(folder, weights, {"model_type": "llava", "num_frames": 4}, about_training(told), LORA)
    return folder, logits(backbone.eval()), weights


def test_a_pllava_folder_gives_the_trained_model_back(tuned):
    folder, wanted, _ = tuned
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = set(file.keys())
    start = "language_model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    assert {start, "multi_modal_projector.linear_1.weight"} < names
    assert len(names) == 5 * 2 * 2 + 4
    checkpoint = load_adapter(str(folder))
    assert (checkpoint.alpha, checkpoint.trained_pooling["label"], checkpoint.recipe) == (8, "none", "r")
    backbone = load_backbone("videopool:shapes/mini_llava")
    before = logits(backbone)
    attach(backbone, checkpoint)
    assert torch.equal(logits(backbone), wanted)
    set_projector(backbone, 0)
    set_alpha(backbone, 0)
    assert torch.equal(logits(backbone), before)
    set_projector(backbone, 0.5)
    halfway = backbone.parts.multi_modal_projector.linear_1.weight.clone()
    ends = [d["linear_1.weight"] for d in (backbone.base_projector, backbone.tuned_projector)]
    torch.testing.assert_close(halfway, sum(ends) / 2)
    set_projector(backbone, 1)
    set_alpha(backbone, 8)
    assert torch.equal(logits(backbone), wanted)


def test_names_are_those_of_a_checkpoint_of_the_reference(tuned, shared):
    with safe_open(tuned[0] / "model.safetensors", "pt") as file:
        ours = {re.sub(r"\d+", "0", name) for name in file.keys()}  # noqa: SIM118
    with safe_open(shared("goldens/lora/checkpoint_r8") / "model.safetensors", "pt") as file:
        theirs = {re.sub(r"\d+", "0", name) for name in file.keys()}  # noqa: SIM118
    assert ours == theirs


def test_peft_opens_its_folder(tuned):
    folder, wanted, _ = tuned
    backbone = load_backbone("videopool:shapes/mini_llava")
    model = LlavaForConditionalGeneration(backbone.model.config)
    model.load_state_dict(backbone.model.state_dict())
    backbone.model = PeftModel.from_pretrained(model, str(folder / "peft")).merge_and_unload().eval()
    torch.testing.assert_close(logits(backbone), wanted, rtol=1e-4, atol=1e-4)
    again = load_backbone("videopool:shapes/mini_llava")
    attach(again, load_adapter(str(folder / "peft")))
    assert torch.equal(logits(again), wanted)


def test_equal_weights_make_equal_files(tuned, tmp_path):
    folder, _, weights = tuned
    told = json.loads((folder / "videopool.json").read_text())["base"]["probe"]
    elsewhere = {"model_type": "llava", "_name_or_path": str(tmp_path), "transformers_version": "9", "num_frames": 4}
    export(tmp_path, weights, elsewhere, about_training(told), LORA)
    for file in ("model.safetensors", "config.json", "videopool.json", "peft/adapter_model.safetensors"):
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes()


def test_a_checkpoint_of_another_base_is_refused(tuned):
    """Of equal sizes, but other weights."""
    backbone = load_backbone("videopool:shapes/mini_llava")
    with torch.no_grad():
        for layer in backbone.parts.language_model.layers:
            layer.self_attn.q_proj.weight.mul_(1.1)
    with pytest.raises(ModelError, match="it was trained on mini, and mini_llava has other weights"):
        attach(backbone, load_adapter(str(tuned[0])))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_base_is_known_in_other_dtypes(dtype):
    one = probe(load_backbone("videopool:shapes/mini_llava"))
    assert len(one) == 35
    assert same_base(one, probe(load_backbone("videopool:shapes/mini_llava", dtype=dtype)))
    assert not same_base(one, [value * 1.05 for value in one])
    assert same_base(one, [])


def test_a_projector_is_interpolated_only_where_there_are_two():
    backbone = load_backbone("videopool:shapes/mini_llava")
    with pytest.raises(ModelError, match="the checkpoint has no projector"):
        set_projector(backbone, 0.5)
