"""Model, pooling and frames of a configuration, read and checked in one visit."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from glob import escape
from math import prod
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from videopool.config.build import build, build_pooling, check, jsonable, plain
from videopool.config.errors import ConfigError
from videopool.models import ModelError, ModelShape
from videopool.models.configuration import DTYPES, recorded
from videopool.models.cost import FLOAT32, feature_bytes, layer_mean_tokens, prefix_flops
from videopool.models.shape import own_shape, point_shape
from videopool.models.sizes import Pruning
from videopool.models.stages import CLS, STAGES, THUMBNAIL, check_context, check_needs
from videopool.models.texts import BLOCK, FRAMES, LAYOUTS
from videopool.models.tower_changes import tower_changes
from videopool.models.tower_outputs import tower_outputs
from videopool.pooling import NoPooling, Pooling, announced, grid_frames, image_keys, random_input
from videopool.pooling.carrying import check_map
from videopool.reading.layout import beside, spots_of
from videopool.results.fingerprint import without_later
from videopool.results.point import MANIFEST, METRICS, read_json
from videopool.video import READERS, Sampler

CONTIGUOUS, ORIGINAL = "contiguous", "original"  # positions of visual tokens
USUAL = ("projector", CONTIGUOUS, FRAMES, None)  # not part of names
RECORDED = "recorded"  # of model.pooling


class Setting:
    """Model, pooling and frames of a configuration, without weights and benchmark; the model's sizes are read lazily.

    Raises UserError for a wrong configuration.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config = with_recorded(config)
        self.pooling, self.stage = pooling_of(config)  # which acts at the "projector" or the "encoder"
        check(config, {READERS: ["job.reader"], (CONTIGUOUS, ORIGINAL): ["positions"], LAYOUTS: ["layout"]})
        self.sampler: Sampler = build(config, "frames")
        self.frames = int(self.sampler.num)  # per clip
        self.model = plain(config.model)
        self.positions, self.pruning = str(config.positions), Pruning.read(config.pruning)
        self.layout = str(config.layout)  # what stands between visual tokens
        more = [self.stage, self.positions, self.layout, self.pruning.label if self.pruning else None]
        # Of the readable name, after the model.
        self.parts = [self.pooling.label, f"f{self.frames}", *(part for part in more if part not in USUAL)]

    @cached_property
    def shape(self) -> ModelShape:
        """The model's sizes, from its own configuration."""
        return own_shape(self.model)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Size (T, H, W) of a clip's patch grid."""
        return grid_frames(self.pooling, self.moments), self.shape.height, self.shape.width

    @property
    def assumed(self) -> str:
        """Which size of frames is assumed where clips differ in it, or ""."""
        side = self.shape.image_size
        return (
            f"clips differ in the size of their frames: {side} x {side} pixels are assumed"
            if self.shape.by_clip
            else ""
        )

    @property
    def moments(self) -> int:
        """Moments of a clip that its frames show: fewer where the family takes several frames together."""
        return self.frames if self.pooling.tiles else -(-self.frames // self.shape.together)

    @cached_property
    def pooled(self) -> int:
        """Pooled tokens per clip."""
        return announced(self.pooling, *self.grid)

    @cached_property
    def beside(self) -> int:
        """Newlines and, about, tokens of text among a clip's pooled tokens: the most that there can be."""
        return beside(self.pooling, self.shape, self.grid, self.layout)

    @property
    def visual_tokens(self) -> int:
        """Tokens per clip that the language model reads: pooled ones, and what stands among them."""
        return self.pooled + self.beside

    @property
    def length(self) -> int:
        """Positions from a clip's first visual token to the text behind it."""
        if self.positions == CONTIGUOUS:
            return self.visual_tokens
        texts = beside(NoPooling(), self.shape, self.grid, self.layout)
        if self.shape.mrope:  # a frame takes as many positions as its longer side, if there are texts between frames
            frames = self.grid[0] if self.shape.spreads else 1
            return max(self.visual_tokens, frames * max(self.grid[1:]) + texts)
        return prod(self.grid) + texts

    def prefill_flops(self, tokens: int) -> float:
        """Floating-point operations of the language model on so many visual tokens of a clip, for one question."""
        return prefix_flops(self.shape, tokens, self.pruning)

    def layer_mean_tokens(self, tokens: int) -> float:
        """Of so many visual tokens that enter the language model, those that a layer reads, on average."""
        return layer_mean_tokens(self.shape, tokens, self.pruning)

    @property
    def model_name(self) -> str:
        """The model's name in tables, with its changes."""
        changed = (("alpha", OmegaConf.select(self.config, "lora.alpha")), ("rope", self.model.get("rope_factor")))
        words = [str(self.model["name"]), *(f"{word} {value:g}" for word, value in changed if value is not None)]
        return " ".join(filter(None, [*words, tower_changes(self.model).label]))

    @property
    def name(self) -> str:
        """The readable name of folders and tables."""
        return readable(self.model_name, *self.parts)

    def begun(self, *name: str) -> bool:
        """Whether the study has a point of this readable name, whose settings were checked when it began."""
        study = Path(str(self.config.results_dir)) / str(self.config.study)
        return any(study.glob(f"*{escape(readable(*name))}-*/{MANIFEST}"))

    def check_sizes(self, written: int = 0) -> None:
        """Raises UserError if pooling and model do not fit, or visual and written tokens exceed the context."""
        name = str(self.model["name"])
        check_needs(self.pooling, self.shape, name, self.stage)
        tower_changes(self.model).check(self.shape, name)
        if not self.shape.by_clip:  # else each sample's own length decides
            check_context(name, self.shape.context, self.length + written, self.positions == ORIGINAL)
        self.check_reading()

    def check_reading(self) -> None:
        """Raises UserError if the pooling's tokens have no places to keep, or no layer is left after pruning."""
        asked = FRAMES if self.layout == FRAMES and self.shape.spreads else BLOCK
        if asked == FRAMES or (self.positions == ORIGINAL and self.length <= self.shape.context):
            given = random_input(self.pooling, self.moments, *self.grid[1:])[1:]
            for one in {asked, *([BLOCK] if self.positions == ORIGINAL else [])}:
                spots_of(self.pooling, *given, one)
        if self.shape.levels:
            check_map(self.pooling, *random_input(self.pooling, self.moments, *self.grid[1:])[1:])
        if self.pruning and self.pruning.layer >= self.shape.layers:
            raise ConfigError(
                f"pruning.layer={self.pruning.layer}: {self.model['name']} has {self.shape.layers} layers, and pruning "
                f"needs one after its own; say at most {self.shape.layers - 1}"
            )


class StatedSetting(Setting):
    """A setting without any file of a released model: its `shape:` block states the sizes."""

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        refuse_api(config)
        if self.model["dtype"] not in DTYPES:
            raise ModelError(f"model.dtype={self.model['dtype']}: choose one of {', '.join(DTYPES)}")
        check_needs(self.pooling, self.shape, str(self.model["name"]), self.stage)
        tower_changes(self.model).check(self.shape, str(self.model["name"]))
        self.check_reading()
        image_keys(self.pooling, self.frames)  # raises if a tiling pooling needs another number of frames
        self.bytes_per_value = DTYPES[self.model["dtype"]].itemsize
        tiles, height, width = self.grid
        self.images = tiles + (THUMBNAIL in self.pooling.needs)  # per clip that the tower reads
        patches = self.images * height * width + tiles * (CLS in self.pooling.needs)
        self.registers = tower_changes(self.model).registers
        # Tokens per clip that the projector reads.
        self.projected = self.pooled if self.stage == "encoder" else patches

    @cached_property
    def shape(self) -> ModelShape:
        """The model's sizes, as stated or from its own configuration."""
        return point_shape(self.model)

    def stored_bytes(self, bytes_per_value: int) -> int:
        """Bytes that a feature store of so many bytes per value keeps of a clip."""
        beside = tower_outputs(self.pooling, self.shape, str(self.model["name"])).values()
        others = sum(prod(one.size) * (FLOAT32 if one.exact else bytes_per_value) for one in beside)
        return self.images * (feature_bytes(self.shape, bytes_per_value) + others)


def prefill_costs(configs: Sequence[DictConfig]) -> dict[int, float]:
    """FLOPs of each configuration's prefill, by number, but not of points finished before; all 0 if one is unknown."""
    left = list(range(len(configs)))
    with suppress(Exception):  # of a point that cannot run, which says so when it does
        bare = [OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]) for config in configs]
        contents = [jsonable(config) for config in bare]
        studies = {Path(content["results_dir"]) / content["study"] for content in contents}
        done = [file.with_name(MANIFEST) for study in studies for file in study.glob(f"*/{METRICS}")]
        known = [(read_json(file) or {}).get("config") for file in done]
        left = [number for number in left if contents[number]["force"] or contents[number] not in known]
        points = {number: Setting(configs[number]) for number in left}
        return {number: point.prefill_flops(point.visual_tokens) for number, point in points.items()}
    return dict.fromkeys(left, 0.0)


def with_recorded(config: DictConfig) -> DictConfig:
    """The configuration; under model.pooling=recorded, with the pooling and frames that the model's folder records.

    The size of frames is the recorded one too, unless model.frame_size says another.

    Raises ConfigError for another value, or a folder that records none.
    """
    asked = config.model.get("pooling")
    if asked is None:
        return config
    if asked != RECORDED:
        raise ConfigError(f"model.pooling={asked!r}: say {RECORDED}, or null and pooling=...")
    source = str(config.model.source)
    record = recorded(source, config.model.get("revision"))
    if record is None:
        raise ConfigError(f"model.pooling={RECORDED}: {source} has none, as job=merge writes it; say pooling=...")
    config = config.copy()
    for name in ("pooling", "frames"):
        OmegaConf.update(config, name, record[name], merge=False)
    if config.model.get("frame_size") is None and record.get("frame_size") is not None:
        config.model.frame_size = record["frame_size"]
    return config


def pooling_of(config: DictConfig) -> tuple[Pooling, str]:
    """A configuration's pooling and its stage. Raises ConfigError for another class or stage."""
    stage = str(config.pooling.get("stage", "projector"))
    if stage not in STAGES:
        raise ConfigError(f"pooling.stage={stage!r}: choose one of {', '.join(STAGES)}")
    return build_pooling(config), stage


def refuse_reading(config: DictConfig, job: str) -> None:
    """Raises ConfigError for positions or pruning, of a job that reads visual tokens in their usual way."""
    if config.positions != CONTIGUOUS:
        raise ConfigError(
            f"positions={config.positions}: {job} reads tokens one after another; say positions=contiguous"
        )
    if Pruning.read(config.pruning):
        raise ConfigError(f"pruning.layer={config.pruning.layer}: {job} prunes nothing; say pruning=none")


def pooling_settings(config: DictConfig, pooling: Pooling) -> dict[str, Any]:
    """Label, stage and settings of a point's pooling, to be kept with weights and compared: as JSON gives them back."""
    settings = without_later(plain(config.pooling))
    stage = settings.pop("stage", "projector")
    content: dict[str, Any] = json.loads(json.dumps({"label": pooling.label, "stage": stage, "settings": settings}))
    return content


def refuse_api(config: DictConfig) -> None:
    """Raises ConfigError for a model behind an API, whose inside cannot be read."""
    if "base_url" in config.model:
        raise ConfigError("model=api: nothing is known of the inside of a model behind an API; choose another model")


def readable(*parts: str) -> str:
    """A name for folders, of letters, digits, dots and dashes."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(parts)).strip("-")
