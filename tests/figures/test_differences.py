"""Differences drawn one below the other: marks are where the numbers say, and reach as far as their intervals."""

import io

import pandas as pd
import pytest

from videopool.figures import differences

ROWS = [  # pooling, frames, difference, low, high
    ("space", 4, -0.10, -0.16, -0.05),
    ("space", 16, 0.20, 0.15, 0.26),
    ("a pooling whose name is longer than the margin of a figure", 4, 0.03, None, None),
    ("none", 4, None, None, None),
]


@pytest.fixture
def table():
    names = ("pooling", "frames", "difference", "difference_low", "difference_high")
    return pd.DataFrame(ROWS, columns=names).astype(dict.fromkeys(names[2:], object))


def marks(figure):
    """By what the legend calls it: places (x, y) of marks, and ends of their intervals."""
    (axes,) = figure.axes
    found = {}
    for drawn in axes.containers:
        (line, _, (bars,)) = drawn.lines
        ends = [tuple(segment[:, 0]) for segment in bars.get_segments() if len(segment)]
        found[drawn.get_label()] = [tuple(map(float, place)) for place in line.get_xydata()], ends
    return found


def test_marks_are_where_the_numbers_are(table):
    figure = differences(table, "pooling", "frames")
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "frames"
    assert [text.get_text() for text in legend.get_texts()] == ["4", "16"]
    found = marks(figure)
    (first, second), ends = found["4"]
    assert first[0] == pytest.approx(-10)
    assert second[0] == pytest.approx(3)
    assert ends[0] == pytest.approx((-16, -5))
    ((third,), (reach,)) = found["16"]
    assert third[0] == pytest.approx(20)
    assert reach == pytest.approx((15, 26))
    assert first[1] < third[1] < 0.5, "marks of one name stand in its row, apart from each other"
    assert 0.5 < second[1] < 1.5


def test_names_are_whole_and_what_was_not_compared_is_left_out(table):
    (axes,) = differences(table, "pooling", "frames").axes
    names = [" ".join(label.get_text().split()) for label in axes.get_yticklabels()]
    assert names == [ROWS[0][0], ROWS[2][0]]
    assert max(len(line) for label in axes.get_yticklabels() for line in label.get_text().splitlines()) < 45


def test_another_view_has_its_own_columns(table):
    table = table.rename(columns=lambda name: name.replace("difference", "iso_token_difference"))
    ((drawn, _),) = marks(differences(table[table.frames == 16], "pooling", view="iso_token_")).values()
    assert drawn == [(pytest.approx(20), 0)]


def test_nothing_to_compare_is_said(table):
    figure = differences(table[table.pooling == "none"], "pooling", "frames")
    assert [text.get_text() for text in figure.axes[0].texts] == ["nothing to compare"]
    figure.savefig(io.BytesIO())
