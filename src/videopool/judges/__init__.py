"""Judges: language models that grade answers."""

from videopool.judges.endpoint import EndpointJudge
from videopool.judges.gradings import Grading, gradings
from videopool.judges.local import LocalJudge
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
