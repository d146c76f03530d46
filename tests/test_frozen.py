"""What users have on disk stays valid: fingerprints of configurations, and the files, columns and keys of a study.

`FREEZE=1 pytest -n 0 tests/test_frozen.py` writes tests/data/frozen.json anew: right only where the results themselves
change. A new key with a default keeps the fingerprints of those who do not set it: see `results.fingerprint.LATER`.
"""

import csv
import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters import TARGETS, adapter_in_tower
from conftest import ROOT, numbered_frames
from videopool.evaluation.run import point_of
from videopool.measuring.settings import check, choose_clips, identify
from videopool.results import fingerprint
from videopool.shapes.clips import write_mp4
from videopool.training.point import TrainingPoint

FROZEN = Path(__file__).parent / "data" / "frozen.json"
POOLINGS = sorted(path.stem for path in (ROOT / "conf" / "pooling").glob("*.yaml"))
OWN_WORDS = {  # settings without which a pooling's file cannot be used
    "chain": ["+pooling.steps=[{_target_: videopool.pooling.Average, axis: time}]"],
    "fastvid": ["pooling.selector.kind=tower", "pooling.allocator.by=mean"],  # the toy tower has no pooling head
}
SHEET = ["benchmark=qa_sheet", "benchmark.root=.", "benchmark.annotations=sheet.json", "benchmark.answers=text"]
API = [
    "model=api",
    "model.base_url=http://localhost:8000/v1",
    "model.model=m",
    "benchmark.scoring=generate",
    "frames.num=6",
]
JUDGE = ["judge=openai", "judge.base_url=http://localhost:8000/v1", "judge.model=m", "judge.key_env=KEY"]
SHAPES = ["benchmark.clips=30", "benchmark.per_task=2"]
EVALUATED = {
    **{f"pooling={name}": [*SHAPES, f"pooling={name}", *OWN_WORDS.get(name, [])] for name in POOLINGS},
    "encoder": [*SHAPES, "pooling=average", "pooling.stage=encoder"],
    "interior": [*SHAPES, "frames=interior", "frames.num=3"],
    "random": [*SHAPES, "frames=random", "frames.num=3", "seed=5"],
    "fps": [*SHAPES, "frames=fps", "frames.num=3"],
    "events": ["benchmark=shapes_events", *SHAPES],
    "images": ["benchmark=shapes_images", *SHAPES],
    "cloze": [*SHAPES, "benchmark.scoring=cloze"],
    "generate": [*SHAPES, "benchmark.scoring=generate", "compat=pllava"],
    "vicuna": [*SHAPES, "prompt=vicuna"],
    "qwen": [*SHAPES, "prompt=qwen"],
    "bfloat16": [*SHAPES, "model.dtype=bfloat16", "features.dtype=float16"],
    "sheet": [*SHEET],
    "clips": ["benchmark=clips", "benchmark.root=."],
    "judge": [*SHEET, *JUDGE],
    "api": [*SHEET, *API, "frames.num=6"],
    "lora": [*SHEET, "lora=tuned", "lora.alpha=8", "lora.checkpoint=adapter"],
}  # fmt: skip
TRAINED = {
    "finetune": ["job=finetune", "training_data=shapes_images", "frames.num=3"],
    "finetune average": [
        "job=finetune",
        "training_data=shapes_images",
        "pooling=average",
        "training.steps=3",
        "seed=2",
    ],
}
SMALL_DATA = ["training_data.sources.shapes_images.clips=30", "training_data.sources.shapes_images.per_task=2"]
MEASURED = {"norms": [*SHEET, "job=norms"], "norms adaptive": [*SHEET, "job=norms", "pooling=adaptive_Tx3x3"]}


def alike_everywhere(adapter):
    """Take what differs between machines out of an adapter: random weights, and where its base lies."""
    weights, config = adapter / "adapter_model.safetensors", adapter / "adapter_config.json"
    save_file({name: torch.ones_like(one) for name, one in load_file(weights).items()}, weights)
    settings = json.loads(config.read_text()) | {"base_model_name_or_path": "base", "peft_version": "0"}
    config.write_text(json.dumps(settings))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with two clips, a sheet of questions and an adapter, as the working directory."""
    for name in ("v", "w"):
        write_mp4(tmp_path / f"{name}.mp4", numbered_frames(4, 96, 96))
    rows = [
        {"video_name": "v", "question": "?", "answer": "1", "options": ["1", "2"], "question_type": "a"},
        {"video_name": "w", "question": "what?", "answer": "2", "options": None, "question_type": "b"},
    ]
    (tmp_path / "sheet.json").write_text(json.dumps(rows))
    alike_everywhere(adapter_in_tower(tmp_path / "adapter", TARGETS["projector"]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fingerprints(compose, data_dir):
    """The fingerprint of each configuration, by its name."""
    found = {}
    for name, words in EVALUATED.items():
        found[name] = fingerprint(point_of(compose(*words, f"data_dir={data_dir}")).identity())
    for name, words in TRAINED.items():
        found[name] = fingerprint(TrainingPoint(compose(*words, *SMALL_DATA, f"data_dir={data_dir}")).identity())
    for name, words in MEASURED.items():
        config = compose(*words, f"data_dir={data_dir}")
        job, point = check(config), point_of(config)
        found[name] = fingerprint(identify(job, point, choose_clips(point, job["clips"])))
    return found


def keys_of(path):
    """The keys at the top of each object in a JSON or JSON lines file, all lines together; a CSV file's columns."""
    text = path.read_text()
    if path.suffix == ".csv":
        return next(csv.reader([text.splitlines()[0]]))
    objects = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else [json.loads(text)]
    return sorted({key for one in objects for key in one})


def layout(study):
    """Names of a study's files, those of its points as one's, and their columns or keys."""
    found = {}
    for path in sorted(p for p in study.rglob("*") if p.is_file()):
        name = re.sub(r"^[^/]+-[0-9a-f]{8}/", "point/", path.relative_to(study).as_posix())
        inner = path.suffix in (".json", ".jsonl", ".csv") and path.name != "clips.json"
        found[name] = keys_of(path) if inner else []
    return found


def agree(part, found):
    """Compare with what is frozen, or freeze it."""
    frozen = json.loads(FROZEN.read_text()) if FROZEN.exists() else {}
    if os.environ.get("FREEZE"):
        FROZEN.write_text(json.dumps({**frozen, part: found}, indent=1, sort_keys=True) + "\n")
    else:
        assert found == frozen[part]


def test_fingerprints(here, hydra_conf, data_dir):
    agree("fingerprints", fingerprints(hydra_conf, data_dir))


def test_files_columns_and_keys_of_a_study(videopool, tmp_path):
    videopool(
        "-m",
        "pooling=none,average",
        "frames.num=2,3",
        "study=s",
        "benchmark.limit=1",
        env={"VIDEOPOOL_FIGURES": "png,svg,pdf"},
    )
    agree("study", layout(tmp_path / "results" / "s"))
