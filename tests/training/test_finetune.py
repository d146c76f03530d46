"""job=finetune at toy size: what a step is, the store, kills, exports, bad input."""

import json
import math
import os
import shutil
import signal
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from composed import composed
from conftest import numbered_frames
from random_models import like_mini
from videopool.errors import UserError
from videopool.evaluation.run import evaluate
from videopool.inference import feature_key
from videopool.jobs.finetune import run as finetune
from videopool.models import load_backbone, prefill_flops
from videopool.models.backbone import Backbone
from videopool.models.lora import trainable
from videopool.reading.module import VideoLM
from videopool.results import load_study, over_seeds
from videopool.results.comparison import what_differs
from videopool.shapes.clips import write_mp4
from videopool.training.loop import cut_log
from videopool.training.module import Optimisation, Tuner
from videopool.training.point import TrainingPoint
from videopool.training_data import load_llava

pytestmark = pytest.mark.usefixtures("read_once")
TOY = [
    "job=finetune", "logger=none", "frames.num=2", "pooling=adaptive_Tx3x3", "job.workers=0", "trainer.accelerator=cpu",
    "training_data.sources.shapes.clips=60", "training_data.sources.shapes.per_task=8",
    "training.steps=3", "training.global_batch=2", "training.micro_batch=2", "training.lora.rank=4",
    "training.validation.most=2",
]  # fmt: skip
TASKS = "+benchmark.tasks=[existence,event_order]"  # to evaluate on
WORLD_KEYS = ("clips=60", "per_task=8")
WORLD = ("training_data.sources.shapes.clips=60", "training_data.sources.shapes.per_task=8")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return like_mini(tmp_path_factory.mktemp("small"))


@pytest.fixture
def configure(tmp_path, data_dir, small):
    places = [f"results_dir={tmp_path}/results", f"data_dir={data_dir}"]

    def call(*words, toy=True):
        model = [] if any(word.startswith("model=") for word in words) else small
        base = [w for w in TOY if not (w in WORLD and any("training_data=" in one for one in words))] if toy else []
        return composed(*places, *model, *base, *words)

    return call


@pytest.fixture
def tune(configure):
    """Train, without the evaluation behind it; gives the run's folder."""

    def call(*words):
        feature_key._build.cache_clear()
        return Path(finetune(configure("job.evaluate=false", *words)).folder)

    return call


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses(folder):
    return [row["loss"] for row in log_of(folder) if "loss" in row]


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def about(folder):
    return json.loads((folder / "export" / "videopool.json").read_text())


def weights(folder):
    (path,) = folder.glob("checkpoints/step-*/weights.safetensors")
    return load_file(path)


def test_a_step_is_the_mean_over_its_tokens_however_it_is_cut(tune):
    """Answers differ in length, so that a mean of the micro-batches' means would be another step."""
    whole = tune("study=whole")
    cut = tune("study=cut", "training.micro_batch=1")
    assert whole.name == cut.name  # where and how fast is no part of what a run is
    assert [row["tokens"] for row in log_of(whole) if "loss" in row] == [
        row["tokens"] for row in log_of(cut) if "loss" in row
    ]
    np.testing.assert_allclose(losses(whole), losses(cut), rtol=1e-4)
    one, other = weights(whole), weights(cut)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-3, atol=2e-5)
    assert losses(whole)[0] != losses(whole)[-1]
    assert any("lora_B" in name and value.abs().max() > 0 for name, value in one.items())
    assert any("multi_modal_projector" in name for name in one)
    assert not any("_tower" in name or "mlp" in name for name in one)


def test_the_gradient_is_that_of_the_formula(tune, configure, monkeypatch):
    """Against the sum of the token losses over the labelled tokens, in one graph, without Lightning."""
    from videopool.training import module as tuning

    grads, totals = {}, []

    def spy(self, optimizer):
        before(self, optimizer)
        if not grads:
            for name, one in tuning.trainable(self.backbone).items():
                grads[name] = one.grad.clone()
            self.zero_grad()
            found = [self.losses(batch) for batch in seen]
            (sum(loss for loss, _ in found) / sum(count for _, count in found)).backward()
            totals.append(sum(count for _, count in found))
            for name, one in tuning.trainable(self.backbone).items():
                torch.testing.assert_close(grads[name], one.grad, rtol=1e-4, atol=1e-7)

    seen = []
    step = tuning.Tuner.training_step
    before = tuning.Tuner.on_before_optimizer_step
    monkeypatch.setattr(tuning.Tuner, "on_before_optimizer_step", spy)
    monkeypatch.setattr(
        tuning.Tuner, "training_step", lambda self, batch, i: seen.append(batch) or step(self, batch, i)
    )
    folder = tune("training.micro_batch=1", "training.steps=1", "training.clip=null")
    assert totals == [log_of(folder)[0]["tokens"]]


def test_equal_losses_with_and_without_the_store_and_no_frame_encoded_twice(tune, tmp_path, monkeypatch):
    encoded = []
    whole = Backbone.encode_at_once

    def counted(self, frames, *more):
        encoded.append(len(frames))
        return whole(self, frames, *more)

    monkeypatch.setattr(Backbone, "encode_at_once", counted)
    words = ["training.epochs=2", "training.steps=null", "training.global_batch=4", "training.micro_batch=4"]
    words.append("training.share=0.2")
    disk = [f"features.root={tmp_path}/features", "features.dtype=null"]
    without = tune(*words, "features=none", "study=without")
    each_time = sum(encoded)
    encoded.clear()
    cold = tune(*words, "features=disk", *disk, "study=cold")
    once = sum(encoded)
    encoded.clear()
    warm = tune(*words, "features=disk", *disk, "study=warm", "pooling=average")
    assert not encoded  # another pooling, and not one frame more
    assert metrics_of(warm)["frames_decoded"] == 0
    assert losses(without) == losses(cold)
    for name, value in weights(without).items():
        assert torch.equal(value, weights(cold)[name])
    clips = metrics_of(cold)["frames_decoded"]
    assert once == clips < each_time
    half = tune(*words, "features=disk", f"features.root={tmp_path}/half", "study=half")
    assert losses(half) != losses(cold)
    np.testing.assert_allclose(losses(half), losses(cold), rtol=0.02)
    assert half.name != cold.name


@pytest.fixture
def command(tmp_path, data_dir, small):
    places = [*small, f"results_dir={tmp_path}/results", f"data_dir={data_dir}", f"hydra.run.dir={tmp_path}"]
    return lambda *words: [*TOY, *places, *words]


LONG = (
    "training.steps=14", "job.checkpoint_every=3", "training.lora.dropout=0.2", "training.validation.every=4",
    "frames=random", "job.evaluate=false",
)  # fmt: skip
TIMES = ("seconds", "step_seconds")  # of the log: what may differ between equal runs


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(tune, tmp_path, command, forked):
    """Dropout, random frames, validation and all; what was logged behind the checkpoint is logged once."""
    wanted = tune(*LONG, "study=whole")
    process = forked.start(command(*LONG, "study=killed"), tmp_path)
    study, deadline = tmp_path / "results" / "killed", time.monotonic() + 120
    while not any(len(path.read_text().splitlines()) >= 6 for path in study.glob("*/log.jsonl")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (folder,) = [path.parent for path in study.glob("*/run.json")]
    assert not (folder / "metrics.json").exists()
    done = json.loads((folder / "checkpoints" / "last.json").read_text())["step"]
    assert 3 <= done < 14
    assert tune(*LONG, "study=killed") == folder
    one, other = weights(wanted), weights(folder)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    told = [{k: v for k, v in row.items() if k not in TIMES} for row in log_of(wanted)]
    assert told == [{k: v for k, v in row.items() if k not in TIMES} for row in log_of(folder)]
    assert [row["step"] for row in log_of(folder) if "validation_loss" in row] == [2, 6, 10, 14]
    assert (folder / "export" / "model.safetensors").read_bytes() == (
        wanted / "export" / "model.safetensors"
    ).read_bytes()
    assert about(folder) == about(wanted)
    assert metrics_of(folder)["best_validation_loss"] == metrics_of(wanted)["best_validation_loss"]
    before = (folder / "metrics.json").stat().st_mtime_ns
    tune(*LONG, "study=killed")  # finished: a no-op
    assert (folder / "metrics.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(("number", "devices"), [(signal.SIGHUP, 1), (signal.SIGTERM, 1), (signal.SIGTERM, 2)])
def test_a_stop_keeps_the_step_that_was_taken(tmp_path, command, forked, number, devices):
    """Signals go to all processes, as terminals and schedulers send them."""
    words = [*LONG, "study=stopped", "job.checkpoint_every=1000", "training.steps=400", "training.micro_batch=1"]
    words += [f"trainer.devices={devices}"]
    process = forked.start(command(*words), tmp_path, new_session=True)
    study, deadline = tmp_path / "results" / "stopped", time.monotonic() + 120
    while not any(len(path.read_text().splitlines()) >= 3 for path in study.glob("*/log.jsonl")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "steps of mini-tuned" in told
    assert "Traceback" not in told
    (folder,) = [path.parent for path in study.glob("*/run.json")]
    taken = [row["step"] for row in log_of(folder) if "loss" in row]
    assert json.loads((folder / "checkpoints" / "last.json").read_text())["step"] == taken[-1]


def test_a_cut_log_loses_only_what_is_done_again(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    cut_log(tmp_path / "log.jsonl", 2)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'
    cut_log(tmp_path / "none.jsonl", 2)


def test_evaluation_marks_another_pooling_than_the_trained_one(tune, configure, capsys):
    run = tune("study=e")
    small = ["benchmark.clips=60", "benchmark.per_task=8", "benchmark.limit=2", "logger=none", "job.workers=0", TASKS]
    small += ["frames.num=2", "study=e", f"lora.checkpoint={run / 'export'}"]
    capsys.readouterr()
    own = Path(evaluate(configure(*small, "pooling=adaptive_Tx3x3", toy=False)).folder)
    assert "was trained under" not in capsys.readouterr().err
    other = Path(evaluate(configure(*small, "pooling=average", toy=False)).folder)
    told = capsys.readouterr().err
    assert "was trained under adaptive Tx3x3, and is evaluated under average time" in told
    assert len(told.strip().splitlines()) == 1
    point = json.loads((own / "run.json").read_text())["point"]
    assert point["trained_pooling"] == json.loads((run / "export" / "videopool.json").read_text())["trained_pooling"]
    assert point["lora_alpha"] == 64  # as it was trained
    base = Path(evaluate(configure(*small[:-1], "pooling=adaptive_Tx3x3", toy=False)).folder)
    half = Path(evaluate(configure(*small, "pooling=adaptive_Tx3x3", "lora.projector=0.5", toy=False)).folder)
    rows = {Path(row["folder"]): row for row in load_study(own.parent).to_dict("records")}
    assert rows.keys() == {own, other, base, half}  # the training run is no point of the table
    assert rows[half]["model"] == "mini alpha 64 projector 0.5"
    zeros = Path(evaluate(configure(*small, "pooling=adaptive_Tx3x3", "model.tower.register=1", toy=False)).folder)
    assert "with model.tower=None, and is evaluated with {'register': 1, 'neurons': []}" in capsys.readouterr().err
    (row,) = [row for row in load_study(own.parent).to_dict("records") if Path(row["folder"]) == zeros]
    assert "tower" in what_differs(row, rows[own])
    assert "trained pooling" in what_differs(rows[own], rows[base])
    assert "trained pooling" not in what_differs(rows[own], rows[other])
    scores = [(folder / "records.jsonl").read_text() for folder in (own, base, half)]
    assert len(set(scores)) == 3


def test_trainings_that_differ_in_their_seed_alone_are_taken_together(configure, tmp_path):
    """Random frames follow the seed; a third run, at another rate, has weights of another recipe."""
    words = ["frames=random", "frames.num=2", "training.steps=1", "benchmark.clips=60", "benchmark.per_task=8"]
    words += ["benchmark.limit=2", TASKS, "study=r"]
    for more in (["seed=0"], ["seed=1"], ["seed=2", "training.rate=0.01"]):
        feature_key._build.cache_clear()
        finetune(configure(*words, *more))
    study = tmp_path / "results" / "r"
    exports = {path: json.loads(path.read_text()) for path in study.glob("*/export/videopool.json")}
    assert len(exports) == 3
    assert len({about["recipe"] for about in exports.values()}) == 2
    table = load_study(study)
    points = [json.loads((study / name / "run.json").read_text()) for name in table.point]
    assert len({point["identity"]["adapter"]["identity"] for point in points}) == 3
    assert {point["point"]["trained_recipe"] for point in points} == {about["recipe"] for about in exports.values()}
    seeds = over_seeds(table, "none", lambda task: True)
    assert list(seeds.seeds) == ["0, 1"]


def test_a_share_of_the_data_lies_in_a_larger_one_and_is_held_to_the_same_clips(tune, configure):
    parts = {}
    for share in (0.1, 0.5, 1):
        point = TrainingPoint(configure(f"training.share={share}"))
        mixture, held = point.split
        parts[share] = {example.name for source in mixture.sources for example in source.examples}
        assert [one.id for one in held] == [one.id for one in TrainingPoint(configure()).split[1]]
    assert parts[0.1] < parts[0.5] < parts[1]
    assert (len(parts[0.1]), len(parts[0.5])) == (math.ceil(len(parts[1]) / 10), math.ceil(len(parts[1]) / 2))
    half, whole = tune("training.share=0.5", "study=half"), tune("study=whole")
    assert half.name != whole.name
    told, also = about(half)["training"], about(whole)["training"]
    assert (told["clips"], also["clips"]) == (len(parts[0.5]), len(parts[1]))
    assert (told["steps"], told["examples"], told["images"]) == (3, 6, 0) == (
        also["steps"], also["examples"], also["images"],
    )  # fmt: skip
    assert told["data"] != also["data"]
    assert about(half)["recipe"] != about(whole)["recipe"]


def test_what_learning_took_is_that_of_the_conversations_that_were_read(tune, small, monkeypatch):
    """By the lengths that the language model is really given, clips and images, one of them behind step 2."""
    lengths = []
    losses_of = VideoLM.token_losses

    def spy(self, ids, media, mask, labels, *more):
        if self.training:
            lengths.append([len(one[0]) + int(row.sum()) - 1 for one, row in zip(media, mask, strict=True)])
        return losses_of(self, ids, media, mask, labels, *more)

    monkeypatch.setattr(VideoLM, "token_losses", spy)
    both = ["training_data=[shapes,shapes_images]", "training.validation.share=0", "job.export_every=2"]
    both += [f"training_data.sources.{one}.{word}" for one in ("shapes", "shapes_images") for word in WORLD_KEYS]
    folder = tune(*both, "training.micro_batch=1")
    shape = load_backbone(small[-1].partition("=")[2]).shape
    seen = [length for batch in lengths for length in batch]
    by_step = [sum(prefill_flops(shape, n) for n in seen[:count]) for count in (4, 6)]
    files = (folder / "exports" / "step-000002", folder / "export")
    for path, forward, steps in zip(files, by_step, (2, 3), strict=True):
        told = json.loads((path / "videopool.json").read_text())["training"]
        assert told["steps"] == steps
        assert 2 * forward < told["tflops"] * 1e12 < 3.2 * forward  # backward, and a small projector
        assert told["clips"] > 40
        assert told["images"] > 40
    alone = tune(*both, "training.micro_batch=1", "job.sources=[shapes_images]", "study=alone")
    assert about(alone)["training"]["clips"] == 0
    assert about(alone)["training"]["images"] == told["images"]


def test_steps_follow_from_the_computation_that_is_given(tune):
    """Poolings that leave more tokens take fewer steps; what was spent is what was given, to half a step."""
    given = 0.003
    words = ["training.steps=null", f"training.tflops={given}", "study=budget"]
    told = [about(tune(*words, f"pooling={name}"))["training"] for name in ("average", "none")]
    assert told[0]["steps"] > 1.4 * told[1]["steps"] > 4
    for one in told:
        assert one["tflops"] == pytest.approx(given, rel=0.75 / one["steps"] + 0.05)


def test_trainings_on_other_data_are_told_apart_and_are_no_replicates(videopool, tmp_path, small):
    words = [*small, *(word for word in TOY if not word.startswith(("pooling", "training.steps")))]
    words += ["benchmark.clips=60", "benchmark.per_task=8", "benchmark.limit=2", "training.steps=1", "study=s"]
    words += [TASKS, "training.micro_batch=1", "training.global_batch=1"]
    sweep = ["pooling=average,adaptive_Tx3x3", "training.share=0.25,1", "seed=0,1"]
    done = videopool("-m", *words, *sweep, "baseline=average time", env={"VIDEOPOOL_FIGURES": "svg"})
    assert "training clips" in done.stdout
    study = tmp_path / "results" / "s"
    table = load_study(study)
    assert list(table.status) == ["complete"] * 8
    sizes = sorted(set(table.training_clips))
    assert len(sizes) == 2
    assert set(table.training_steps) == {1}
    assert (table.trained_pooling == table.pooling).all()
    assert (table.training_tflops > 0).all()
    seeds = pd.read_csv(study / "seeds.csv")
    assert sorted(zip(seeds.pooling, seeds.training_clips, strict=True)) == [
        (pooling, size) for pooling in ("adaptive Tx3x3", "average time") for size in sizes
    ]
    assert set(seeds.seeds) == {"0, 1"}
    assert seeds.set_index("pooling").difference.isna().to_dict() == {"adaptive Tx3x3": False, "average time": True}
    sweep = pd.read_csv(study / "sweep.csv").set_index("point")
    for row in sweep[sweep.pooling == "adaptive Tx3x3"].itertuples():
        other = sweep.loc[row.baseline]  # trained on as many clips, under the same seed
        assert (other.training_clips, other.seed) == (row.training_clips, row.seed)
        assert "training data" not in row.differs
    assert list((study / "figures").glob("score_image_by_training_clips_*.svg"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["training.rate=0"], "training.rate=0 trains nothing"),
        (["training.rate=-1"], "training.rate must be a number of at least 0"),
        (["training.global_batch=3"], "training.global_batch=3 is not a multiple of training.micro_batch=2"),
        (["training.lora.targets=[fc1]"], "training.lora.targets=['fc1']"),
        (["training.steps=0"], "training.steps must be a whole number of at least 1"),
        (["training.steps=null", "training.global_batch=4000"], "fewer examples than one step"),
        (["training.validation.share=1"], "leaves nothing to train on"),
        (["job.export=best", "training.validation.share=0"], "job.export=best: there is no validation"),
        (["lora=pllava", "lora.checkpoint=x"], "starts from the model as released"),
        (["trainer.precision=16-mixed"], "trainer.precision=16-mixed: training takes"),
        (["pooling=attention_resampler", "pooling.dim=128"], "has weights of its own"),
        (["training_data.sources.shapes.letters=2"], "letters must lie in 0..1"),
        (["training_data.sources.shapes.weight=0"], "training_data.sources.shapes.weight=0"),
        (["frames.num=64", "pooling=none"], "9216 tokens do not fit mini's context"),
        (["training_data=llava", "training_data.sources.llava.path=x"], "llava.root is not given"),
        (["training.tflops=1"], "training.steps and training.tflops: give one of them"),
        (["training.steps=null", "training.tflops=-1"], "training.tflops must be a number of at least 0"),
        (["training.steps=null", "training.tflops=1e-9"], "training.tflops=1e-09 is not enough for one step"),
        (["training.checkpoint_gradients=5"], "training.checkpoint_gradients=5: say true or false"),
        (["job.evaluate=maybe"], "job.evaluate='maybe': say true or false"),
        (["training.share=0"], "training.share=0 leaves nothing to train on"),
        (["training.share=1.5"], "training.share must be a number in 0..1"),
        (["job.sources=[llava]"], "job.sources=['llava']: give a list of names; there are shapes"),
        (["job.sources=[]"], "job.sources=[]: give a list of names"),
        (["training.betas=[0.9]"], "training.betas=[0.9]: give two numbers in 0..1"),
        (["training.betas=[0.9,1]"], "training.betas=[0.9, 1]: give two numbers in 0..1"),
        (["training.betas=null"], "training.betas=None: give two numbers in 0..1"),
        (["training.clip=0"], "training.clip=0 leaves no gradient"),
        (["training.warmup=1.5"], "training.warmup must be a number in 0..1"),
        (["training.layout=null"], "training.layout=None: give a layout"),
        (["training.lora.rank=0"], "training.lora.rank=0: give a positive whole number"),
        (["training.lora.targets=q_proj"], "training.lora.targets='q_proj': give a list of some of q_proj"),
        (["training.lora.targets=null"], "training.lora.targets=None: give a list of some of q_proj"),
        (["training.lora=3"], "training.lora=3: give rank, alpha, dropout, targets and nothing else"),
        (["+training.lora.ranks=3"], "give rank, alpha, dropout, targets and nothing else"),
        (["seed=-1"], "seed must be a whole number of at least 0"),
        (["model=api", "model.model=x"], "model=api: the weights of a model behind an API cannot be trained"),
        (["training_data.sources.shapes._target_=builtins.dict"], "training_data.sources.shapes: dict is not a Source"),
    ],
)
def test_what_cannot_work_is_told_in_one_line(tune, words, message):
    with pytest.raises(UserError) as caught:
        tune(*words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_batch(tune, tmp_path):
    with pytest.raises(UserError, match=r"the loss of step \d+ is not a finite number"):
        tune("training.rate=1e30", "training.clip=null", "training.steps=20", "training.warmup=0", "study=odd")
    (path,) = (tmp_path / "results" / "odd").glob("*/bad_batch.json")
    told = json.loads(path.read_text())
    assert len(told["entries"]) == 2
    assert told["step"] == len(losses(path.parent))
    assert "not a finite number" in json.loads((path.parent / "failure.json").read_text())["reason"]
    assert not (path.parent / "metrics.json").exists()


def test_a_gradient_that_is_no_number_is_not_stepped_along(tune, tmp_path, monkeypatch):
    """A finite loss may have one; the next batch's loss would then be no number, and that batch would be blamed."""
    computed = Tuner.losses

    def odd(self, batch, look=None):
        total, tokens = computed(self, batch, look)
        if look is None and self.progress.step == 1:
            total = total + sum((one.sum() * 0).sqrt() for one in trainable(self.backbone).values())
        return total, tokens

    words = ["training.steps=2", "training.micro_batch=1", "job.checkpoint_every=1", "study=odd"]
    with monkeypatch.context() as patched:
        patched.setattr(Tuner, "losses", odd)
        with pytest.raises(UserError, match=r"the gradient of step 1 is not a finite number; read together were .*"):
            tune(*words)
    (path,) = (tmp_path / "results" / "odd").glob("*/bad_batch.json")
    assert len(json.loads(path.read_text())["entries"]) == 2  # of both micro-batches
    folder = tune(*words)
    assert len(losses(folder)) == 2
    assert not (folder / "bad_batch.json").exists()
    assert all(torch.isfinite(value).all() for value in weights(folder).values())


@pytest.fixture(scope="module")
def clips_and_images(tmp_path_factory):
    media = tmp_path_factory.mktemp("media")
    for number in range(12):
        write_mp4(media / f"{number}.mp4", numbered_frames(6 + number, 96, 96))
    for number in range(6):
        Image.fromarray(numbered_frames(8, 96, 96)[number]).save(media / f"{number}.png")
    (media / "garbage.mp4").write_bytes(np.random.default_rng(0).bytes(3000))
    return media


@pytest.fixture
def own_data(tmp_path, clips_and_images):
    """Twelve good videos and six images, and entries that cannot be used or read among them."""
    media = shutil.copytree(clips_and_images, tmp_path / "media")

    def entry(name, question="what is the background ?", answer="grass"):
        kind = "video" if name.endswith(".mp4") else "image"
        said = [{"from": "human", "value": f"<{kind}>\n{question}"}, {"from": "gpt", "value": answer}]
        return {"id": name, kind: name, "conversations": said}

    entries = [entry(f"{n}.mp4") for n in range(12)] + [entry(f"{n}.png") for n in range(6)]
    entries += [entry("garbage.mp4"), entry("missing.mp4"), entry("0.mp4", answer=" ".join(["red"] * 60))]
    entries += [{"conversations": []}, entry("1.mp4", answer=""), entry("2.mp4", question="what </s> is it ?")]
    path = tmp_path / "own.json"
    path.write_text(json.dumps(entries))
    where = [f"training_data.sources.llava.{key}={value}" for key, value in (("path", path), ("root", media))]
    return ["training_data=llava", *where, "training.max_text=40", "training.validation.share=0"]


def test_images_and_videos_in_one_stream_and_what_is_left_out_is_told(tune, own_data, monkeypatch, capsys):
    from videopool.training import module as tuning

    lengths = set()
    pool = tuning.Tuner._visual_tokens

    def spy(self, read):
        found = pool(self, read)
        lengths.update((clip.job.samples[0].example.kind, len(clip.views), len(one[0])) for (clip, _), one in
                       zip(read, found, strict=True))  # fmt: skip
        return found

    monkeypatch.setattr(tuning.Tuner, "_visual_tokens", spy)
    words = [*own_data, "training.steps=null", "training.epochs=2", "training.global_batch=7", "training.micro_batch=7"]
    folder = tune(*words, "job.max_failed_fraction=0.3", "study=own")
    assert lengths == {("video", 2, 18), ("image", 1, 9)}
    told = capsys.readouterr().err
    assert "own.json, entry 21: there is no medium" in told
    assert "own.json, entry 22: the question" in told
    assert "1 conversations were cut at their end" in told
    metrics = metrics_of(folder)
    assert (metrics["n_refused"], metrics["n_unreadable"], metrics["n_cut"]) == (3, 2, 1)
    assert metrics["steps"] == 6
    assert metrics["labelled_tokens"] == sum(row["tokens"] for row in log_of(folder) if "loss" in row)
    rows = [json.loads(line) for line in (folder / "left_out.jsonl").read_text().splitlines()]
    assert [row["kind"] for row in rows] == ["refused"] * 3 + ["unreadable"] * 2
    why = " ".join(row["why"] for row in rows)
    for part in ("entry 18", "entry 19", "garbage.mp4", "missing.mp4", "'</s>' stands in the text"):
        assert part in why
    lengths.clear()
    tune(*words, "job.max_failed_fraction=0.3", "pooling@job.image_pooling=none", "study=own", "training.epochs=1")
    assert lengths == {("video", 2, 18), ("image", 1, 144)}


def test_media_that_are_others_by_now_are_refused_and_a_copy_is_none(tune, own_data, tmp_path):
    folder = tune(*own_data, "job.max_failed_fraction=0.6")
    image = next((tmp_path / "media").glob("*.png"))
    content = image.read_bytes()
    os.utime(image, (1, 1))
    assert tune(*own_data, "job.max_failed_fraction=0.6") == folder
    Image.fromarray(255 - np.array(Image.open(image))).save(image)
    with pytest.raises(UserError, match=rf"training began: 1 \(llava/{image.name}\); say force=true"):
        tune(*own_data, "job.max_failed_fraction=0.6")
    image.write_bytes(content)
    assert tune(*own_data, "job.max_failed_fraction=0.6") == folder


def test_a_wrong_folder_of_media_is_told_once_and_not_of_a_finished_run(tune, own_data, tmp_path):
    words = [*own_data, "job.max_failed_fraction=1", "study=moved"]
    with pytest.raises(UserError, match=r"none of 22 media is there, as .*elsewhere/0\.mp4; check its root"):
        tune(*words, f"training_data.sources.llava.root={tmp_path}/elsewhere")
    folder = tune(*words)
    (tmp_path / "media").rename(tmp_path / "archive")
    assert tune(*words) == folder  # what is finished needs them no more


def test_too_much_that_cannot_be_used_or_read_fails_the_run(tune, own_data):
    with pytest.raises(UserError, match="2 of 24 entries cannot be used") as caught:
        tune(*own_data, "job.max_failed_fraction=0.05")
    assert "entry 21: there is no medium" in str(caught.value)
    with pytest.raises(UserError, match="2 clips could not be read") as caught:
        tune(*own_data, "job.max_failed_fraction=0.09", "training.global_batch=22", "training.micro_batch=22")
    assert "garbage.mp4" in str(caught.value)


def test_texts_of_no_use_count_as_clips_that_cannot_be_read_do(tune, own_data, tmp_path, capsys):
    """A question that leaves no room for its answer; where nothing is left at all, nothing is said to be trained."""
    words = [*own_data, "job.max_failed_fraction=0.2"]
    path = tmp_path / "own.json"
    entries = json.loads(path.read_text())[:10]
    path.write_text(json.dumps(entries))
    tune(*words, "study=good", "training.global_batch=10", "training.micro_batch=10")
    for entry in entries[:2]:
        entry["conversations"][0]["value"] += " red" * 60
    path.write_text(json.dumps(entries))
    capsys.readouterr()
    run = tune(*words, "study=two", "training.global_batch=10", "training.micro_batch=10")
    assert metrics_of(run)["n_refused"] == 2
    assert (
        "left out: " + str(path) + ", entry 0: max_length=40 leaves nothing of the answers" in capsys.readouterr().err
    )
    with pytest.raises(UserError, match="2 conversations are of no use") as caught:
        tune(
            *own_data, "job.max_failed_fraction=0.1", "study=few", "training.global_batch=10", "training.micro_batch=10"
        )
    assert "entry 1: max_length=40 leaves nothing of the answers" in str(caught.value)
    with pytest.raises(UserError, match=r"max_length=6 .* nothing was learned"):
        tune(*own_data, "job.max_failed_fraction=1", "study=none", "training.max_text=6")
    assert not list((tmp_path / "results" / "none").glob("*/metrics.json"))


def test_nothing_that_can_be_read_is_no_training(tune, own_data, tmp_path):
    path = tmp_path / "own.json"
    entries = [one for one in json.loads(path.read_text()) if one.get("id") in ("garbage.mp4", "missing.mp4")]
    path.write_text(json.dumps(entries))
    with pytest.raises(UserError, match=r"no example could be used, as .*: nothing was learned"):
        tune(*own_data, "job.max_failed_fraction=1")


def test_the_best_step_needs_held_out_examples_that_can_be_used(tune, own_data, tmp_path):
    path = tmp_path / "own.json"
    entries = [one for one in json.loads(path.read_text()) if str(one.get("id")).endswith(".mp4")]
    source = load_llava(path, tmp_path / "media", name="x")
    (held,) = source.split(0.01, 64)[1]
    broken = tmp_path / "media" / held.name
    broken.write_bytes(b"nothing")
    path.write_text(
        json.dumps([one for one in entries if one["id"] in (held.name, "0.mp4", "3.mp4", "4.mp4", "5.mp4")])
    )
    words = [*own_data, "training.validation.share=0.01", "job.export=best", "job.max_failed_fraction=1"]
    with pytest.raises(UserError, match=r"job\.export=best: no held-out example could be used"):
        tune(*words)


def test_a_step_of_more_than_the_data_is_told(tune, own_data, capsys):
    tune(*own_data, "job.max_failed_fraction=0.3", "training.steps=1", "training.global_batch=32")
    assert "training.global_batch=32 is more than the 22 examples of an epoch" in capsys.readouterr().err


def test_clips_of_one_frame_under_random_frames(tune, tmp_path):
    write_mp4(tmp_path / "one.mp4", numbered_frames(1, 96, 96))
    said = [{"from": "human", "value": "<video> what is it ?"}, {"from": "gpt", "value": "grass"}]
    (tmp_path / "one.json").write_text(json.dumps([{"video": "one.mp4", "conversations": said}]))
    where = [
        f"training_data.sources.llava.{key}={tmp_path}{tail}" for key, tail in (("path", "/one.json"), ("root", ""))
    ]
    words = ["training_data=llava", *where, "training.validation.share=0", "frames=random", "frames.num=4"]
    assert metrics_of(tune(*words))["n_unreadable"] == 0


def test_the_rate_warms_up_and_falls():
    plan = Optimisation(100, 2.0, 0.1, 0.25, (0.9, 0.999), 0.0)
    rates = [plan.at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[54] == pytest.approx(2 * (0.25 + 0.375), rel=0.02)
    assert rates[-1] == pytest.approx(0.5)
    assert sorted(rates[10:], reverse=True) == rates[10:]


def test_less_memory_for_the_same_gradients(tune):
    plain = tune("study=plain")
    saved = tune("study=saved", "training.checkpoint_gradients=true")
    np.testing.assert_allclose(losses(plain), losses(saved), rtol=1e-5)


def test_the_weights_of_least_validation_loss_are_kept_and_exported(tune):
    """At a rate that ruins the model, the first step is the best."""
    words = ["training.rate=0.3", "training.warmup=0", "training.validation.every=1", "training.clip=null"]
    folder = tune(*words, "job.export=best")
    told = [row["validation_loss"] for row in log_of(folder) if "validation_loss" in row]
    metrics = metrics_of(folder)
    assert (metrics["best_step"], metrics["best_validation_loss"]) == (1 + told.index(min(told)), min(told))
    assert metrics["best_step"] < 3
    (path,) = folder.glob("checkpoints/best-*.safetensors")
    best, exported = load_file(path), load_file(folder / "export" / "model.safetensors")
    assert torch.equal(
        best["model.multi_modal_projector.linear_1.weight"], exported["multi_modal_projector.linear_1.weight"]
    )
    assert not torch.equal(best["model.multi_modal_projector.linear_1.weight"],
                           weights(folder)["model.multi_modal_projector.linear_1.weight"])  # fmt: skip


def test_weights_on_the_way_are_exported_and_can_be_evaluated(tune, configure):
    """Those behind step 2 of four are those of a run that ends there with the same rates, and not the last ones."""
    flat = ["training.warmup=0", "training.floor=1"]
    folder = tune("study=long", "training.steps=4", "job.export_every=2", *flat)
    assert [path.name for path in folder.glob("exports/*")] == ["step-000002"]
    short = tune("study=short", "training.steps=2", "job.export_every=2", *flat)
    assert not (short / "exports").exists()  # the last ones have their own place
    on_the_way, last, ended = (
        load_file(path / "model.safetensors")
        for path in (folder / "exports" / "step-000002", folder / "export", short / "export")
    )
    assert on_the_way.keys() == ended.keys()
    assert all(torch.equal(on_the_way[name], ended[name]) for name in ended)
    assert any(not torch.equal(on_the_way[name], last[name]) for name in last)
    recipes = [json.loads(path.read_text())["recipe"] for path in folder.glob("export*/**/videopool.json")]
    assert sorted(map(recipes.count, set(recipes))) == [2, 2]  # each in PLLaVA's folder and in peft's
    words = ["lora=tuned", f"lora.checkpoint={folder}/exports/step-000002", "frames.num=2", "pooling=adaptive_Tx3x3"]
    words += ["benchmark.clips=60", "benchmark.per_task=8", "benchmark.limit=2", TASKS, "logger=none", "job.workers=0"]
    outcome = evaluate(configure(*words, toy=False))
    assert json.loads((Path(outcome.folder) / "metrics.json").read_text())["n"] > 0


def test_frozen_weights_in_bfloat16(tune):
    folder = tune("model.dtype=bfloat16", "training.steps=2", "study=half")
    full = tune("training.steps=2", "study=full")
    assert {value.dtype for value in weights(folder).values()} == {torch.float32}
    np.testing.assert_allclose(losses(folder), losses(full), rtol=0.05)
    assert json.loads((folder / "run.json").read_text())["identity"]["precision"] == "bf16-mixed"


def test_a_study_trains_evaluates_and_reports(videopool, tmp_path, small):
    words = [*small, *(word for word in TOY if not word.startswith("pooling"))]
    small = ["benchmark.clips=60", "benchmark.per_task=8", "benchmark.limit=1", TASKS]
    done = videopool("-m", *words, *small, "study=s", "pooling=none,average", "training.steps=1")
    assert done.stdout.count("evaluating") == 2
    assert "Traceback" not in done.stderr
    table = load_study(tmp_path / "results" / "s")
    assert list(table.status) == ["complete"] * 2
    assert (tmp_path / "results" / "s" / "sweep.csv").is_file()
    again = videopool("-m", *words, *small, "study=s", "pooling=none,average", "training.steps=1")
    assert again.stdout.count("finished before; evaluating") == 2
    assert again.stdout.count("kept") == 2


ENDS = """
import os, signal
from pathlib import Path
from videopool.pooling import Average

class Ends(Average):
    def pool(self, grid, context=None):
        flag = Path(os.environ["ENDED"])
        if grid.shape[-1] > 3 and os.environ.get("VIDEOPOOL_DEVICE") == "2" and not flag.exists():
            if list(Path("results").glob("two/*/checkpoints/step-00000002")):
                flag.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().pool(grid, context)
"""


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_two_devices_take_the_steps_of_one(tune, tmp_path, command, forked, strategy, monkeypatch):
    """Equal global batch, the same micro-batches dealt out: the gradients, so the weights, are those of one process.

    Forked, with one killed near the end, and spawned.
    """
    (tmp_path / "ends.py").write_text(ENDS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ENDED", str(tmp_path / "ended"))
    words = ["training.micro_batch=1", "training.lora.dropout=0.2", "job.evaluate=false"]
    words += ["job.checkpoint_every=1", "pooling=average", "pooling._target_=ends.Ends"]
    one = tune(*words, "study=one")
    words += ["study=two", "trainer=ddp", f"trainer.strategy={strategy}"]
    asked = command(*words)
    if strategy == "ddp":
        done = forked.run(asked, tmp_path)
        assert done.returncode == 1
        assert "a process of trainer.devices=2 ended: process 1 terminated with signal SIGKILL" in done.stderr
    (tmp_path / "ended").touch()
    # In a job of SLURM, Lightning would take a file of this name for its own checkpoint.
    for place in (tmp_path / "any", *(tmp_path / "results" / "two").glob("*/run.json")):
        place.with_name("hpc_ckpt_1.ckpt").write_bytes(b"")
    done = forked.run(asked, tmp_path, env={"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "points"})
    assert done.returncode == 0, done.stderr
    assert ("continuing after step 2 of 3" in done.stdout) == (strategy == "ddp")
    (two,) = [path.parent for path in (tmp_path / "results" / "two").glob("*/metrics.json")]
    assert one.name == two.name
    np.testing.assert_allclose(losses(one), losses(two), rtol=1e-5)
    first, second = weights(one), weights(two)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-3, atol=2e-6)
    told, also = ([row["validation_loss"] for row in log_of(run) if "validation_loss" in row] for run in (one, two))
    np.testing.assert_allclose(told, also, rtol=1e-4)
    assert metrics_of(one)["labelled_tokens"] == metrics_of(two)["labelled_tokens"]
    assert metrics_of(two)["seconds"]["backward"] > 0


def test_curves_of_two_devices_are_their_log(tune, monkeypatch):
    class Kept(list):
        def add(self, *rows):
            self.extend(rows)

        def finish(self, metrics):
            self.append(metrics)

    kept = Kept()
    monkeypatch.setattr("videopool.training.run.training_curves", lambda *_: nullcontext(kept))
    folder = tune("training.micro_batch=1", "trainer.devices=2", "training.steps=2")
    assert kept == [*log_of(folder), metrics_of(folder)]
    assert len(losses(folder)) == 2


def test_two_devices_allow_no_more_failures_than_one(own_data, tmp_path, command, forked):
    """Eight of sixteen clips are missing and six are allowed: each device alone reads past no more than these."""
    path = tmp_path / "own.json"
    good = json.loads(path.read_text())[:8]
    path.write_text(json.dumps(good + [{**one, "video": f"missing-{one['video']}"} for one in good]))
    words = [*own_data, "job.max_failed_fraction=0.4", "training.global_batch=16", "training.micro_batch=1"]
    words += ["training.steps=1", "job.evaluate=false", "trainer=ddp", "study=two"]
    asked = [word for word in command(*words) if word not in WORLD]
    done = forked.run(asked, tmp_path)
    assert done.returncode == 1, done.stderr
    assert "missing-" in done.stderr
    assert not list((tmp_path / "results" / "two").glob("*/metrics.json"))
