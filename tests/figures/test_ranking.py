"""Scores one below the other: the order, what a row is, and when a report draws it."""

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer

from made_study import record, write_clips, write_point
from videopool.figures import ranked
from videopool.reports.files import write_report

pytestmark = pytest.mark.usefixtures("drawn")


def scores(*rows):
    table = pd.DataFrame(rows, columns=["pooling", "frames", "visual_tokens", "score"])
    half = {"ci_low": table.score - 0.05, "ci_high": table.score + 0.04}
    return table.assign(**half, chance=0.25, benchmark="made/test", model="mini")


def test_rows_are_ordered_by_their_best_score_and_a_mark_stands_for_each_number_of_frames():
    figure = ranked(scores(("none", 4, 576, 0.5), ("mean", 4, 144, 0.6), ("none", 8, 1152, 0.7), ("max", 8, 36, 0.4)))
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["none  (576, 1152)", "mean  (144)", "max  (36)"]
    low, high = axes.get_ylim()
    assert low > high  # the first stands on top
    marks = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
    assert [c.get_label() for c in marks] == ["4", "8"]
    drawn = [sorted(map(tuple, c[0].get_xydata())) for c in marks]
    assert drawn == [
        [(pytest.approx(50), -0.1), (pytest.approx(60), 0.9)],
        [(pytest.approx(40), 2.1), (pytest.approx(70), 0.1)],
    ]
    (bars,) = marks[0][2]
    assert sorted(bar[0][0] for bar in bars.get_segments()) == pytest.approx([45, 55])
    assert sorted(bar[1][0] for bar in bars.get_segments()) == pytest.approx([54, 64])


def test_a_report_ranks_what_is_too_much_for_a_plot(tmp_path):
    study, clips = tmp_path / "results" / "many", write_clips(tmp_path / "data")
    for number in range(11):
        if number == 10:  # a report of fewer, whose plots must not stay behind
            own = study / "figures" / "norms_histogram.png"
            assert any("_by_frames" in name for name in write_report(study, "none")[0])
            own.write_bytes(b"of another job")
        answers = [record(n, n <= number % 6, -1.0, [1]) for n in range(6)]
        write_point(study, answers, clips, pooling=f"pooling {number}")
    figures = [name for name in write_report(study, "none")[0] if name.endswith(".png")]
    assert figures
    assert all("_ranked_" in name for name in figures)
    assert {path.name for path in (study / "figures").glob("*.png")} == {own.name, *(Path(f).name for f in figures)}
