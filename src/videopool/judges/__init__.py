"""Judges: language models that grade open-ended answers against a reference."""

from videopool.judges.gradings import Grading, gradings
from videopool.judges.models import EndpointJudge, LocalJudge
from videopool.judges.protocol import HIGHEST, PROTOCOL, BadVerdict, Item, Judge, Verdict

__all__ = [
    "HIGHEST",
    "PROTOCOL",
    "BadVerdict",
    "EndpointJudge",
    "Grading",
    "Item",
    "Judge",
    "LocalJudge",
    "Verdict",
    "gradings",
]
