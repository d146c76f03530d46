"""What the tower gives beside its features, against a plain loop over transformers' own attention."""

import json
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    LlavaConfig,
    Qwen2Config,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from conftest import GOLDENS
from own_poolings import Salient, Told
from random_models import FAMILIES, save
from videopool.models import ModelError, load_backbone, model_shape
from videopool.models import tower_outputs as outputs_module
from videopool.models.passes import tower_pass
from videopool.models.stages import check_needs
from videopool.models.tower_outputs import FrameVectors, HeadSaliency, Pass, score_output, tower_outputs
from videopool.pooling import Chain
from videopool.reading.module import VideoLM

RECORDED = GOLDENS / "compression"
SIZES = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 3, "patch_size": 8}
TEXT = Qwen2Config(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=40)


KINDS = {
    "clip": (CLIPVisionConfig, CLIPVisionModel),
    "siglip": (SiglipVisionConfig, SiglipVisionModel),
    "dino": (Dinov2Config, Dinov2Model),
}


class Block(NamedTuple):
    """The parts of a tower's block, by one name in all classes."""

    before: Any  # norm
    queries: Any
    keys: Any
    values: Any
    out: Any
    between: Any  # norm
    mlp: Any
    scales: tuple[Any, Any]  # of what attention and MLP add


def blocks_of(tower):
    for block in getattr(tower.encoder, "layers", None) or tower.encoder.layer:
        if isinstance(tower, Dinov2Model):
            own, scales = block.attention, (block.layer_scale1.lambda1, block.layer_scale2.lambda1)
            yield Block(block.norm1, own.q_proj, own.k_proj, own.v_proj, own.o_proj, block.norm2, block.mlp, scales)
        else:
            own, norms = block.self_attn, (block.layer_norm1, block.layer_norm2)
            yield Block(norms[0], own.q_proj, own.k_proj, own.v_proj, own.out_proj, norms[1], block.mlp, (1, 1))


def random_tower(kind, side, attention="sdpa", seed=0, **more):
    """A tower with random weights, the same for the same seed, and the sizes of a LLaVA with it."""
    made, model = KINDS[kind]
    sizes = {**SIZES, "image_size": side, **more}
    if kind == "dino":
        sizes["mlp_ratio"] = sizes.pop("intermediate_size") // sizes["hidden_size"] + 1
    config = made(**sizes)
    tower = model._from_config(deepcopy(config), attn_implementation=attention).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in tower.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * (0.7 * weight.shape[-1] ** -0.5))
    layer, select = (-1, "full") if kind == "siglip" else (-2, "default")
    llava = LlavaConfig(
        vision_config=config, text_config=TEXT, vision_feature_layer=layer, vision_feature_select_strategy=select
    )
    return tower, model_shape(llava)


def plain(tower, pixels, block, cls, one_head):
    """Saliency [T, L] and keys [T, L, Dk], patch by patch."""
    with torch.no_grad():
        seen = tower(pixels, output_attentions=True, output_hidden_states=True)
        own = [*blocks_of(tower)][block - 1]
        states = own.before(seen.hidden_states[block - 1])
        queries, keys = own.queries(states), own.keys(states)
    weights = seen.attentions[block - 1]  # [T, heads, L, L]
    if one_head:
        weights = torch.softmax(queries @ keys.mT / queries.shape[-1] ** 0.5, dim=-1)[:, None]
    frames, count, length = len(weights), weights.shape[1], weights.shape[-1]
    saliency = torch.zeros(frames, length)
    for t in range(frames):
        for j in range(length):
            of = [weights[t, head, i, j] for head in range(count) for i in ([0] if cls else range(length))]
            saliency[t, j] = sum(of) / len(of)
    parts = keys.split(keys.shape[-1] // count, dim=-1)
    return saliency, sum(parts) / len(parts)


def ran(tower, pooling, shape, pixels):
    """Outputs by field, each [T, rows, width]."""
    outputs = tower_outputs(pooling, shape, "model")
    with torch.inference_mode():
        return dict(zip(outputs, tower_pass(tower, pixels, list(outputs.values())), strict=True))


@pytest.mark.parametrize(
    ("kind", "side", "saliency", "block", "one_head"),
    [
        ("clip", 40, None, None, False), ("clip", 24, "cls", -1, True), ("clip", 24, "received", 1, False),
        ("siglip", 40, None, None, False), ("siglip", 24, "received", 2, True), ("siglip", 8, None, -3, False),
        ("dino", 40, None, None, False), ("dino", 24, "received", 3, True),
    ],
)  # fmt: skip
def test_attention_and_keys_are_those_of_transformers(kind, side, saliency, block, one_head, monkeypatch):
    tower, shape = random_tower(kind, side, attention="sdpa")
    eager, _ = random_tower(kind, side, attention="eager")
    pixels = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))
    number = {None: 3 if kind == "siglip" else 2, -1: 3, -3: 1}.get(block, block)
    cls = saliency == "cls" or (saliency is None and kind != "siglip")
    expected, keys = plain(eager, pixels, number, cls, one_head)
    for held in (1, 10**9):  # a frame at a time, and all at once
        monkeypatch.setattr(outputs_module, "WEIGHTS", held)
        found = ran(tower, Salient(8, saliency, block, one_head), shape, pixels)
        torch.testing.assert_close(found["saliency"][..., 0], expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(found["keys"], keys, atol=1e-5, rtol=1e-5)
        assert torch.allclose(found["saliency"].sum(1), torch.ones(3))
    assert tower.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(("kind", "block"), [("clip", 1), ("siglip", 3), ("dino", 2)])
def test_norms_of_values_and_scores_by_name(kind, block):
    tower, shape = random_tower(kind, 40)
    pixels = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        scores = [score_output(name, block, shape) for name in ("values", "received")]
        values, attention = tower_pass(tower, pixels, scores)
        states = tower(pixels, output_hidden_states=True).hidden_states[block - 1]
        own = [*blocks_of(tower)][block - 1]
        weight, bias = own.values.weight.double(), own.values.bias.double()
        entering = own.before(states).double()
    assert values.dtype == torch.float32
    for place in np.ndindex(*values.shape[:2]):
        value = [float(row @ entering[place] + b) for row, b in zip(weight, bias, strict=True)]
        assert float(values[place]) == pytest.approx(sum(x * x for x in value) ** 0.5, rel=1e-5)
    # The name of a score is that of a pooling's saliency, so that the store keeps it once.
    pooling = Salient(8, "received", block)
    (same,) = [own for name, own in tower_outputs(pooling, shape, "model").items() if name == "saliency"]
    assert same == scores[1]
    torch.testing.assert_close(ran(tower, pooling, shape, pixels)["saliency"], attention)


def test_one_pass_of_the_tower_gives_all(tmp_path):
    """Each block runs once, and none after the last that is needed; the features are not changed."""
    backbone = load_backbone(str(save(tmp_path, "llava")))  # three blocks; features after the second
    pixels = torch.randn(17, 3, 48, 48)
    runs = [0, 0, 0]
    for place, block in enumerate(backbone.tower("video").encoder.layers):
        block.register_forward_hook(lambda *_, place=place: runs.__setitem__(place, runs[place] + 1))
    (features,) = backbone.encode_at_once(pixels, "video", [backbone.feature_states])
    assert runs == [1, 1, 0]
    for pooling, expected in ((Salient(), [2, 2, 0]), (Salient(block=-1), [3, 3, 1]), (Salient(block=1), [4, 4, 1])):
        outputs = tower_outputs(pooling, backbone.shape, "model")
        own, saliency, keys = backbone.encode_at_once(
            pixels, "video", [backbone.feature_states, outputs["saliency"], outputs["keys"]]
        )
        assert runs == expected
        assert torch.equal(own, features)
        assert saliency.shape == (17, 37, 1)
        assert keys.shape == (17, 37, 8)


@pytest.mark.parametrize("side", [24, 40])
def test_the_pooling_head_is_transformers_own(side):
    tower, shape = random_tower("siglip", side, vision_use_head=True)
    pixels = torch.randn(2, 3, side, side)
    pooling = Told(["saliency", "frame_vectors"])
    pooling.saliency = "head"
    found = ran(tower, pooling, shape, pixels)
    with torch.no_grad():
        seen = tower(pixels)
        torch.testing.assert_close(found["frame_vectors"][:, 0], seen.pooler_output, atol=1e-5, rtol=1e-5)
        weights = tower.head.attention(tower.head.probe.repeat(2, 1, 1), seen.last_hidden_state, seen.last_hidden_state)
    torch.testing.assert_close(found["saliency"][..., 0], weights[1][:, 0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_a_pooling_its_fields(tmp_path, family):
    """As the grid: without CLS, row after row, frames in order, without the thumbnail."""
    backbone = load_backbone(str(save(tmp_path, family)))
    pixels = torch.randn(4, 3, 48, 48)
    pooling = Told(["saliency", "keys", "thumbnail"])
    model = VideoLM(backbone, pooling)
    outputs = tower_outputs(pooling, backbone.shape, backbone.name)
    beside = dict(zip(outputs, backbone.encode_at_once(pixels, "video", list(outputs.values())), strict=True))
    features = backbone.features(pixels)[None]
    grid, context = model.pooling_input(features, beside={name: values[None] for name, values in beside.items()})
    assert context.saliency.shape == grid.shape[:4] == (1, 3, 6, 6)
    first = backbone.extra
    for frame, row, column in ((0, 0, 1), (2, 5, 0), (1, 3, 4)):
        place = first + 6 * row + column
        assert context.saliency[0, frame, row, column] == beside["saliency"][frame, place, 0]
        assert torch.equal(context.keys[0, frame, row, column], beside["keys"][frame, place])
    assert model.visual_tokens(features, beside={name: values[None] for name, values in beside.items()}).shape[1] > 100


def test_saliency_is_float32_in_half_precision():
    tower, shape = random_tower("siglip", 40, dtype=torch.float32)
    pixels = torch.randn(2, 3, 40, 40)
    exact = ran(tower, Salient(), shape, pixels)["saliency"]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = ran(tower, Salient(), shape, pixels)["saliency"]
    half = ran(tower.bfloat16(), Salient(), shape, pixels)["saliency"]
    for rounded in (mixed, half):
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded.sum(1), torch.ones(2, 1), atol=1e-5, rtol=0)
        assert not torch.equal(rounded, rounded.bfloat16().float())
        torch.testing.assert_close(rounded, exact, atol=2e-3, rtol=0.1)


@pytest.mark.parametrize(
    ("kind", "pooling", "words"),
    [
        ("siglip", Salient(saliency="cls"), "and the tower of it has none: take attention received"),
        ("clip", Salient(saliency="head"), "needs SigLIP's pooling head, and the tower of it has none"),
        ("siglip", Told(["frame_vectors"]), "needs SigLIP's pooling head, and the tower of it has none"),
        ("clip", Salient(saliency="most"), "saliency 'most': choose one of tower, cls, received, head"),
        ("clip", Salient(block=4), "block 4 of the tower; it has 1..3, or -1 for the last"),
        ("clip", Salient(block=0), "block 0 of the tower"),
        ("clip", Salient(block="last"), "block last of the tower"),
        ("clip", Salient(block=-4), "block -4 of the tower"),
    ],
)
def test_what_a_tower_lacks_is_refused_in_one_line(kind, pooling, words):
    shape = random_tower(kind, 24, **({} if kind == "clip" else {"vision_use_head": False}))[1]
    with pytest.raises(ModelError) as caught:
        check_needs(pooling, shape, "it", "projector")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parts_of_a_pooling_read_one_attention():
    parts = [Told(["saliency"]), Told(["keys"])]
    shape = random_tower("clip", 24)[1]
    assert len(tower_outputs(Chain(parts), shape, "it")) == 2
    parts[0].saliency = "received"
    assert tower_outputs(Chain(parts), shape, "it")["saliency"].name == "attention received in block 2"
    parts[1].block = 1
    with pytest.raises(ModelError, match="read different attention"):
        tower_outputs(Chain(parts), shape, "it")


def test_saliency_that_says_nothing_fails(tmp_path):
    backbone = load_backbone(str(save(tmp_path, "llava")))
    for block in backbone.tower("video").encoder.layers:
        block.self_attn.q_proj.weight.zero_()
        block.self_attn.q_proj.bias.zero_()
    pixels, pooling = torch.randn(2, 3, 48, 48), Salient()
    outputs = tower_outputs(pooling, backbone.shape, backbone.name)
    values = backbone.encode_at_once(pixels, "video", list(outputs.values()))
    beside = {name: own[None] for name, own in zip(outputs, values, strict=True)}
    with pytest.raises(ModelError, match="the same for all patches of a clip: nothing can be chosen by it"):
        VideoLM(backbone, pooling).visual_tokens(backbone.features(pixels)[None], beside=beside)


# Recordings of the methods' public code.


def recorded(folder):
    """Cases of a folder, each with its arrays. Skips where there are none."""
    if not (RECORDED / folder).is_dir():
        pytest.skip(f"{RECORDED / folder} is not there")
    arrays = np.load(RECORDED / folder / "outputs.npz")
    for case in json.loads((RECORDED / folder / "cases.json").read_text())["cases"]:
        if not case.get("raises"):
            whole = {name: f"{case['name']}.{name}" for name in case["arrays"]}
            yield case, {name: torch.from_numpy(arrays[own]) for name, own in whole.items() if own in arrays}


def drawn(module, seed, scale):
    """A module with recorded weights, drawn from a seed for each name."""
    state = module.state_dict()
    for place, name in enumerate(sorted(state)):
        if state[name].is_floating_point():
            values = torch.from_numpy(np.random.RandomState(seed + place).standard_normal(state[name].shape))
            norm = "norm" in name and name.endswith("weight")
            state[name] = (1 + 0.1 * values if norm else scale * values).float()
    module.load_state_dict(state)
    return module.eval()


def pixels_of(case):
    pixels = case["pixels"]
    return torch.from_numpy(np.random.RandomState(pixels["seed"]).standard_normal(pixels["shape"]).astype(np.float32))


def recorded_tower(kind, config, depth, seed):
    sizes = {
        "hidden_size": config["hidden"], "intermediate_size": config["intermediate"], "num_hidden_layers": depth,
        "num_attention_heads": config["heads"], "image_size": config["image"], "patch_size": config["patch"],
        "hidden_act": config["act"],
    }  # fmt: skip
    head = {} if kind == "clip" else {"vision_use_head": False}
    tower, shape = random_tower(kind, config["image"], **sizes, **head)
    return drawn(tower, seed, 0.3), shape


def test_recorded_siglip_towers():
    cases = [(case, arrays) for case, arrays in recorded("siglip_tower") if case["name"].startswith("tower")]
    assert cases
    for case, arrays in cases:
        settings = case["params"]
        config = settings["config"]
        tower, shape = recorded_tower("siglip", config, config["blocks run"], settings["weight_seed"])
        found = ran(tower, Salient(), shape, pixels_of(case))
        torch.testing.assert_close(found["saliency"][..., 0], arrays["received"], atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(found["keys"], arrays["keys"], atol=1e-4, rtol=1e-4)


def test_recorded_clip_towers():
    cases = [(case, arrays) for case, arrays in recorded("visionzip") if case["name"].startswith("real_clip")]
    assert cases
    for case, arrays in cases:
        config, seed = case["params"]["config"], int(case["params"]["weights"].partition("seed ")[2].partition("+")[0])
        tower, shape = recorded_tower("clip", config, config["layers"], seed)
        found = ran(tower, Salient(), shape, pixels_of(case))
        expected = arrays["cls_attention"].mean(1)
        torch.testing.assert_close(found["saliency"][:, -expected.shape[1] :, 0], expected, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(found["keys"], arrays["keys"], atol=1e-4, rtol=1e-4)


def test_a_recorded_pooling_head():
    ((case, arrays),) = [(case, arrays) for case, arrays in recorded("fastvid") if case["name"] == "map_head"]
    settings, shape = case["params"], case["grid"]["shape"]
    sizes = {"hidden_size": settings["hidden"], "intermediate_size": settings["intermediate"]}
    sizes |= {"num_attention_heads": settings["heads"], "num_hidden_layers": 1, "hidden_act": settings["act"]}
    tower, _ = random_tower("siglip", 40, **sizes, vision_use_head=True)
    drawn(tower.head, 2500, 0.4)
    with torch.no_grad():
        tower.post_layernorm.weight.fill_(1), tower.post_layernorm.bias.zero_()
    grid = np.random.RandomState(case["grid"]["seed"]).standard_normal(shape).astype(np.float32)
    seen = Pass(tower, torch.empty(0), {1: torch.from_numpy(grid).flatten(1, 2)}, {})
    with torch.inference_mode():
        vectors, saliency = (kind("", (1, 1), (1,)).of(seen) for kind in (FrameVectors, HeadSaliency))
    torch.testing.assert_close(saliency[..., 0], arrays["attention"], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(vectors[:, 0], arrays["frame_vector"].flatten(1), atol=1e-5, rtol=1e-4)
