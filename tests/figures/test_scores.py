"""Figures of scores: which points are on the Pareto front, which shapes make a heat map, and what is written in it."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer

from made_study import record, write_clips, write_point
from videopool.figures import score_against, score_by_shape, shape_panels
from videopool.figures.scores import line_names, pareto_front
from videopool.pooling import Adaptive, Average, GeneralisedMean, NoPooling, Strided
from videopool.reports.files import write_report
from videopool.results import add_pooled_shapes, load_study

pytestmark = pytest.mark.usefixtures("drawn")


def undominated(points):
    """By the definition, pair by pair."""
    found = []
    for place, (cost, score) in enumerate(points):
        others = ((c, s) for c, s in points if (c, s) != (cost, score))
        if not any(c <= cost and s >= score for c, s in others):
            found.append(place)
    return found


def test_the_front_holds_what_no_other_point_beats():
    rng = np.random.default_rng(0)
    sizes = set()
    for count in [0, 1, *rng.integers(2, 12, 300)]:
        points = [(float(c), float(s)) for c, s in rng.integers(0, 6, (count, 2))]  # few values, so there are ties
        costs, levels = [c for c, _ in points], [s for _, s in points]
        front = pareto_front(costs, levels, levels, levels)  # intervals without width
        expected = sorted({points[place] for place in undominated(points)})
        assert [points[place] for place in front] == (expected if len(expected) > 1 else [])
        sizes.add(len(front))
    assert {0, 2, 3} <= sizes


def test_the_front_leads_only_to_points_above_the_interval_of_the_one_before():
    costs, levels = [1, 2, 3, 4], [50.0, 54, 62, 70]

    def front(half):
        return pareto_front(costs, levels, [level - half for level in levels], [level + half for level in levels])

    assert front(1) == [0, 1, 2, 3]
    assert front(3) == [0, 2, 3]
    assert front(5) == [0, 2]
    assert front(9) == [0, 3]
    assert front(10) == []
    assert front(float("nan")) == []


def scores(*rows):
    """A table of points: pooling, frames, visual tokens, score."""
    table = pd.DataFrame(rows, columns=["pooling", "frames", "visual_tokens", "score"])
    half = {"ci_low": table.score - 0.05, "ci_high": table.score + 0.05}
    return table.assign(**half, chance=0.25, benchmark="made/test", model="mini")


def line(figure, label):
    return [one for one in figure.axes[0].lines if one.get_label() == label]


def test_the_front_runs_through_its_points_and_not_through_others():
    table = scores(
        ("none", 1, 144, 0.6),
        ("none", 4, 576, 0.8),
        ("none", 16, 2304, 0.7),
        ("mean", 4, 144, 0.5),
        ("coarse", 4, 36, 0.45),
        ("coarse", 16, 576, 0.3),
    )
    figure = score_against(table, "visual_tokens")
    (front,) = line(figure, "Pareto front")
    assert front.get_drawstyle() == "steps-post"
    assert list(front.get_ydata()) == pytest.approx([45, 60, 80, 80])  # the last goes on to the right end
    markers = {
        (x, y)
        for curve in figure.axes[0].containers
        if isinstance(curve, ErrorbarContainer)
        for x, y in zip(*curve[0].get_data(), strict=True)
    }
    assert set(zip(front.get_xdata()[:-1], front.get_ydata()[:-1], strict=True)) <= markers
    assert front.get_xdata()[-1] == max(x for x, _ in markers)
    assert not line(score_against(table, "frames"), "Pareto front")


def test_no_two_poolings_look_alike_and_frames_are_numbered_where_they_differ():
    many = [(f"pooling {number}", 4, 10 + number, 0.5) for number in range(12)]
    figure = score_against(scores(*many), "visual_tokens")
    looks = {(bars[0].get_color(), bars[0].get_marker()) for bars in figure.axes[0].containers}
    assert len(looks) == 12
    assert not figure.axes[0].texts
    assert "frames" not in figure.axes[0].get_xlabel()
    several = score_against(scores(*many, ("pooling 0", 8, 20, 0.6)), "visual_tokens")
    assert [text.get_text() for text in several.axes[0].texts] == ["4", "8", *["4"] * 11]
    assert several.axes[0].get_xlabel().endswith("(numbers: frames)")


def shaped(*shapes, **about):
    """A table of points of one operator by (T', H', W'), each with its score."""
    rows = [
        {"pooled_frames": t, "pooled_height": h, "pooled_width": w, "score": s, "ci_low": s - 0.1, "ci_high": s + 0.1}
        for t, h, w, s in shapes
    ]
    told = {"model": "mini", "benchmark": "made/test", "stage": "projector", "lora_alpha": None, "seed": 0}
    return pd.DataFrame(rows).assign(**told, judge=None, operator="adaptive", frames=8, **about)


FOUR = ((1, 3, 3, 0.1), (1, 6, 6, 0.4), (8, 3, 3, 0.6), (8, 6, 6, 0.9))


@pytest.mark.parametrize(
    ("table", "panels"),
    [
        (shaped(*FOUR), [4]),
        (shaped(*FOUR, (4, 6, 6, 0.5)), [5]),
        (shaped(*FOUR, (4, 6, 4, 0.5)), [4]),  # not square
        (shaped(*FOUR[:3]), []),
        (shaped(*FOUR[:3], (4, 6, 6, 0.2)), []),  # no two sizes at the same two numbers of frames
        (shaped(*FOUR[:2], (8, 4, 4, 0.5), (8, 5, 5, 0.5)), []),
        (pd.concat([shaped(*FOUR), shaped(*FOUR).assign(seed=1)]), [4, 4]),
        (pd.concat([shaped(*FOUR[:2]), shaped(*FOUR[2:]).assign(frames=16)]), []),
        (pd.concat([shaped(*FOUR[:2]), shaped(*FOUR[2:]).assign(operator="median")]), []),
    ],
    ids=["four", "and one", "oblong", "three", "scattered", "apart", "two seeds", "two samplings", "two operators"],
)
def test_only_what_differs_in_shape_alone_shares_a_panel(table, panels):
    assert [len(rows) for rows in shape_panels(table)] == panels


def test_cells_say_scores_and_intervals_where_their_shape_is():
    (panel,) = shape_panels(shaped(*FOUR, (4, 6, 6, 0.75)))
    figure = score_by_shape([panel])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["3 x 3", "6 x 6"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "4", "8"]
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (0, 0): "10.0\n[0, 20]",
        (1, 0): "40.0\n[30, 50]",
        (0, 1): "not run",
        (1, 1): "75.0\n[65, 85]",
        (0, 2): "60.0\n[50, 70]",
        (1, 2): "90.0\n[80, 100]",
    }
    drawn = axes.images[0]
    np.testing.assert_allclose(np.ma.filled(drawn.get_array(), np.nan), [[10, 40], [np.nan, 75], [60, 90]])
    assert drawn.get_clim() == pytest.approx((0, 100))  # of the intervals


def write_shapes(folder, poolings, frames=4):
    clips = write_clips(folder / "data")
    for number, pooling in enumerate(poolings):
        windows = pooling.windows(frames, 12, 12)
        answers = [record(n, n <= number, -1.0, [1]) for n in range(6)]
        write_point(folder / "results" / "made", answers, clips, pooling=pooling.label, windows=windows, frames=frames)
    return folder / "results" / "made"


def test_shapes_are_those_that_were_left(tmp_path):
    poolings = [
        NoPooling(),
        Average(),
        Strided(2),
        Adaptive([None, 6, 6]),
        Adaptive([16, 3, 3], "max"),  # more frames than there are
        GeneralisedMean([2, 6, 6], p=2),
    ]
    found = add_pooled_shapes(load_study(write_shapes(tmp_path, poolings))).set_index("operator")
    assert {name: (*row,) for name, row in found.filter(like="pooled_").iterrows()} == {
        "adaptive": (4, 6, 6),
        "adaptive max": (4, 3, 3),
        "generalised mean 2": (2, 6, 6),
    }


@pytest.mark.parametrize("shapes", [3, 4])
def test_a_report_draws_a_full_grid_of_shapes(tmp_path, shapes):
    poolings = [Adaptive([frames, size, size]) for frames, size in product((2, None), (3, 6))][:shapes]
    study = write_shapes(tmp_path, poolings)
    files, _ = write_report(study, "none")
    drawn = sorted(path.name for path in (study / "figures").glob("*by_shape*"))
    page = (study / "report.html").read_text()
    if shapes == 4:
        assert drawn == [f"score_hard_by_shape_made-test.{kind}" for kind in ("pdf", "png", "svg")]
        assert "score over the shape after pooling (adaptive, 4 frames sampled)" in page
        assert {str(study / "figures" / name) for name in drawn} <= set(files)
        text = (study / "figures" / drawn[2]).read_text()
        assert text.startswith("<?xml")
    else:
        assert drawn == []
        assert "by shape" not in page


def test_what_varies_beside_the_pooling_has_its_own_line():
    one = scores(("none", 4, 576, 0.8), ("none", 8, 1152, 0.7)).assign(stage="projector", prompt="plain", seed=0)
    other = one.assign(stage="encoder")
    labels = score_against(pd.concat([one, other]), "frames").axes[0].get_legend_handles_labels()[1]
    assert labels == ["chance", "none", "none, before the projector"]
    other = one.assign(prompt="qwen")
    labels = score_against(pd.concat([one, other]), "frames").axes[0].get_legend_handles_labels()[1]
    assert labels == ["chance", "none, prompt plain", "none, prompt qwen"]


def test_seeds_are_drawn_each_and_the_line_runs_through_their_mean():
    one = scores(("none", 4, 576, 0.8), ("none", 8, 1152, 0.7)).assign(seed=0)
    lower = {name: one[name] - 0.2 for name in ("score", "ci_low", "ci_high")}
    figure = score_against(pd.concat([one, one.assign(seed=1, **lower)]), "frames")
    (mean,) = line(figure, "_mean")
    np.testing.assert_allclose(mean.get_xydata(), [(4, 70), (8, 60)], rtol=1e-9)
    (drawn,) = (c for c in figure.axes[0].containers if isinstance(c, ErrorbarContainer))
    assert drawn[0].get_linestyle() == "None"
    assert sorted(drawn[0].get_ydata()) == pytest.approx([50, 60, 70, 80])


def test_against_tokens_seeds_have_their_mean_in_line_front_and_numbers():
    """The luckiest seed of each would make a front of its own, and a line that leads from one seed to another."""
    one = scores(("none", 4, 576, 0.9), ("none", 16, 2304, 0.6), ("mean", 16, 144, 0.5), ("fixed", 8, 144, 0.3))
    one = pd.concat([one, scores(("fixed", 16, 144, 0.2))]).assign(seed=0)
    other = one.assign(seed=1, score=[0.5, 0.8, 0.4, 0.3, 0.2])
    both = pd.concat([one, other]).assign(
        ci_low=lambda rows: rows.score - 0.001, ci_high=lambda rows: rows.score + 0.001
    )
    figure = score_against(both, "visual_tokens")
    means = {tuple(np.round(curve.get_ydata(), 6)) for curve in line(figure, "_mean")}
    assert means == {(70.0, 70.0), (45.0,), (30.0, 20.0)}
    (front,) = line(figure, "Pareto front")
    assert list(front.get_ydata()) == pytest.approx([45, 70, 70])
    assert front.get_xdata()[1] == 2304, "with 576 tokens, one seed of none is as bad as one of mean"
    numbers = {(text.get_text(), round(text.xy[1])) for text in figure.axes[0].texts}
    assert numbers <= {("4", 70), ("16", 70), ("16", 45), ("8", 30), ("16", 20)}
    assert {("4", 70), ("16", 70)} <= numbers
    marks = [y for c in figure.axes[0].containers if isinstance(c, ErrorbarContainer) for y in c[0].get_ydata()]
    assert len(marks) == 10


def test_no_visual_tokens_have_a_place_on_the_axis():
    table = scores(("none", 4, 576, 0.8), ("mean", 4, 144, 0.65), ("blind", 4, 0, 0.3))
    figure = score_against(table, "visual_tokens")
    (front,) = line(figure, "Pareto front")
    assert list(front.get_ydata()) == pytest.approx([30, 65, 80, 80])
    drawn = figure.axes[0].transData.transform([(x, 50) for x in (0, 144, 576)])
    places = figure.axes[0].transAxes.inverted().transform(drawn)
    assert 0 < places[0, 0] < places[1, 0] < places[2, 0] < 1
    assert score_against(table[:2], "visual_tokens").axes[0].get_xscale() == "log"
    assert score_against(table[2:], "visual_tokens").axes[0].get_xscale() == "linear"


def test_alpha_is_an_axis_and_no_part_of_a_lines_name():
    rows = scores(*(("none", 16, 144, 0.5 + alpha / 1000) for alpha in (0, 16, 64, 0, 16, 64)))
    rows["lora_alpha"] = [0.0, 16, 64] * 2
    rows["model"] = [f"mini alpha {alpha:g} projector {p}" for p in (0, 1) for alpha in (0, 16, 64)]
    figure = score_against(rows, "lora_alpha")
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["chance", "none, mini projector 0", "none, mini projector 1"]
    assert figure.axes[0].get_xscale() == "linear"
    (first, _) = (c for c in figure.axes[0].containers if isinstance(c, ErrorbarContainer))
    assert first[0].get_ydata() == pytest.approx([50, 51.6, 56.4])


def test_training_clips_are_an_axis_and_images_and_frames_names_of_lines():
    rows = scores(*(("none", frames, 144, 0.5 + frames / 100) for frames in (4, 4, 4, 4, 8)))
    rows["training_clips"], rows["training_images"] = [10.0, 40, 10, 40, 40], [0.0, 0, 50, 50, 0]
    rows["weights"], rows["seed"] = list("abcde"), 0
    figure = score_against(rows, "training_clips")
    labels = figure.axes[0].get_legend_handles_labels()[1]
    words = ["4 frames, 0 training images", "4 frames, 50 training images", "8 frames, 0 training images"]
    assert sorted(labels) == ["chance", *(f"none, {one}" for one in words)]
    assert figure.axes[0].get_xlabel() == "training clips"
    by_tokens = score_against(rows, "visual_tokens").axes[0].get_legend_handles_labels()[1]
    assert "none, 10 training clips, 50 training images" in by_tokens
    untrained = rows.assign(training_images=[0.0, 0, 0, 0, None])
    assert not any("images" in one for one in line_names(untrained, "training_clips"))


def test_checkpoints_of_one_seed_are_told_apart():
    one = scores(("none", 4, 576, 0.8), ("none", 8, 1152, 0.7)).assign(seed=0, weights="a1")
    labels = score_against(pd.concat([one, one.assign(weights="b2")]), "frames").axes[0].get_legend_handles_labels()[1]
    assert labels == ["chance", "none, weights a1", "none, weights b2"]
    seeds = pd.concat([one, one.assign(weights="b2", seed=1)])
    assert score_against(seeds, "frames").axes[0].get_legend_handles_labels()[1] == ["chance", "none"]
