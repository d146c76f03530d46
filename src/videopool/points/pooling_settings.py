"""Where a pooling acts, and a pooling in words that can be kept with weights and compared."""

import json
from typing import Any

from omegaconf import DictConfig

from videopool.config.build import plain
from videopool.config.errors import ConfigError
from videopool.models.stages import STAGES
from videopool.pooling import Pooling
from videopool.results.fingerprint import without_later


def stage_of(config: DictConfig) -> str:
    """The stage at which a configuration's pooling acts. Raises ConfigError if there is no such stage."""
    stage = str(config.pooling.get("stage", "projector"))
    if stage not in STAGES:
        raise ConfigError(f"pooling.stage={stage!r}: choose one of {', '.join(STAGES)}")
    return stage


def pooling_settings(config: DictConfig, pooling: Pooling) -> dict[str, Any]:
    """Label, stage and settings of a point's pooling, as JSON gives them back."""
    settings = without_later(plain(config.pooling))
    stage = settings.pop("stage", "projector")
    told: dict[str, Any] = json.loads(json.dumps({"label": pooling.label, "stage": stage, "settings": settings}))
    return told
