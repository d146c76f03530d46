"""Descriptions of clips as a file of their own."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from videopool.files import json_lines, write_text
from videopool.results.errors import writing
from videopool.results.records import OK

CAPTIONS = "captions.jsonl"


def write_captions(folder: Path, records: Sequence[Mapping[str, object]]) -> int:
    """Write <folder>/captions.jsonl, one line a clip that was described: clip, caption, words, frame_indices.

    Samples without a question ask for a description. Clips that could not be read are not among the lines; they are
    counted in the point's metrics.

    Returns:
        How many there are; without any, no file is written.

    Raises:
        ResultsError: the file cannot be written.
    """
    described = [r for r in records if r["status"] == OK and not r["question"]]
    if not described:
        return 0
    lines = [
        {"clip": r["clip"], "caption": r["prediction"], "words": len(str(r["prediction"]).split()),
         "frame_indices": r["frame_indices"]}
        for r in sorted(described, key=lambda r: str(r["clip"]))
    ]  # fmt: skip
    path = folder / CAPTIONS
    with writing(path):
        write_text(path, json_lines(lines))
    return len(lines)
