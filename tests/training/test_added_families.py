"""Training, norms and pictures of families whose names and texts differ from LLaVA's."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from composed import composed
from conftest import TASKS
from random_models import ADDED, save_added
from videopool.evaluation.run import evaluate
from videopool.film.clip import ClipPoint, ShownClip, ShownPooling
from videopool.jobs.finetune import run as finetune
from videopool.jobs.norms import run as measure
from videopool.models import attach, load_adapter, load_backbone
from videopool.pooling import Subsample
from videopool.training.batches import Encoder
from videopool.training_data import Conversation, ConversationLayout, Example, Round

pytestmark = pytest.mark.usefixtures("read_once")
TOY = [
    "logger=none", "frames.num=2", "job.workers=0", "trainer.accelerator=cpu", "model=local", "prompt=plain",
]  # fmt: skip
TRAINING = [
    "job=finetune", "training_data.sources.shapes.clips=60", "training_data.sources.shapes.per_task=8",
    "training.steps=2", "training.global_batch=2", "training.micro_batch=2", "training.lora.rank=4",
    "job.evaluate=false", "training.validation.most=2",
]  # fmt: skip
EVALUATED = ["benchmark.clips=60", "benchmark.per_task=8", "benchmark.limit=1", TASKS]


@pytest.fixture(scope="module", params=ADDED)
def folder(request, tmp_path_factory):
    return save_added(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def configure(folder, tmp_path, data_dir):
    places = [f"results_dir={tmp_path}/results", f"data_dir={data_dir}", f"model.source={folder}"]
    places += ["model.frame_size=48"] if "qwen" in str(folder) else []
    return lambda *words: composed(*TOY, *places, *words)


def backbone_of(folder):
    return load_backbone(str(folder), frame_size=48 if "qwen" in str(folder) else None)


def test_trained_weights_are_exported_and_evaluated(folder, configure):
    """Under a pooling that leaves some frames without a token; peft reads its folder as we read ours."""
    run = Path(finetune(configure(*TRAINING, "pooling=subsample", "pooling.tokens=3")).folder)
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert all(torch.isfinite(torch.tensor(row["loss"])) for row in rows if "loss" in row)
    exported = load_file(run / "export" / "model.safetensors")
    ours = backbone_of(folder)
    assert any(name.startswith(f"{ours.projector_name}.") for name in exported)
    attach(ours, load_adapter(str(run / "export")))
    plain = backbone_of(folder)
    peft = PeftModel.from_pretrained(plain.model, str(run / "export" / "peft")).merge_and_unload().eval()
    grid = torch.randn(1, 2, ours.shape.height, ours.shape.width, ours.shape.vision_dim)
    with torch.inference_mode():
        embeddings = torch.randn(1, 9, ours.shape.dim)
        theirs = getattr(peft.model, plain.language_name)(inputs_embeds=embeddings).last_hidden_state
        torch.testing.assert_close(ours.read(embeddings), theirs, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(theirs, backbone_of(folder).read(embeddings), atol=1e-6)
        plain.model = peft
        torch.testing.assert_close(ours.project(grid), plain.project(grid), rtol=1e-4, atol=1e-4)
    done = evaluate(configure(*EVALUATED, "pooling=subsample", "pooling.tokens=3", f"lora.checkpoint={run}/export"))
    records = [json.loads(line) for line in (Path(done.folder) / "records.jsonl").read_text().splitlines()]
    assert {record["status"] for record in records} == {"ok"}


def test_texts_of_the_clip_are_read_and_not_learned(folder):
    """In training the clip's texts stand where evaluation puts them; the answer and its labels are the same."""
    backbone = backbone_of(folder)
    layout = ConversationLayout("User:", "Assistant:", "\n", "<end>", own_turn=False)
    encoder = Encoder(backbone, layout, {"video": 40})
    for independent in (False, True):
        rounds = [Round("is it red?", "yes"), Round("and blue?", "no it is not")]
        conversation = Conversation(rounds, independent=independent)
        example = Example("a", Path("a.mp4"), "a", "video", conversation, f"entry {independent}")
        plain, longer = encoder(example), encoder.around(example, ("Frame1: ", " and\n\n"))
        place = plain.input_ids.index(backbone.media_ids["video"])
        there = longer.input_ids.index(backbone.media_ids["video"])
        assert [one for one in plain.labels if one >= 0] == [one for one in longer.labels if one >= 0]
        assert backbone.tokenizer.decode(longer.input_ids[:there]).endswith("User:Frame1: ")
        assert backbone.tokenizer.decode(longer.input_ids[there + 1 :]).startswith(" and\n\n")
        assert plain.input_ids[:place] == longer.input_ids[: len(plain.input_ids[:place])]
        assert len(longer.labels) == len(longer.input_ids)
        assert (longer.rounds is None) == (not independent)


def test_norms_at_each_stage(configure, folder):
    """As many tokens at each stage as there are: what stands among them is none."""
    shape = backbone_of(folder).shape
    stages = "job.stages=[encoder,projector,pooled,llm.0,llm.1]"
    scores = "job.tower_scores=[received.1,values.2]"
    done = measure(configure(*EVALUATED, "job=norms", stages, scores, "job.clips=3", "pooling=none"))
    numbers = json.loads((Path(done.folder) / "norms.json").read_text())
    found = numbers["stages"]
    assert set(numbers["scores"]) == {"received.1", "values.2"}
    tokens = 3 * 2 // shape.together * shape.height * shape.width
    assert {name: stage["tokens"] for name, stage in found.items()} == dict.fromkeys(found, tokens)
    assert len(found) == 5
    for name in ("projector", "llm.0"):
        assert found["pooled"]["mean"] == pytest.approx(found[name]["mean"], rel=1e-4)


def test_pictures_of_what_a_pooling_keeps(configure):
    """The crop is that of the grid's cells."""
    clip = ShownClip(ClipPoint(configure(*EVALUATED, "job=show")))
    row = clip.pooled_row(ShownPooling(Subsample(3), "projector"))
    shape = clip.backbone.shape
    assert np.asarray(row.pictures[0]).shape[:2] == (shape.height, shape.width)
    assert clip.plain.pictures.shape[1] == shape.height * shape.merge * shape.patch
