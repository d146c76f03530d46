"""What a study asks, as the head of its file says it."""

from pathlib import Path

import pandas as pd

from videopool.results.point import MANIFEST, read_json

MARK = "# Question:"


def study_question(experiments: Path, frame: pd.DataFrame) -> str:
    """The question of the file in experiments/ that a study's points were made with; "" if there is not just one."""
    manifests = [read_json(Path(folder) / MANIFEST) or {} for folder in frame.folder]
    names = {manifest.get("experiment") for manifest in manifests} - {None}
    name = names.pop() if len(names) == 1 else None
    if not isinstance(name, str):
        return ""
    path = experiments / f"{name}.yaml"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return ""
    return next((line.removeprefix(MARK).strip() for line in lines if line.startswith(MARK)), "")
