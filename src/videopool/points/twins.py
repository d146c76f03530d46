"""Poolings that change nothing, or compute what another point's does: told before they run."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from videopool.points.setting import Setting
from videopool.pooling import NoPooling, Pooling, map_signature
from videopool.results import PointFolder, is_complete
from videopool.results.point import MANIFEST, read_json

NOT_THE_MAP = ("pooling", "code", "stage")  # of a point's identity; the stage counts unless nothing is pooled


class PoolingMap(NamedTuple):
    """A pooling's map on one grid; equal ones compute the same."""

    signature: str
    stage: str  # "" if nothing changes

    @property
    def nothing(self) -> bool:
        """Whether it is the identity."""
        return not self.stage


def map_of(pooling: Pooling, stage: str, setting: Setting) -> PoolingMap:
    """The map of a pooling at a stage on the grid of a setting's model and frames."""
    size = setting.frames, setting.shape.height, setting.shape.width
    own = map_signature(pooling, *size)
    return PoolingMap(str(own), "" if own == map_signature(NoPooling(), *size) else stage)


def changes_nothing(pooling: Pooling, own: PoolingMap, setting: Setting) -> str:
    """One line on a pooling that is the identity under another name; "" for any other."""
    if not own.nothing or type(pooling) is NoPooling:
        return ""
    grid = " x ".join(map(str, setting.grid))
    return f"{pooling.label} changes nothing on this model's grid ({grid}): it is no pooling"


def told_before(setting: Setting, identity: Mapping[str, Any], folder: PointFolder) -> list[str]:
    """Lines on a point that is about to run: its map is the identity, or that of another point of its study."""
    own = map_of(setting.pooling, setting.stage, setting)
    lines = [changes_nothing(setting.pooling, own, setting)]
    for path in sorted(folder.path.parent.glob(f"*/{MANIFEST}")):
        other = read_json(path) or {}
        about, settings = other.get("point"), other.get("identity")
        if path.parent == folder.path or not isinstance(about, dict) or not isinstance(settings, dict):
            continue
        same_stage = own.nothing or about.get("stage") == own.stage
        if same_stage and str(about.get("map_signature")) == own.signature and _rest(settings) == _rest(identity):
            state = "is done" if is_complete(path.parent) else "has begun"
            lines.append(f"{setting.pooling.label}: the same map as {path.parent.name}, which {state}")
            break
    return [line for line in lines if line]


def _rest(identity: Mapping[str, Any]) -> dict[str, Any]:
    """A point's settings but for the map, as JSON gives them back."""
    content: dict[str, Any] = json.loads(json.dumps({k: v for k, v in identity.items() if k not in NOT_THE_MAP}))
    return content
