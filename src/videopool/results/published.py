"""Figures from papers, apart from our own measurements."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml

from videopool.results.errors import ResultsError

COLUMNS = ("benchmark", "model", "value", "unit", "source", "protocol")


def published_figures(path: Path, benchmarks: Sequence[str]) -> pd.DataFrame:
    """Published figures on some benchmarks (ids with their split, "msvd_qa/test"), one row each; columns COLUMNS.

    path: a YAML file with a list `published` of benchmark, model, value, source, protocol and, if not per cent, unit.
    Without the file there are no figures. Raises ResultsError without such a list, or for an incomplete entry.
    """
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ResultsError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    entries = content.get("published") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ResultsError(f"{path}: a list called published is expected")
    for number, entry in enumerate(entries):
        missing = [name for name in COLUMNS if name != "unit" and (not isinstance(entry, dict) or name not in entry)]
        if missing or isinstance(entry["value"], bool) or not isinstance(entry["value"], (int, float)):
            raise ResultsError(f"{path}, entry {number}: needs {', '.join(missing) or 'a number as its value'}")
    table = pd.DataFrame([{"unit": "%", **entry} for entry in entries], columns=list(COLUMNS))
    return table[table.benchmark.isin(list(benchmarks))].reset_index(drop=True)
