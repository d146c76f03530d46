"""job=assemble: the parts stay what they are; the projector whitens, centres and scales; a model that runs in jobs."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    SiglipVisionModel,
)

from composed import composed
from conftest import numbered_frames
from random_models import PATCH, SIDE, save_parts
from videopool.config.errors import ConfigError
from videopool.jobs.assemble import run as assemble
from videopool.jobs.run import run_and_tell
from videopool.models import ModelError, load_backbone
from videopool.models.cost import parameter_count
from videopool.runtime import exit_code
from videopool.shapes.clips import write_mp4
from videopool.training.assembly import whiten


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Towers and language models in folders of their own, and clips."""
    root = tmp_path_factory.mktemp("parts")
    save_parts(root)
    (root / "clips").mkdir()
    rng = np.random.default_rng(0)
    for name in "ab":
        frames = numbered_frames(12) // 2 + rng.integers(0, 99, (12, 64, 96, 3), dtype=np.uint8)
        write_mp4(root / "clips" / f"{name}.mp4", frames)
    return root


def configured(parts, tower, language, out, *more):
    words = [f"job.tower={parts / tower}", f"job.language={parts / language}", f"job.out={out}", "frames.num=3"]
    return composed("job=assemble", "benchmark=clips", f"benchmark.root={parts / 'clips'}", *words, *more)


@pytest.mark.parametrize(
    ("tower", "language", "layer"),
    [("clip", "llama", -2), ("tower", "qwen2", 2), ("siglip", "qwen2", -1), ("dino", "llama", -2)],
)
def test_the_parts_are_those_given_and_the_projector_fits_them(parts, tmp_path, capfd, tower, language, layer):
    outcome = assemble(configured(parts, tower, language, tmp_path / "made", f"job.layer={layer}"))
    assert str(tmp_path / "made") in outcome.message
    backbone = load_backbone(str(tmp_path / "made"))
    assert "does not know" not in "".join(capfd.readouterr())
    assert parameter_count(backbone.shape) == sum(weight.numel() for weight in backbone.parameters())
    assert {path.suffix for path in (tmp_path / "made").iterdir()} <= {".json", ".safetensors", ".jinja"}
    writer = AutoModelForCausalLM.from_pretrained(parts / language)
    ids = torch.tensor([[0, 3, 4, 5, 8]])
    logits = backbone.logits(backbone.read(backbone.embed(ids)))
    torch.testing.assert_close(logits[..., :9], writer(ids).logits[..., :9])
    own = {"siglip": SiglipVisionModel, "dino": Dinov2Model}.get(tower, CLIPVisionModel)  # DINOv2 itself interpolates
    pixels = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    states = own.from_pretrained(parts / tower)(pixels, output_hidden_states=True).hidden_states
    torch.testing.assert_close(backbone.features(pixels), states[layer], rtol=1e-4, atol=1e-5)
    assert list(backbone.image_processor.image_mean) == [0.5, 0.4, 0.3]
    assert backbone.grid(states[layer]).shape[1:3] == (SIDE // PATCH, SIDE // PATCH)


def layers(*widths):
    """As transformers' projector."""
    made = torch.nn.Module()
    made.linear_1, made.linear_2 = (torch.nn.Linear(*sizes) for sizes in pairwise(widths))
    made.act = torch.nn.GELU()
    return made


@pytest.mark.parametrize(("width", "hidden"), [(7, 20), (20, 7)])
def test_the_projector_whitens_centres_and_scales(width, hidden):
    """Against numpy, in float64."""
    rng = np.random.default_rng(1)
    turned = np.linalg.qr(rng.normal(size=(width, width)))[0]
    x = (rng.normal(size=(501, width)) * np.geomspace(0.1, 30, width)) @ turned + 5
    projector = layers(width, hidden, 11).double()
    whiten(projector, torch.tensor(x), 3.0, seed=2)
    first = projector.linear_1(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(first.mean(axis=0), 0, atol=1e-8)
    values = np.linalg.eigvalsh(np.cov(first.T, bias=True))[::-1]
    kept = min(width, hidden)
    np.testing.assert_allclose(values[:kept], hidden / kept, rtol=1e-6)  # all directions alike, mean variance 1
    np.testing.assert_allclose(values[kept:], 0, atol=1e-6)
    tokens = projector.linear_2(projector.act(projector.linear_1(torch.tensor(x)))).detach().numpy()
    np.testing.assert_allclose(tokens.mean(axis=0), 0, atol=1e-8)
    assert np.median(np.linalg.norm(tokens, axis=1)) == pytest.approx(3)
    if width > hidden:  # the directions of most variance are kept
        _, directions = np.linalg.eigh(np.cov(x.T, bias=True))
        assert np.abs(projector.linear_1.weight.detach().numpy() @ directions[:, : width - hidden]).max() < 1e-8


def test_directions_without_variance_are_not_enlarged():
    projector = layers(3, 8, 4)
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1.0, 1e-9])
    whiten(projector, x, 1.0)
    assert projector.linear_1.weight.norm(dim=0)[2] < 1e4
    with pytest.raises(ModelError, match="do not vary"):
        whiten(projector, torch.ones(10, 3), 1.0)


def test_it_runs_in_jobs_and_the_seed_makes_another(parts, tmp_path, monkeypatch):
    made = [tmp_path / name for name in ("one", "same", "other")]
    for folder, seed in zip(made, (0, 0, 1), strict=True):
        assemble(configured(parts, "clip", "qwen2", folder, f"seed={seed}"))
    one, same, other = (load_backbone(str(folder)).projector.linear_1.weight for folder in made)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    monkeypatch.setattr(exit_code, "_exit_code", 0)
    words = ["job=norms", "model=local", f"model.source={made[0]}", f"results_dir={tmp_path}/results", "logger=none"]
    words += ["benchmark=clips", f"benchmark.root={parts / 'clips'}", "frames.num=2", "job.workers=0", "prompt=plain"]
    run_and_tell(composed(*words))
    assert exit_code.exit_code() == 0
    (numbers,) = (tmp_path / "results").glob("default/*/norms.json")
    stages = json.loads(numbers.read_text())["stages"]
    words = load_backbone(str(made[0])).model.get_input_embeddings().weight.norm(dim=-1).median()
    assert stages["projector"]["quantiles"]["0.5"] == pytest.approx(float(words), rel=0.2)


def test_a_dino_tower_is_measured_and_changed(parts, tmp_path, monkeypatch):
    assemble(configured(parts, "dino", "qwen2", tmp_path / "made"))
    monkeypatch.setattr(exit_code, "_exit_code", 0)
    words = ["job=norms", "model=local", f"model.source={tmp_path / 'made'}", f"results_dir={tmp_path}/results"]
    words += ["benchmark=clips", f"benchmark.root={parts / 'clips'}", "frames.num=2", "job.workers=0", "prompt=plain"]
    words += ["job.tower_scores=[received.1,cls.2,values.-1]", "job.register_neurons=2", "job.rules.times_median=1.05"]
    words += ["logger=none", "features=disk", f"data_dir={tmp_path}/data", "job.stages=[encoder.1,encoder]"]
    run_and_tell(composed(*words))
    run_and_tell(composed(*words, "model.tower.register=zeros", "job.register_neurons=0"))
    assert exit_code.exit_code() == 0
    found = [json.loads(path.read_text()) for path in sorted((tmp_path / "results").glob("default/*/norms.json"))]
    for numbers in found:
        assert set(numbers["scores"]) == {"received.1", "cls.2", "values.-1"}
        assert numbers["stages"]["encoder"]["tokens"] == 2 * 2 * (SIDE // PATCH) ** 2
    named = [numbers["register_neurons"] for numbers in found if numbers["register_neurons"]]
    assert len(named) == 1
    assert all(block <= 2 and neuron < 64 for block, neuron, _ in named[0])  # those before the feature layer
    means = {numbers["stages"]["encoder"]["mean"] for numbers in found}
    assert len(means) == 2  # the register changes them, and has entries of its own in the store


def test_what_does_not_fit_is_one_line(parts, tmp_path):
    out = tmp_path / "out"

    def told(*more, tower="clip", language="llama", error=ModelError):
        with pytest.raises(error) as caught:
            assemble(configured(parts, tower, language, out, *more))
        assert "\n" not in str(caught.value)
        assert not out.exists()
        return str(caught.value)

    assert "job.tower is not given" in told("job.tower=null", error=ConfigError)
    assert "no folder" in told(tower="nothing")
    assert told(tower="llama").endswith(
        "llama is not supported; supported: clip_vision_model, siglip_vision_model, dinov2"
    )
    assert "siglip_vision_model is not supported; supported: llama, mistral, qwen2" in told(language="siglip")
    assert "has 3 layers" in told("job.layer=-5")
    assert "job.dtype='int8'" in told("job.dtype=int8", error=ConfigError)
    LlamaConfig().save_pretrained(tmp_path / "bare")
    assert "has no model.safetensors" in told(language=tmp_path / "bare")
    for name, key in (("clip", "tower"), ("llama", "language")):
        half = tmp_path / f"half {name}"
        half.mkdir()
        for path in (parts / name).iterdir():
            (half / path.name).write_bytes(path.read_bytes())
        settings = json.loads((half / "config.json").read_text())
        (half / "config.json").write_text(json.dumps(settings | {"quantization_config": {"quant_method": "awq"}}))
        assert "quantised" in told(**{key: half})
        (settings["vision_config"] if name == "clip" else settings)["num_hidden_layers"] = 5
        (half / "config.json").write_text(json.dumps(settings))
        assert "weights are missing" in told(**{key: half})
        (settings["vision_config"] if name == "clip" else settings)["hidden_size"] *= 2
        (half / "config.json").write_text(json.dumps(settings))
        assert "weights have other sizes than config.json" in told(**{key: half})
    short = tmp_path / "short"
    few = LlamaConfig(vocab_size=7, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    AutoModelForCausalLM.from_config(few).save_pretrained(short)
    for path in (parts / "llama").glob("tokenizer*"):
        (short / path.name).write_bytes(path.read_bytes())
    assert "its weights 7: they do not belong together" in told(language=short)
    giant = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=48, use_swiglu_ffn=True)
    Dinov2Model(giant).save_pretrained(tmp_path / "giant")
    (tmp_path / "giant" / "preprocessor_config.json").write_bytes(
        (parts / "dino" / "preprocessor_config.json").read_bytes()
    )
    assert "use_swiglu_ffn=true: DINOv2's giant is not read" in told(tower=tmp_path / "giant")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "a.mp4").write_bytes((parts / "clips" / "a.mp4").read_bytes()[:300])
    assert "no clip of the benchmark could be read" in told(f"benchmark.root={tmp_path / 'torn'}")
    (tmp_path / "half clip" / "preprocessor_config.json").unlink()
    out.mkdir()
    with pytest.raises(ConfigError, match="exists; name another folder"):
        assemble(configured(parts, "clip", "llama", out))
