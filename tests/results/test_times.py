"""What a point's answers took, over attempts that ended in any way."""

import json

import pytest

from videopool.evaluation.answer import _times
from videopool.results import PointFolder
from videopool.results.point import TIMES
from videopool.results.records import Times, read_times


def test_model_time_is_that_of_all_attempts(tmp_path):
    """Two attempts, the first of which ended in the middle of a line; what was read for others stands apart."""
    path = tmp_path / TIMES
    first = Times(path)
    first.add(4, {"decode": 1.0, "vision": 2.0, "prefill": 0.5, "questions": 0.1})
    first.add(2, {"decode": 1.5, "vision": 3.0, "prefill": 0.7, "questions": 0.2})
    with path.open("a") as file:
        file.write('{"answered": 4, "seconds": {"prefill": 9')
    again = Times(path)
    again.add(4, {"store": 0.25, "prefill": 0.8, "questions": 0.3, "generate": 1.0, "pool": 5.0})
    answered, spent = read_times(path)
    assert answered == 10
    assert spent["prefill"] == pytest.approx(0.7 + 0.8)
    with PointFolder(tmp_path, "p", "f" * 64) as folder:
        path.rename(folder.path / TIMES)
        told = _times(folder, {"prefill": 0.8, "judge": 7.0})
        folder.clear()
        cleared = _times(folder, {})
    assert told["seconds_per_sample"] == pytest.approx((0.7 + 0.2 + 0.8 + 0.3 + 1.0) / 10)
    assert told["shared_seconds"] == pytest.approx(1.5 + 3.0 + 0.25)
    assert told["seconds"]["prefill"] == 1.5
    assert told["seconds"]["judge"] == 7.0
    assert cleared["seconds_per_sample"] is None
    assert json.dumps(told)
