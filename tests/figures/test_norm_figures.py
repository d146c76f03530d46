"""Figures of norms: what can be read off their axes."""

import numpy as np
import pytest

from videopool.figures.norms import attention_against_norm, by_distance, frame_profiles, norm_histograms, norm_maps
from videopool.measuring.figures import save_figures
from videopool.norms.statistics import LogHistogram


def histogram(norms):
    made = LogHistogram()
    made.add(norms)
    return made.counts[1:-1], made.edges()


def shown(axis, limits):
    """Labels of the ticks that are within the limits."""
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [t.label1.get_text() for t in ticks if limits[0] <= t.get_loc() <= limits[1] and t.label1.get_text()]


@pytest.mark.parametrize("tokens", [300, 5000, 10**6])
def test_shares_are_plain_numbers_and_there_are_some(tokens):
    norms = np.random.default_rng(0).lognormal(3, 0.3, tokens)
    figure = norm_histograms({"encoder": {"tokens": histogram(norms)}}, "2", {"encoder": {"median": np.median(norms)}})
    figure.draw_without_rendering()
    axes = figure.axes[0]
    labels = shown(axes.yaxis, axes.get_ylim())
    assert 2 <= len(labels) <= 9
    assert all(float(label) > 0 for label in labels)  # none is a power of ten in typesetting


def test_every_axis_says_what_it_shows():
    counts = histogram(np.random.default_rng(0).lognormal(3, 0.3, 300))
    series = {"encoder": {"none": np.array([1.0, 0.5, 0.2])}}
    edges, values = 2.0 ** np.arange(-2, 3), np.ones(4)
    for figure in (
        norm_histograms({"encoder": {"none": counts}}, "2"),
        norm_maps({"encoder": np.eye(3)}, "mean L2 norm"),
        frame_profiles(series),
        by_distance(series, "cosine", series),
        attention_against_norm({"layer 1": (edges, values, 100 * values)}),
    ):
        assert all(axes.get_ylabel() or axes.get_xlabel() for axes in figure.axes)
        assert figure.axes[-1].get_xlabel() or figure.axes[0].get_xlabel()


def test_every_line_of_a_histogram_is_drawn():
    """More thresholds than there are colours and dashes for."""
    norms = np.random.default_rng(0).lognormal(3, 0.3, 300)
    lines = {f"line {number}": float(np.quantile(norms, number / 10)) for number in range(1, 8)}
    figure = norm_histograms({"encoder": {"tokens": histogram(norms)}}, "2", {"encoder": lines})
    drawn = {line.get_label(): line.get_xdata()[0] for line in figure.axes[0].lines}
    assert {name: drawn[name] for name in lines} == lines


def test_figures_that_nobody_wants_are_not_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDEOPOOL_FIGURES", "none")
    assert save_figures(lambda: pytest.fail("drawn"), tmp_path / "figures") == []
    assert not list(tmp_path.iterdir())
