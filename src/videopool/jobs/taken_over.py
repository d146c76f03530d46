"""Answers that another point of the study has given already, as only its judge differs."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from videopool.jobs.judging import ungraded
from videopool.results.point import MANIFEST, RECORDS, read_json
from videopool.results.records import ANSWERED, read_records


def answered_elsewhere(folder: Path, answers: str, wanted: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Ungraded answers to samples from the other points of a study.

    Args:
        folder: of the point that lacks them.
        answers: fingerprint of all that determines answers.
        wanted: ids of samples.
    """
    lacking = set(wanted)
    for manifest in sorted(folder.parent.glob(f"*/{MANIFEST}")):
        if manifest.parent.name == folder.name or not lacking:
            continue
        if (read_json(manifest) or {}).get("answers") != answers:
            continue
        for record in read_records(manifest.parent / RECORDS):
            if record["id"] in lacking and record["status"] in ANSWERED:
                lacking.discard(str(record["id"]))
                yield ungraded(record)
