"""The recipe of the toy model: resumes to the same weights, learns, and is what the shipped model came from."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from composed import composed
from random_models import save, save_parts
from videopool.benchmarks import Prompt
from videopool.benchmarks.scoring import LETTERS
from videopool.config.errors import ConfigError
from videopool.jobs.pretrain import TOY
from videopool.jobs.pretrain import run as pretrain_job
from videopool.jobs.run import run_and_tell
from videopool.models import load_backbone
from videopool.paths import PACKAGE
from videopool.reading.answers import next_token_logits, prefill
from videopool.shapes import kept, pretraining
from videopool.shapes.kept import KeptTask
from videopool.shapes.mini import mini_config
from videopool.shapes.pretraining import Recipe, RecipeStage, pretrain
from videopool.shapes.questions import image_questions
from videopool.shapes.recipe import LanguageTask
from videopool.shapes.render import render_image
from videopool.shapes.scene import IMAGE_TASKS, random_image
from videopool.training.assembly import assemble, save_assembled

PROMPT = Prompt("USER: {image}\n{question} ASSISTANT:", "{question} {options}", "({letter}) {text}", " ", " (", "say .")
TINY = Recipe(
    tower=RecipeStage(2, 2, 1e-3, 2),
    language=RecipeStage(3, 1, 1e-3, 2, stop=2),
    letters=RecipeStage(2, 1, 1e-3, 2),
    log_every=1,
    check_every=1,
    check_images=1,
    final_images=1,
)


@pytest.fixture(autouse=True)
def little(monkeypatch):
    """All words that are not special are spread but those of a few images; a toy model of two layers is made."""
    monkeypatch.setattr(pretraining, "VOCABULARY_IMAGES", 4)

    def config_of(tokenizer):
        config = mini_config(tokenizer)
        config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = 2
        return config

    monkeypatch.setattr(pretraining, "mini_config", config_of)


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def test_a_stopped_run_ends_in_the_same_weights(tmp_path, monkeypatch):
    pretrain(TINY, PROMPT, tmp_path / "whole")
    saved = pretraining._save

    def save_then_stop(path, state):
        saved(path, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(pretraining, "_save", save_then_stop)
    for _ in range(5):  # within each stage and at its end, but for the last end
        with pytest.raises(KeyboardInterrupt):
            pretrain(TINY, PROMPT, tmp_path / "stopped")
    monkeypatch.setattr(pretraining, "_save", saved)
    pretrain(TINY, PROMPT, tmp_path / "stopped")
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    rows = [json.loads(line) for line in (tmp_path / "stopped" / "log.jsonl").read_text().splitlines()]
    for stage in ("tower", "language", "letters"):
        assert [r["step"] for r in rows if r["stage"] == stage] == [1, 2]
    assert rows[-1]["stage"] == "held-out"


def test_blocks_behind_one_image_are_blind_to_each_other():
    from transformers import LlavaForConditionalGeneration

    from videopool.shapes.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    task = LanguageTask(LlavaForConditionalGeneration(mini_config(tokenizer)), tokenizer, PROMPT, TINY)
    rng = np.random.default_rng(0)
    image = random_image(rng)
    asked = [(question, letter) for question in image_questions(image, rng) for letter in (True, False)]
    blocks = [task.block(*one) for one in asked]
    assert [task.block(*one) for one in asked] == blocks  # read once, and kept
    task.encoded = task.tokenizer.encode
    assert [task.block(*one) for one in asked] == blocks
    projected = torch.randn(1, 144, 128)
    with torch.no_grad():
        together = task.logits(projected, task.pack([blocks], [0], 144))
        at = 0
        for block in blocks:
            alone = task.logits(projected, task.pack([[block]], [0], 144))
            size = len(block.ids)
            torch.testing.assert_close(together[0, at + 1 : at + size], alone[0, 1:size], rtol=1e-4, atol=1e-4)
            at += size


def test_the_job_runs_the_recipe(drawn, tmp_path):
    words = ["job=pretrain", "study=make", f"results_dir={tmp_path}/results", "job.recipe.check_every=1"]
    words += ["job.recipe.check_images=1", "job.recipe.final_images=1", "job.recipe.language.stop=null"]
    for stage in ("tower", "language", "letters"):
        words += [f"job.recipe.{stage}.steps=1", f"job.recipe.{stage}.images=1"]
    assert run_and_tell(composed(*words)) == "complete"
    folder = tmp_path / "results" / "make" / "pretrain"
    assert (folder / "learning_curve.svg").stat().st_size > 5000
    backbone = load_backbone(str(folder / "model"))
    assert (backbone.shape.height, backbone.shape.width) == (12, 12)


@pytest.fixture(scope="module")
def mini():
    return load_backbone(str(PACKAGE / "shapes" / "mini_llava"), "mini")


def test_the_shipped_model_is_the_recipes(mini):
    """Size limits, and the architecture that the code describes."""
    from videopool.shapes.tokenizer import build_tokenizer

    folder = PACKAGE / "shapes" / "mini_llava"
    assert sum(p.stat().st_size for p in folder.iterdir()) < 8_000_000
    assert 1e6 < sum(p.numel() for p in mini.model.parameters()) < 4e6
    tokenizer = build_tokenizer()
    assert tokenizer.get_vocab() == mini.tokenizer.get_vocab()
    config = mini_config(tokenizer)
    for part in ("text_config", "vision_config"):
        ours, theirs = getattr(config, part), getattr(mini.model.config, part)
        for name in ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads"):
            assert getattr(ours, name) == getattr(theirs, name)


def test_the_shipped_model_answers_held_out_images(mini):
    """By option letter, through the same reading code as every evaluation; 40 scenes that no stage has seen."""
    prompt = Prompt(**{k: v for k, v in composed().prompt.items() if k != "_target_"})
    rng = np.random.default_rng([4321, 0])
    letters = mini.next_token_ids(prompt.answer_start, LETTERS[:4])
    right, count = 0, 0
    for _ in range(40):
        image = random_image(rng)
        questions = image_questions(image, rng)
        assert {q.task for q in questions} <= set(IMAGE_TASKS)
        split = [mini.split_prompt(prompt.text(q.text, q.options)) for q in questions]
        tokens = mini.project(mini.encode(mini.preprocess(render_image(image)[None]))).flatten(1, 2)
        (logits,) = next_token_logits(mini, prefill(mini, split[0][0], tokens), [[after for _, after in split]])
        for question, row in zip(questions, logits, strict=True):
            right += int(row[letters[: len(question.options)]].argmax()) == question.options.index(question.answer)
            count += 1
    assert count > 330
    assert right / count > 0.8


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """A tiny tower of 6 x 6 patches with the toy model's language model."""
    root = tmp_path_factory.mktemp("joined")
    save_parts(root)
    save_assembled(assemble(str(root / "clip"), TOY, dtype="float32"), str(root / "clip"), root / "made")
    return root / "made"


def on(joined, folder, *more):
    words = ["job=pretrain", f"job.start={joined}", "job.images=3", f"job.out={folder}", "logger=none"]
    words += ["job.recipe.check_every=2", "job.recipe.check_images=2", "job.recipe.final_images=2"]
    words += ["job.recipe.language.stop=null", "job.recipe.auxiliary=0.5"]
    for stage in ("language", "letters"):
        words += [f"job.recipe.{stage}.steps=2", f"job.recipe.{stage}.images=2", f"job.recipe.{stage}.warmup=1"]
    return composed(*words, *more)


def test_a_tower_of_another_model_stays_while_the_rest_learns(joined, tmp_path, monkeypatch):
    start = load_backbone(str(joined))
    ids = torch.tensor([[1, 9, 30, 40]])
    toy = load_backbone(TOY)
    torch.testing.assert_close(start.logits(start.read(start.embed(ids))), toy.logits(toy.read(toy.embed(ids))))
    monkeypatch.setattr(kept, "TOGETHER", 2)
    monkeypatch.setattr("videopool.jobs.pretrain.save_figure", lambda *_: None)
    pretrain_job(on(joined, tmp_path / "whole"))
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "whole").glob("features-*/*.npy")}
    assert len(first) == 3  # of 3 images for training and 2 for checks
    saved = pretraining._save

    def save_then_stop(path, state):
        saved(path, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(pretraining, "_save", save_then_stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            pretrain_job(on(joined, tmp_path / "stopped"))
    monkeypatch.setattr(pretraining, "_save", saved)
    pretrain_job(on(joined, tmp_path / "stopped"))
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(one[name], two[name]) for name in one)
    made = load_backbone(str(tmp_path / "whole" / "model"))
    for name, weight in start.tower("image").state_dict().items():
        torch.testing.assert_close(made.tower("image").state_dict()[name], weight.half().float(), rtol=0, atol=0)
    assert not torch.equal(made.projector.linear_1.weight, start.projector.linear_1.weight)
    assert made.image_processor.to_dict() == start.image_processor.to_dict()
    with pytest.raises(ConfigError, match="its words are not the toy model's"):
        pretrain_job(on(save(tmp_path / "other", "llava"), tmp_path / "no"))


def test_kept_features_and_labels_are_those_of_each_image(joined, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "TOGETHER", 3)
    monkeypatch.setattr(kept, "AT_ONCE", 2)
    backbone = load_backbone(str(joined))
    parts = backbone.model, backbone.tokenizer, PROMPT, replace(TINY, check_images=4)
    task = KeptTask(*parts, lambda frames: backbone.encode(backbone.preprocess(frames)), tmp_path, 5)
    task.train()
    images = [task.image(np.random.default_rng(seed), 0) for seed in range(4)]
    assert len({id(image) for image in images}) > 1
    features = task.patch_features(None, images, None)
    for image, own in zip(images, features, strict=True):
        number = task.kept[True].images.index(image)
        rng = np.random.default_rng([1, 0, kept.PLACE, number])
        assert random_image(rng).tracks[0].colours == image.tracks[0].colours
        pixels = backbone.preprocess(render_image(image, rng)[None])
        torch.testing.assert_close(own, backbone.encode(pixels)[0].flatten(0, 1), atol=1e-2, rtol=1e-3)
    labels = task.dense_labels(images)
    fine = LanguageTask.dense_labels(task, images)
    for name, values in labels.items():
        for number in range(len(images)):
            for row, column in np.ndindex(6, 6):
                place = 12 * (2 * row + 1) + 2 * column + 1
                assert values[number, 6 * row + column] == fine[name][number, place]
    assert all(len(task.image(np.random.default_rng(n), n, 2).tracks) <= 2 for n in range(9))
    task.eval()
    assert task.image(np.random.default_rng(0), 3) is task.kept[False].images[3]
    # Another seed has the same images, whose features are there.
    other = KeptTask(*parts[:3], replace(TINY, seed=TINY.seed + 1), lambda frames: pytest.fail("encoded"), tmp_path, 5)
    other.train()
    assert torch.equal(*(each.kept[True].of(each.kept[True].images) for each in (task, other)))
