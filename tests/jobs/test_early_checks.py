"""What the configuration alone can tell is refused in one line: no clip is rendered, no weights are opened."""

import shutil
from pathlib import Path

import pytest

from videopool.errors import UserError
from videopool.jobs.run import job_of
from videopool.paths import shipped

MINI = Path(__file__).parents[2] / "src" / "videopool" / "shapes" / "mini_llava"
FINETUNE = "job=finetune"
LLAVA = "training_data=[shapes,llava]"
BAD = {
    "pooling.stage=encodr": "projector, encoder",
    "pooling=text_guided pooling.stage=encoder": "say pooling.stage=projector",
    "frames.num=a": "a positive integer, got 'a'",
    "frames.num=1000000000": "do not fit mini's context of 8192",
    "frames._target_=no.such.Sampler": "no.such.Sampler",
    "model.dtype=bf17": "choose one of float32, bfloat16, float16",
    "model.attention=flash": "choose one of sdpa, eager",
    "model.rope_factor=a": "at least 1, got 'a'",
    "model.device_map=automatic": "choose one of auto, balanced",
    "model.max_memory=5": "give a limit by device",
    "trainer.accelerator=tpu": "trainer.accelerator=cpu",
    "trainer.accelerator=gup": "choose one of auto, gpu",
    "trainer.devices=0": "at least 1, got 0",
    "trainer.devices=2 trainer.strategy=ddpp": "ddpp",
    "trainer=fsdp trainer.accelerator=cpu": "trainer.strategy=fsdp is for job=finetune",
    "job=finetune trainer=fsdp trainer.accelerator=cpu training.micro_batch=1": "shards on GPUs only",
    "+trainer.num_nodes=2": "a point runs on one machine",
    "trainer.precision=99": "Precision 99 is invalid",
    "trainer.precision=16-mixed trainer.accelerator=cpu": "computes in bf16-mixed",
    "features.dtype=float17": "float16, bfloat16, float32",
    "features=disk features.limit_bytes=a": "whole number of bytes",
    "features=disk features.root=": "features.root",
    "benchmark.scoring=likelyhood": "likelihood, cloze, generate",
    "benchmark.limit=0": "benchmark.limit must be a whole number of at least 1",
    "benchmark.max_new_tokens=a": "benchmark.max_new_tokens must be",
    "benchmark.scoring=generate benchmark.max_new_tokens=9000": "do not fit mini's context of 8192",
    "benchmark.clips=a": "clips must be a whole number",
    "benchmark.per_task=0": "per_task must be a whole number",
    "benchmark.groups=5": "give lists of tasks by name",
    "benchmark.headline=nope": "groups are image, time",
    "prompt=chat_template": "has no chat template",
    "prompt.option=abc": "must hold {letter} exactly once",
    "prompt.describe=5": "give a text",
    "lora.alpha=3": "there is no lora.checkpoint",
    "lora=tuned lora.checkpoint=./nowhere": "no folder",
    "compat.scoring=x": "strict, pllava",
    "compat.expand=x": "say true or false",
    "positions=there": "choose one of contiguous, original",
    "positions=original pooling=average": "average time have no places in the grid",
    "positions=original pooling=visionzip pooling.cls=true pooling.stage=encoder": "a CLS token is among them",
    "positions=original pooling=subsample pooling.tokens=9 frames.num=60": "8640 positions of the whole grid",
    "pruning=fastv pruning.layer=5": "mini has 5 layers, and pruning needs one after its own; say at most 4",
    "pruning=fastv pruning.layer=0": "pruning.layer must be a whole number of at least 1",
    "pruning.layer=2": "pruning.share must be a number above 0 and at most 1, got None",
    "pruning=fastv pruning.share=0": "above 0 and at most 1, got 0",
    "pruning=fastv pruning.share=1.5": "got 1.5",
    "job=norms positions=original": "job=norms reads tokens one after another",
    "job=norms pruning=fastv": "job=norms prunes nothing; say pruning=none",
    f"{FINETUNE} pruning=fastv": "job=finetune prunes nothing; say pruning=none",
    "job=plan positions=original pooling=average": "have no places",
    "judge=openai": "judge.model is not given",
    "logger=wandb logger.mode=loud": "offline, online",
    "logger=wandb logger.project=": "give the name of a W&B project",
    "logger.name=x": "wandb, none",
    "baseline=": "give the name of a pooling or of a point",
    "figures=5": "give a list",
    "figures=[{_target_:no.Such}]": "no.Such",
    "job.reader=x": "pyav, decord",
    "job.max_failed_fraction=a": "in 0..1",
    "job=norms job.stages=[nowhere]": "there is no stage nowhere",
    "job=norms job.stages=[llm.99]": "layers 0..",
    "job=norms job.attention_layers=[1]": "model.attention=eager only",
    "job=norms frames.num=1000000": "do not fit mini's context",
    "job=show job.stages=[x]": "there is no stage x; there are encoder, ",
    "job=show trainer.accelerator=gup": "choose one of auto, gpu",
    "job=features job.action=x": "list, verify, prune",
    "job=pretrain job.recipe.tower.steps=a": "steps='a'",
    "job=pretrain job.recipe.letter_share=7": "at most 1",
    f"{FINETUNE} frames.num=1000000": "do not fit mini's context",
    f"{FINETUNE} model.dtype=bf17": "float32, bfloat16, float16",
    f"{FINETUNE} trainer.accelerator=gup": "choose one of auto, gpu",
    f"{FINETUNE} training.rate=a": "training.rate must be",
    f"{FINETUNE} training.lora.rank=0": "give a positive whole number",
    f"{FINETUNE} training.lora.targets=[nope]": "q_proj",
    f"{FINETUNE} training_data.sources.shapes.letters=7": "letters must lie in 0..1",
    f"{FINETUNE} {LLAVA}": "training_data.sources.llava.path is not given",
    f"{FINETUNE} {LLAVA} training_data.sources.llava.path=nope.json training_data.sources.llava.root=.": "nope.json",
    f"{FINETUNE} benchmark.scoring=x": "likelihood, cloze, generate",
    f"{FINETUNE} prompt=chat_template": "has no chat template",
    f"{FINETUNE} logger=wandb logger.mode=x": "offline, online",
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """The toy model with half of its weights: a run that opens them says so."""
    folder = tmp_path_factory.mktemp("broken") / "model"
    shutil.copytree(MINI, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    return folder


@pytest.mark.parametrize("words", BAD)
def test_bad_values_are_refused_early(hydra_conf, tmp_path, broken, words):
    """In this process: the program, as below, starts the same job."""
    folders = [f"data_dir={tmp_path}/data", f"results_dir={tmp_path}/results"]
    config = hydra_conf("logger=none", *folders, f"model.source={broken}", *words.split())
    with pytest.raises(UserError) as caught:
        job_of(config.job.name).run(config)
    assert BAD[words] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "model.safetensors" not in str(caught.value)
    assert not list((tmp_path / "data").rglob("*.json"))


@pytest.mark.parametrize("words", ["frames.num=1000000000", "job=norms trainer.accelerator=gup"])
def test_the_program_refuses_them_in_one_line(videopool, tmp_path, broken, words):
    done = videopool(f"data_dir={tmp_path}/data", f"model.source={broken}", *words.split(), check=1)
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("FAILED")
    assert not list((tmp_path / "data").rglob("*.json"))


def test_half_of_the_weights_are_named(videopool, broken):
    told = videopool(f"model.source={broken}", "benchmark.limit=1", check=1).stderr
    assert f"{broken}/model.safetensors cannot be read" in told
    assert "internal error" not in told


def test_every_group_has_a_bad_value_here():
    named = {word.split(".")[0].split("=")[0] for words in BAD for word in words.split()}
    groups = {path.name for path in shipped("conf").iterdir() if path.is_dir()}
    assert groups - named == {"hydra", "view"}
