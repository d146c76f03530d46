"""Answers that another point of the study has given already, as only its judge differs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from videopool.benchmarks import Sample
from videopool.evaluation.contents import content_of
from videopool.evaluation.judging import ungraded
from videopool.results.point import MANIFEST, RECORDS, attempts_of, read_json
from videopool.results.records import ANSWERED, read_records


def answered_elsewhere(
    folder: Path, answers: str, wanted: Iterable[Sample]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Ungraded answers to samples on clips as they are now, from the other points of a study.

    Args:
        folder: of the point that lacks them.
        answers: fingerprint of all that determines answers.
        wanted: samples that it lacks.

    Returns:
        Records, and how the attempts that they name ran.
    """
    found: list[dict[str, Any]] = []
    attempts: dict[str, Any] = {}
    lacking = {sample.id: sample.clip for sample in wanted}
    for manifest in sorted(folder.parent.glob(f"*/{MANIFEST}")):
        if manifest.parent.name == folder.name or not lacking:
            continue
        if (read_json(manifest) or {}).get("answers") != answers:
            continue
        for record in read_records(manifest.parent / RECORDS):
            clip = lacking.get(str(record["id"]))
            if clip is not None and record["status"] in ANSWERED and record.get("content") == content_of(clip):
                del lacking[str(record["id"])]
                found.append(ungraded(record))
        attempts |= attempts_of(manifest.parent)
    named = {record.get("attempt") for record in found}
    return found, {name: attempt for name, attempt in attempts.items() if name in named}
