"""What a point is: a hash of all that determines its numbers."""

import hashlib
import json
from collections.abc import Mapping


def canonical(identity: Mapping[str, object]) -> str:
    """JSON with sorted keys and no spaces. Raises TypeError for what JSON cannot say."""
    return json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def fingerprint(identity: Mapping[str, object]) -> str:
    """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(identity).encode()).hexdigest()
