"""Tables recorded from the PLLaVA reference code: parts of them in tests/data, whole ones beside the checkout."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parent / "data"
EACH_SOURCE = pytest.mark.parametrize("source", ["part", "whole"])


def read_table(name: str, source: str, shared: Callable[[str], Path]) -> Any:
    """A table by name; "whole" skips the test where the recorded tables are not beside this checkout."""
    path = DATA / f"reference_{name}.json" if source == "part" else shared(f"goldens/tables/{name}.json")
    return json.loads(path.read_text())
