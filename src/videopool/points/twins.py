"""Poolings that change nothing, or compute what another point's does: told before they run."""

import json
from collections.abc import Mapping
from typing import Any

from videopool.points.setting import Setting
from videopool.pooling import NoPooling, Pooling, map_signature
from videopool.results import PointFolder, is_complete
from videopool.results.fingerprint import without_later
from videopool.results.point import MANIFEST, read_json

NOT_THE_MAP = ("pooling", "code", "stage")  # of a point's identity; the stage counts unless nothing is pooled
PoolingMap = tuple[str, str]  # signature, and stage unless nothing changes: equal ones compute the same


def map_of(pooling: Pooling, stage: str, setting: Setting) -> tuple[PoolingMap, str]:
    """A pooling's map on the grid of a setting's model and frames; and a line if it is the identity by another name."""
    own = signature_on(pooling, setting)
    if own != signature_on(NoPooling(), setting):
        return (str(own), stage), ""
    grid = " x ".join(map(str, setting.grid))
    line = f"{pooling.label} changes nothing on this model's grid ({grid}): it is no pooling"
    return (str(own), ""), "" if type(pooling) is NoPooling else line


def signature_on(pooling: Pooling, setting: Setting) -> list[float]:
    """map_signature() on the grid of a setting; where clips differ in size, on one of other proportions too."""
    height, width = setting.shape.height, setting.shape.width
    own = map_signature(pooling, setting.moments, height, width)
    return own + map_signature(pooling, setting.moments, height, 2 * width + 1) if setting.shape.by_clip else own


def told_before(setting: Setting, identity: Mapping[str, Any], folder: PointFolder) -> list[str]:
    """Lines on a point that is about to run: its map is the identity, or that of another point of its study."""
    (signature, stage), line = map_of(setting.pooling, setting.stage, setting)
    lines = [line] if line else []
    for path in sorted(folder.path.parent.glob(f"*/{MANIFEST}")):
        other = read_json(path) or {}
        about, settings = other.get("point"), other.get("identity")
        if path.parent == folder.path or not isinstance(about, dict) or not isinstance(settings, dict):
            continue
        same_stage = not stage or about.get("stage") == stage
        if same_stage and str(about.get("map_signature")) == signature and _rest(settings) == _rest(identity):
            state = "is done" if is_complete(path.parent) else "has begun"
            return [*lines, f"{setting.pooling.label}: the same map as {path.parent.name}, which {state}"]
    return lines


def _rest(identity: Mapping[str, Any]) -> str:
    """A point's settings but for the map."""
    rest = {key: value for key, value in without_later(identity).items() if key not in NOT_THE_MAP}
    return json.dumps(rest, sort_keys=True)
