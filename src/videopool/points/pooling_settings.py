"""Where a pooling acts, and a pooling in words that can be kept with weights and compared."""

import json
from typing import Any

from omegaconf import DictConfig

from videopool.config.build import plain
from videopool.pooling import Pooling
from videopool.results.fingerprint import without_later


def pooling_settings(config: DictConfig, pooling: Pooling) -> dict[str, Any]:
    """Label, stage and settings of a point's pooling, as JSON gives them back."""
    settings = without_later(plain(config.pooling))
    stage = settings.pop("stage", "projector")
    told: dict[str, Any] = json.loads(json.dumps({"label": pooling.label, "stage": stage, "settings": settings}))
    return told
