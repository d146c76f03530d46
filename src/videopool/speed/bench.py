"""The setting of job=speed: a model of the asked size, clips, and configurations of points on them."""

import gc
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

from videopool.config.build import build, check, plain
from videopool.features import FeatureStore
from videopool.models import Backbone, ModelShape, load_backbone
from videopool.models.configuration import DTYPES
from videopool.models.shape import shape_from
from videopool.results import ResultsError
from videopool.speed.random_models import save_random_model

POINT_KEYS = ("max_failed_fraction", "reader", "workers", "max_visual_tokens", "max_clips")  # of `job`, for all points
Step = Callable[[], None]
Line = Callable[[str, int], Step]  # begins a part (title, steps) and returns its step function


@dataclass
class Bench:
    """Model and clips of one size, ready to measure."""

    config: DictConfig  # of the job
    size: dict[str, Any]  # its block of job.sizes, resolved
    folder: Path  # for results and files, deleted at the end
    clips: Path  # folder of the clips and their questions
    model: dict[str, Any]  # keys of the group `model`
    device: str  # "cpu" or "cuda"
    _loaded: Backbone | None = None

    def load(self, dtype: str | None = None) -> Backbone:
        """The model, loaded anew, perhaps in another dtype; call forget() first, or memory holds it twice."""
        model = self.model
        self._loaded = load_backbone(model["source"], model["name"], dtype or model["dtype"], self.device)
        return self._loaded

    def forget(self) -> None:
        """Let the model leave memory."""
        self._loaded = None
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    @property
    def backbone(self) -> Backbone:
        """The model, loaded once."""
        return self._loaded or self.load()

    def store(self, name: str) -> FeatureStore:
        """An empty feature store."""
        own: dict[str, Any] = {"root": str(self.folder / name)} if "root" in self.config.job.store else {}
        return build(self.config.job, "store", **own)

    def point(self, study: str, pooling: Any, frames: int, questions: int | None = None, **job: Any) -> DictConfig:
        """The configuration of a point with uniform frames and so many questions per clip (None: the size's number).

        `job` changes that group, except `scoring`, which goes to the benchmark.
        """
        benchmark = {
            "_target_": "videopool.benchmarks.load_mvbench", "id": "timing", "root": str(self.clips),
            "tasks": [f"questions_{questions or self.size['per_clip']}"],
            "scoring": job.pop("scoring", "likelihood"), "max_new_tokens": 16,
        }  # fmt: skip
        job = {"name": "evaluate", **{key: self.config.job[key] for key in POINT_KEYS}, **job}
        return self._composed(study, pooling, frames, job=job, benchmark=benchmark)

    def training(self, study: str, pooling: Any, steps: int, **job: Any) -> DictConfig:
        """The configuration of a training of so many steps on conversations about the clips; `job` as in point()."""
        settings = plain(self.config.job.training)
        source = {"_target_": "videopool.training_data.load_llava", **self.conversations}
        return self._composed(
            study, pooling, settings["frames"],
            job={"name": "finetune", "evaluate": False, **settings["job"], **job},
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
            "trainer": {**config.trainer, "accelerator": self.device},
        }
        for name, value in {**groups, "results_dir": str(self.folder), "study": study}.items():
            config[name] = value
        return config

    @cached_property
    def conversations(self) -> dict[str, str]:
        """Path and root of a file in LLaVA's layout: a conversation per clip, of its first questions."""
        asked = json.loads((self.clips / "json" / f"questions_{self.size['per_clip']}.json").read_text())
        entries, rounds = [], int(self.config.job.training.rounds)
        for name, of_clip in groupby(asked, itemgetter("video")):
            turns: list[dict[str, str]] = []
            for one in islice(of_clip, rounds):
                turns += [{"from": "human", "value": one["question"]}, {"from": "gpt", "value": one["answer"]}]
            turns[0]["value"] = f"<video>\n{turns[0]['value']}"
            entries.append({"id": f"video/{name}", "video": f"video/{name}", "conversations": turns})
        path = self.folder / "conversations.json"
        path.write_text(json.dumps(entries))
        return {"path": str(path), "root": str(self.clips)}


def device_of(config: DictConfig) -> str:
    """The device of job.device; "" for a GPU that is not there. Raises ConfigError for another word."""
    check(config, {("auto", "cpu", "cuda"): ["job.device"]})
    there = "cuda" if torch.cuda.is_available() else ""
    return {"auto": there or "cpu", "cpu": "cpu", "cuda": there}[config.job.device]


def released_shape(model: str, **changes: Any) -> ModelShape:
    """Sizes of a released model, from its file in conf/model."""
    block: Any = OmegaConf.to_container(compose("config", overrides=[f"model={model}"]).model.shape)
    return shape_from({**block, **changes}, f"conf/model/{model}.yaml")


@contextmanager
def bench(config: DictConfig) -> Iterator[Bench]:
    """Make model and clips in a temporary folder of the study, which is deleted afterwards.

    Raises ConfigError for a size that makes nothing, and ResultsError if the folder cannot be written.
    """
    job, sizes = config.job, plain(config.job.sizes)
    size = sizes[job.size]
    study = Path(config.results_dir).resolve() / config.study
    try:
        study.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".speed-", dir=study))
    except OSError as error:
        raise ResultsError(f"{study} cannot be written: {error.strerror or error}") from error
    try:
        numbers = {name: size[name] for name in ("clips", "pixels", "hold")}
        clips = build(job, "write_clips", root=str(folder), questions=[size["per_clip"], *job.asked], **numbers)
        if size["source"] is None:
            block, where = size["shape"], f"job.sizes.{job.size}.shape"
            shape = (
                released_shape(block, context=size["context"]) if isinstance(block, str) else shape_from(block, where)
            )
            save_random_model(shape, instantiate(job.tokenizer), folder / "model", DTYPES[size["dtype"]])
        source = str(size["source"] or folder / "model")
        model = {"name": size["name"], "source": source, "dtype": size["dtype"], "shape": None}
        yield Bench(config, size, folder, clips, model, device_of(config))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
