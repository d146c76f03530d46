"""Model, pooling and frames of a configuration, read and checked in one visit."""

import re
from functools import cached_property

from omegaconf import DictConfig, OmegaConf

from videopool.config.build import build, build_pooling, plain
from videopool.config.errors import ConfigError
from videopool.models import ModelError, ModelShape
from videopool.models.configuration import DTYPES
from videopool.models.shape import own_shape, point_shape
from videopool.models.stages import CLS, STAGES, THUMBNAIL, check_needs
from videopool.pooling import Pooling, announced, grid_frames, image_keys
from videopool.video import READERS, Sampler


class Setting:
    """Model, pooling and frames of a configuration, without weights and benchmark.

    The model's sizes are not looked up before they are used.

    Attributes:
        model: the resolved group `model`.
        stage: where the pooling acts.
        pooling, sampler: as configured.

    Raises:
        UserError: the configuration is wrong.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self.pooling, self.stage = pooling_of(config)
        if config.job.reader not in READERS:
            raise ConfigError(f"job.reader={config.job.reader!r}: choose one of {', '.join(READERS)}")
        self.sampler: Sampler = build(config, "frames")
        self.model = plain(config.model)

    @cached_property
    def shape(self) -> ModelShape:
        """The model's sizes, from its own configuration."""
        return own_shape(self.model)

    @property
    def frames(self) -> int:
        """How many are chosen of a clip."""
        return int(self.sampler.num)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Size (T, H, W) of the patch grid of a clip."""
        return grid_frames(self.pooling, self.frames), self.shape.height, self.shape.width

    @cached_property
    def pooled(self) -> int:
        """Tokens that the pooling makes of a clip."""
        return announced(self.pooling, *self.grid)

    @property
    def visual_tokens(self) -> int:
        """Tokens that the language model reads of a clip: pooled ones and the family's separators."""
        return self.pooled + self.shape.separators

    @property
    def model_name(self) -> str:
        """The model as tables call it, with what is changed about it."""
        changed = (("alpha", OmegaConf.select(self.config, "lora.alpha")), ("rope", self.model.get("rope_factor")))
        return str(self.model["name"]) + "".join(f" {word} {value:g}" for word, value in changed if value is not None)

    @property
    def name(self) -> str:
        """Readable, for folders and tables."""
        return readable(self.model_name, *self.parts)

    @property
    def parts(self) -> list[str]:
        """What names say beside the model."""
        return [self.pooling.label, f"f{self.frames}", *([self.stage] if self.stage != "projector" else [])]


class StatedSetting(Setting):
    """A setting that needs no file of a released model: its sizes are those of its `shape:` block."""

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        refuse_api(config)
        if self.model["dtype"] not in DTYPES:
            raise ModelError(f"model.dtype={self.model['dtype']}: choose one of {', '.join(DTYPES)}")
        check_needs(self.pooling, self.shape, str(self.model["name"]), self.stage)
        image_keys(self.pooling, self.frames)  # whether the frames are as many as it makes images of

    @cached_property
    def shape(self) -> ModelShape:
        """The model's sizes, as stated or from its own configuration."""
        return point_shape(self.model)

    @property
    def bytes_per_value(self) -> int:
        """Of the model's dtype."""
        return DTYPES[self.model["dtype"]].itemsize

    @property
    def images(self) -> int:
        """How many the tower reads of a clip: frames, or one that shows them all, and a thumbnail."""
        return self.grid[0] + (THUMBNAIL in self.pooling.needs)

    @property
    def projected(self) -> int:
        """Tokens that the projector reads of a clip."""
        patches = self.images * self.shape.height * self.shape.width
        return self.pooled if self.stage == "encoder" else patches + self.grid[0] * (CLS in self.pooling.needs)


def pooling_of(config: DictConfig) -> tuple[Pooling, str]:
    """A configuration's pooling and the stage where it acts. Raises ConfigError if it is none, or acts at no stage."""
    stage = str(config.pooling.get("stage", "projector"))
    if stage not in STAGES:
        raise ConfigError(f"pooling.stage={stage!r}: choose one of {', '.join(STAGES)}")
    return build_pooling(config), stage


def refuse_api(config: DictConfig) -> None:
    """Raises ConfigError if the model is behind an API, where nothing can be looked at."""
    if "base_url" in config.model:
        raise ConfigError("model=api: nothing is known of the inside of a model behind an API; choose another model")


def readable(*parts: str) -> str:
    """A name for folders, of letters, digits, dots and dashes."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(parts)).strip("-")
