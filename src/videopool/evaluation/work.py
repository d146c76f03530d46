"""What answering took."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Work:
    """What answering took.

    Attributes:
        seconds: by kind of work.
        ahead: seconds of these that other processes or threads spent beside the rest.
        counts: of frames.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    ahead: float = 0.0
    counts: Mapping[str, int] = field(default_factory=lambda: {"frames_decoded": 0, "frames_from_store": 0})
