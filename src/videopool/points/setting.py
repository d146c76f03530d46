"""Model, pooling and frames of a point, from configuration alone."""

import re
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from videopool.config.build import build, build_pooling, plain
from videopool.config.errors import ConfigError
from videopool.models import ModelError, ModelShape
from videopool.models.configuration import DTYPES
from videopool.models.shape import point_shape
from videopool.models.stages import CLS, THUMBNAIL, check_needs
from videopool.points.pooling_settings import stage_of
from videopool.pooling import Pooling, announced, grid_frames, image_keys
from videopool.video import Sampler


@dataclass(frozen=True)
class Setting:
    """Model, pooling and frames of a point, without its weights and its benchmark.

    Attributes:
        model: the resolved group `model`.
        shape: the model's sizes.
        bytes_per_value: of the model's dtype.
        stage: where pooling acts.
        pooling, sampler: as configured.
        images: how many the tower reads of a clip: frames, or one that shows them all, and a thumbnail.
        pooled: tokens that the pooling makes of a clip.
        label: the model as tables call it, with what is changed about it.
    """

    model: dict[str, Any]
    shape: ModelShape
    bytes_per_value: int
    stage: str
    pooling: Pooling
    sampler: Sampler
    images: int
    pooled: int
    label: str

    @property
    def tokens(self) -> int:
        """Visual tokens that the language model reads of a clip: pooled ones and the family's separators."""
        return self.pooled + self.shape.separators

    @property
    def frames(self) -> int:
        return int(self.sampler.num)

    @property
    def projected(self) -> int:
        """Tokens that the projector reads of a clip."""
        patches = self.images * self.shape.height * self.shape.width
        return self.pooled if self.stage == "encoder" else patches + self.grid_frames * (CLS in self.pooling.needs)

    @property
    def grid_frames(self) -> int:
        """Frames of the patch grid that is pooled: the images without a thumbnail."""
        return self.images - (THUMBNAIL in self.pooling.needs)

    @property
    def name(self) -> str:
        parts = [self.label, self.pooling.label, f"f{self.frames}"]
        parts += [self.stage] if self.stage != "projector" else []
        return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(parts)).strip("-")


def setting(config: DictConfig) -> Setting:
    """Make pooling and sampler and look up the model's sizes.

    Raises:
        any of USER_ERRORS: something that could not be evaluated either.
    """
    stage = stage_of(config)
    pooling = build_pooling(config)
    sampler: Sampler = build(config, "frames")
    model = plain(config.model)
    if "base_url" in model:
        raise ConfigError("model=api: nothing is known of the inside of a model behind an API; choose another model")
    if model["dtype"] not in DTYPES:
        raise ModelError(f"model.dtype={model['dtype']}: choose one of {', '.join(DTYPES)}")
    shape = point_shape(model)
    check_needs(pooling, shape, str(model["name"]), stage)
    image_keys(pooling, sampler.num)  # whether the frames are as many as it makes images of
    images = grid_frames(pooling, sampler.num)
    pooled = announced(pooling, images, shape.height, shape.width)
    images += THUMBNAIL in pooling.needs
    size = DTYPES[model["dtype"]].itemsize
    return Setting(model, shape, size, stage, pooling, sampler, images, pooled, _label(config, model))


def _label(config: DictConfig, model: dict[str, Any]) -> str:
    changed = (("alpha", OmegaConf.select(config, "lora.alpha")), ("rope", model.get("rope_factor")))
    return " ".join([str(model["name"]), *(f"{word} {value:g}" for word, value in changed if value is not None)])
