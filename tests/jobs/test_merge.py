"""job=merge: LoRA in the weights, in a folder that transformers loads, with its pooling recorded."""

import json

import pytest
import torch
import transformers

from both_ways import ours, theirs
from random_models import SIDE, lora_checkpoint, save
from videopool.config.build import plain
from videopool.jobs.run import job_of
from videopool.models import attach, load_adapter, load_backbone
from videopool.points.setting import Setting

KINDS = {"llava": "LlavaForConditionalGeneration", "llava_onevision": "LlavaOnevisionForConditionalGeneration"}


@pytest.fixture(params=KINDS)
def merged(request, hydra_conf, tmp_path):
    """Family, base, checkpoint, and the folder that the job wrote of them."""
    base = save(tmp_path / "base", request.param)
    (base / "chat_template.jinja").write_text("USER: <image>\n{{ messages[0]['content'][-1]['text'] }} ASSISTANT:")
    checkpoint, _ = lora_checkpoint(load_backbone(str(base)), tmp_path / "tuned")
    words = (f"model.source={base}", "model.name=mine", "lora=tuned", f"lora.checkpoint={checkpoint}", "lora.alpha=8",
             "prompt=plain", "pooling=adaptive_Tx3x3", "frames.num=3")  # fmt: skip
    config = hydra_conf("job=merge", "model=local", *words, f"job.to={tmp_path}/out")
    outcome = job_of("merge").run(config)
    assert "LoRA of 6 weights merged" in outcome.message
    with pytest.raises(ValueError, match="exists"):
        job_of("merge").run(config)
    return request.param, base, checkpoint, tmp_path / "out"


def test_transformers_and_this_program_read_it_as_base_with_checkpoint(merged):
    family, base, checkpoint, folder = merged
    pixels = torch.randn(1 if family == "llava" else 3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    backbone = load_backbone(str(base))
    untuned, _ = ours(backbone, pixels)
    attach(backbone, load_adapter(checkpoint), alpha=8)
    expected, ids = ours(backbone, pixels)
    assert not torch.allclose(expected, untuned, atol=1e-3)
    model, report = getattr(transformers, KINDS[family]).from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    found = theirs(model, ids, pixels, family, backbone.media_ids["video"])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours(load_backbone(str(folder)), pixels)[0], expected, rtol=1e-4, atol=1e-5)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.encode("is there any red star ?") == backbone.tokenizer.encode("is there any red star ?")
    for name in ("preprocessor_config.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (base / name).read_bytes()


def test_its_pooling_is_taken_up(merged, hydra_conf):
    _, base, _, folder = merged
    record = json.loads((folder / "config.json").read_text())["videopool"]
    assert (record["label"], record["frames"]["num"]) == ("adaptive Tx3x3, 3 frames", 3)
    words = ("model=local", f"model.source={folder}", "model.name=mine", "prompt=plain")
    taken = Setting(hydra_conf(*words, "model.pooling=recorded"))
    said = Setting(hydra_conf(*words, "pooling=adaptive_Tx3x3", "frames.num=3"))
    assert plain(taken.config.pooling) == plain(said.config.pooling)
    assert plain(taken.config.frames) == plain(said.config.frames)
    assert (taken.pooling.label, taken.frames, taken.visual_tokens) == (said.pooling.label, 3, said.visual_tokens)
    for source, value, reason in ((base, "recorded", "has none"), (folder, "other", "say recorded")):
        with pytest.raises(ValueError, match=reason):
            Setting(hydra_conf("model=local", f"model.source={source}", "model.name=mine", f"model.pooling={value}"))


def test_what_cannot_be_merged(hydra_conf, tmp_path):
    with pytest.raises(ValueError, match=r"job\.to is not given"):
        job_of("merge").run(hydra_conf("job=merge"))
    words = ("job=merge", f"job.to={tmp_path}/out", "model.tower.register=zeros")
    with pytest.raises(Exception, match="changes of the tower"):
        job_of("merge").run(hydra_conf(*words))
    assert not (tmp_path / "out").exists()
