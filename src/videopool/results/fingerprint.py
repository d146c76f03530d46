"""What a point is: a hash of all that determines its numbers."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical(identity: Mapping[str, object]) -> str:
    """JSON with sorted keys and no spaces. Raises TypeError for what JSON cannot say."""
    return json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def without_seed(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What points that differ in their seed alone have in common.

    The sampler's seed goes too where it is the point's: conf/frames/random.yaml says `seed: ${seed}`. Other seeds, as a
    pooling's, do not follow the point's and stay.
    """
    common = {name: value for name, value in identity.items() if name != "seed"}
    frames = common.get("frames")
    if isinstance(frames, Mapping) and "seed" in frames and frames["seed"] == identity.get("seed"):
        common["frames"] = {name: value for name, value in frames.items() if name != "seed"}
    return common


def fingerprint(identity: Mapping[str, object]) -> str:
    """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(identity).encode()).hexdigest()
