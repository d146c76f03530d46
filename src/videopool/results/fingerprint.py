"""The fingerprint of a point: a hash of everything that determines its numbers."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Settings added later and their defaults, as in {"videopool.pooling.Average": {"power": 1}, "training": {"ema": None}}:
# keyed by the `_target_` of their mapping, else by its place in the identity. A setting at its default is left out, so
# that fingerprints of points that do not set it stay valid. Entries never change.
LATER: dict[str, dict[str, object]] = {
    "": {
        "positions": "contiguous",
        "layout": "frames",
        "pruning": None,
        "tower": None,
        "average": "samples",
        "shuffle_options": None,
        "frame_size": None,
    },
    "videopool.video.FpsSampler": {"most": None},
    "videopool.pooling.DropOutliers": {"which": "outliers", "seed": 0},
}


def canonical(identity: Mapping[str, object]) -> str:
    """JSON with sorted keys and no spaces. Raises TypeError for values without a JSON form."""
    return json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def without_later(content: Any, place: str = "") -> Any:
    """An identity, or its part at a dotted place, without the settings of LATER at their defaults."""
    if isinstance(content, (list, tuple)):
        return [without_later(value, place) for value in content]
    if not isinstance(content, Mapping):
        return content
    later = LATER.get(str(content.get("_target_", place)), {})
    return {
        key: without_later(value, f"{place}.{key}".removeprefix("."))
        for key, value in content.items()
        if key not in later or canonical({key: value}) != canonical({key: later[key]})
    }


def without_seed(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an identity that replicates share: all but the seed.

    The sampler's seed goes too if it equals the point's (conf/frames/random.yaml: `seed: ${seed}`). Other seeds, such
    as a pooling's, do not follow the point's and stay.
    """
    common = {name: value for name, value in identity.items() if name != "seed"}
    frames = common.get("frames")
    if isinstance(frames, Mapping) and "seed" in frames and frames["seed"] == identity.get("seed"):
        common["frames"] = {name: value for name, value in frames.items() if name != "seed"}
    return common


def fingerprint(identity: Mapping[str, object]) -> str:
    """SHA-256 of the canonical JSON without the settings of LATER at their defaults, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(without_later(identity)).encode()).hexdigest()
