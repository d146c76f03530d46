"""What job=speed measures on: a model of the asked size, clips, and points made of them."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra import compose
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from videopool.config.build import build, plain
from videopool.config.errors import ConfigError
from videopool.features import FeatureStore
from videopool.models import Backbone, load_backbone
from videopool.models.configuration import DTYPES
from videopool.models.shape import shape_from
from videopool.results import ResultsError
from videopool.speed.random_model import random_backbone, save_random_model

# What a point of its own needs of the group `job`.
POINT_KEYS = ("max_failed_fraction", "reader", "workers", "max_visual_tokens", "max_clips")
Step = Callable[[], None]
Line = Callable[[str, int], Step]  # begins a line of the progress bar (title, steps), and gives what moves it on
SAMPLER = "videopool.video.UniformSampler"


@dataclass
class Bench:
    """One size, ready to be measured.

    Attributes:
        config: of the job.
        size: its block of job.sizes, resolved.
        folder: for results and files that are thrown away.
        clips: folder of the clips and their questions.
        source: of the model, as model.source takes it.
        made: the model, where its weights are in no file; else None.
    """

    config: DictConfig
    size: dict[str, Any]
    folder: Path
    clips: Path
    source: str
    made: Backbone | None = None

    @cached_property
    def backbone(self) -> Backbone:
        """The model that points share."""
        return self.made if self.made is not None else self.load()

    def load(self) -> Backbone:
        """The model, loaded anew from its files; the one there is where there are no files."""
        if self.made is not None:
            return self.made
        return load_backbone(self.source, name=self.size["name"], dtype=self.size["dtype"])

    def store(self, name: str) -> FeatureStore:
        """An empty feature store."""
        node = plain(self.config.job.store)
        if "root" in node:
            node["root"] = str(self.folder / name)
        return build(OmegaConf.create({"features": node}), "features")

    def point(self, study: str, pooling: Any, frames: int, questions: int, **job: Any) -> DictConfig:
        """The configuration of one point.

        Args:
            study: subfolder for its results.
            pooling: node of the configuration, or a mapping.
            frames: how many, by the uniform sampler.
            questions: on a clip; one of the numbers that were written.
            job: changes to the group `job`; scoring is the benchmark's.
        """
        config = self._composed(study, pooling, frames)
        scoring = job.pop("scoring", "likelihood")
        config.job = {"name": "evaluate", **{key: self.config.job[key] for key in POINT_KEYS}, **job}
        config.benchmark = self.benchmark(questions, scoring)
        return config

    def _composed(self, study: str, pooling: Any, frames: int) -> DictConfig:
        """What the configurations of points and of trainings have in common."""
        config = self.config.copy()
        OmegaConf.set_struct(config, False)
        node = pooling if isinstance(pooling, dict) else plain(pooling)
        config.pooling = {"stage": "projector", **node}
        config.frames = {"_target_": SAMPLER, "num": frames}
        config.model = {**config.model, **self.model}
        config.logger = {"name": "none"}
        config.features = {"_target_": "videopool.features.FeatureStore"}
        config.results_dir, config.study = str(self.folder), study
        return config

    def training(self, study: str, pooling: Any, steps: int) -> DictConfig:
        """The configuration of one training of so many steps, on the conversations about the clips.

        Args:
            study: subfolder for it.
            pooling: node of the configuration, or a mapping.
        """
        settings = self.config.job.training
        config = self._composed(study, pooling, int(settings.frames))
        config.job = {"name": "finetune", "evaluate": False, **plain(settings.job)}
        config.training = {**plain(settings.recipe), "steps": steps}
        source = {"_target_": "videopool.training_data.load_llava", **self.conversations}
        config.training_data = {"sources": {"timing": source}}
        return config

    @cached_property
    def conversations(self) -> dict[str, str]:
        """Path and root of a file in LLaVA's layout: a conversation a clip, of the first questions that are asked."""
        asked = json.loads((self.clips / "json" / f"questions_{self.size['questions']}.json").read_text())
        by_clip: dict[str, list[dict[str, str]]] = {}
        for one in asked:
            said = by_clip.setdefault(f"video/{one['video']}", [])
            if len(said) < 2 * int(self.config.job.training.rounds):
                place = "" if said else "<video>\n"
                said.append({"from": "human", "value": place + one["question"]})
                said.append({"from": "gpt", "value": one["answer"]})
        entries = [{"id": name, "video": name, "conversations": said} for name, said in by_clip.items()]
        path = self.folder / "conversations.json"
        path.write_text(json.dumps(entries))
        return {"path": str(path), "root": str(self.clips)}

    @property
    def model(self) -> dict[str, Any]:
        """What the group `model` says of this model."""
        return {"name": self.size["name"], "source": self.source, "dtype": self.size["dtype"], "shape": None}

    def benchmark(self, questions: int, scoring: str = "likelihood") -> dict[str, Any]:
        """The group `benchmark` for so many questions a clip."""
        return {
            "_target_": "videopool.benchmarks.load_mvbench",
            "id": "timing",
            "root": str(self.clips),
            "tasks": [f"questions_{questions}"],
            "scoring": scoring,
            "max_new_tokens": 16,
        }


@contextmanager
def bench(config: DictConfig) -> Iterator[Bench]:
    """Make model and clips in a temporary folder of the study; gone afterwards.

    Raises:
        ConfigError: no such size, a size that needs a GPU where there is none, or settings that make nothing.
        ResultsError: the folder cannot be written.
    """
    sizes = plain(config.job.sizes)
    if config.job.size not in sizes:
        raise ConfigError(f"job.size={config.job.size}: choose one of {', '.join(sizes)}")
    size = sizes[config.job.size]
    if size["device"] == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"job.size={config.job.size} needs a GPU, and there is none here; choose job.size=small")
    study = Path(config.results_dir).resolve() / config.study
    try:
        study.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".speed-", dir=study))
    except OSError as error:
        raise ResultsError(f"{study} cannot be written: {error.strerror or error}") from error
    try:
        numbers = [size["questions"], *config.job.asked]
        clips = build(
            config.job, "write_clips", root=str(folder), clips=size["clips"], questions=numbers,
            pixels=size["pixels"], hold=size["hold"],
        )  # fmt: skip
        yield _with_model(Bench(config, size, folder, clips, str(size["source"])))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _with_model(made: Bench) -> Bench:
    """Random weights where the size names no source: in files, or on the GPU alone."""
    size = made.size
    if size["source"] is not None:
        return made
    block = size["shape"]
    if isinstance(block, str):
        block = OmegaConf.to_container(compose("config", overrides=[f"model={block}"]).model.shape)
    shape = shape_from(block, f"job.sizes.{made.config.job.size}.shape")
    tokenizer = instantiate(made.config.job.tokenizer)
    folder = made.folder / "model"
    made.source = str(folder)
    if size["in_files"]:
        save_random_model(shape, tokenizer, folder)
    else:
        made.made = random_backbone(shape, tokenizer, folder, size["name"], size["device"], DTYPES[size["dtype"]])
    return made
