"""Judges: language models that grade answers."""

from videopool.judges.models import EndpointJudge, LocalJudge
from videopool.judges.protocol import BadVerdict, Item, Judge, Verdict

__all__ = ["BadVerdict", "EndpointJudge", "Item", "Judge", "LocalJudge", "Verdict"]
