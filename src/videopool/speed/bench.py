"""The setting of job=speed: a model of the asked size, clips, and configurations of points on them."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from operator import itemgetter
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

# Keys of the group `job` that points share.
POINT_KEYS = ("max_failed_fraction", "reader", "workers", "max_visual_tokens", "max_clips")
Step = Callable[[], None]
Line = Callable[[str, int], Step]  # begins a line of the progress bar (title, steps) and returns its step function


@dataclass
class Bench:
    """Model and clips of one size, ready to measure."""

    config: DictConfig  # of the job
    size: dict[str, Any]  # its block of job.sizes, resolved
    folder: Path  # for results and files, deleted at the end
    clips: Path  # folder of the clips and their questions
    source: str  # of the model, as model.source takes it
    in_memory: Backbone | None = None  # the model, if its weights are in no file

    def load(self) -> Backbone:
        """The model, loaded anew if its weights are in files."""
        return self.in_memory or load_backbone(self.source, name=self.size["name"], dtype=self.size["dtype"])

    @cached_property
    def backbone(self) -> Backbone:
        """The model, loaded once."""
        return self.load()

    def store(self, name: str) -> FeatureStore:
        """An empty feature store."""
        node = plain(self.config.job.store)
        if "root" in node:
            node["root"] = str(self.folder / name)
        return build(OmegaConf.create({"features": node}), "features")

    def point(self, study: str, pooling: Any, frames: int, questions: int | None = None, **job: Any) -> DictConfig:
        """The configuration of a point with uniform frames.

        Args:
            questions: per clip; None for the size's number.
            job: changes to the group `job`; `scoring` goes to the benchmark.
        """
        benchmark = {
            "_target_": "videopool.benchmarks.load_mvbench", "id": "timing", "root": str(self.clips),
            "tasks": [f"questions_{questions or self.size['questions']}"],
            "scoring": job.pop("scoring", "likelihood"), "max_new_tokens": 16,
        }  # fmt: skip
        job = {"name": "evaluate", **{key: self.config.job[key] for key in POINT_KEYS}, **job}
        return self._composed(study, pooling, frames, job=job, benchmark=benchmark)

    def training(self, study: str, pooling: Any, steps: int) -> DictConfig:
        """The configuration of a training of so many steps on conversations about the clips."""
        settings = plain(self.config.job.training)
        source = {"_target_": "videopool.training_data.load_llava", **self.conversations}
        return self._composed(
            study, pooling, settings["frames"],
            job={"name": "finetune", "evaluate": False, **settings["job"]},
            training={**settings["recipe"], "steps": steps},
            training_data={"sources": {"timing": source}},
        )  # fmt: skip

    def _composed(self, study: str, pooling: Any, frames: int, **groups: Any) -> DictConfig:
        config = self.config.copy()
        OmegaConf.set_struct(config, False)
        groups |= {
            "pooling": {"stage": "projector", **plain(pooling)},
            "frames": {"_target_": "videopool.video.UniformSampler", "num": int(frames)},
            "model": {**config.model, **self.model},
            "logger": {"name": "none"},
            "features": {"_target_": "videopool.features.FeatureStore"},
        }
        for name, value in {**groups, "results_dir": str(self.folder), "study": study}.items():
            config[name] = value
        return config

    @cached_property
    def conversations(self) -> dict[str, str]:
        """Path and root of a file in LLaVA's layout: a conversation per clip, of its first questions."""
        asked = json.loads((self.clips / "json" / f"questions_{self.size['questions']}.json").read_text())
        entries, rounds = [], int(self.config.job.training.rounds)
        for name, of_clip in groupby(asked, itemgetter("video")):
            pairs = [(("human", one["question"]), ("gpt", one["answer"])) for one in islice(of_clip, rounds)]
            turns = [{"from": speaker, "value": words} for pair in pairs for speaker, words in pair]
            turns[0]["value"] = f"<video>\n{turns[0]['value']}"
            entries.append({"id": f"video/{name}", "video": f"video/{name}", "conversations": turns})
        path = self.folder / "conversations.json"
        path.write_text(json.dumps(entries))
        return {"path": str(path), "root": str(self.clips)}

    @property
    def model(self) -> dict[str, Any]:
        """The keys of the group `model`."""
        return {"name": self.size["name"], "source": self.source, "dtype": self.size["dtype"], "shape": None}


@contextmanager
def bench(config: DictConfig) -> Iterator[Bench]:
    """Make model and clips in a temporary folder of the study, which is deleted afterwards.

    Raises:
        ConfigError: no such size, a size that needs a GPU where there is none, or settings that make nothing.
        ResultsError: the folder cannot be written.
    """
    job, sizes = config.job, plain(config.job.sizes)
    if job.size not in sizes:
        raise ConfigError(f"job.size={job.size}: choose one of {', '.join(sizes)}")
    size = sizes[job.size]
    if size["device"] == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"job.size={job.size} needs a GPU, and there is none here; choose job.size=small")
    study = Path(config.results_dir).resolve() / config.study
    try:
        study.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".speed-", dir=study))
    except OSError as error:
        raise ResultsError(f"{study} cannot be written: {error.strerror or error}") from error
    try:
        clips = build(
            job, "write_clips", root=str(folder), clips=size["clips"], questions=[size["questions"], *job.asked],
            pixels=size["pixels"], hold=size["hold"],
        )  # fmt: skip
        made, in_memory = folder / "model", None
        if size["source"] is None:
            block = size["shape"]
            if isinstance(block, str):
                block = OmegaConf.to_container(compose("config", overrides=[f"model={block}"]).model.shape)
            shape, tokenizer = shape_from(block, f"job.sizes.{job.size}.shape"), instantiate(job.tokenizer)
            if size["in_files"]:
                save_random_model(shape, tokenizer, made)
            else:
                dtype = DTYPES[size["dtype"]]
                in_memory = random_backbone(shape, tokenizer, made, size["name"], size["device"], dtype)
        yield Bench(config, size, folder, clips, str(size["source"] or made), in_memory)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
