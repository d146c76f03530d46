"""Curves of training runs, and that a report finds them."""

import json
import re

import pandas as pd
import pytest

from made_study import record, write_clips, write_point
from videopool.figures import training_curves
from videopool.reports.files import write_report
from videopool.reports.study_figures import recipes

pytestmark = pytest.mark.usefixtures("drawn")

ROWS = [
    {"step": 1, "loss": 3.0, "ema": 3.0},
    {"step": 2, "loss": 1.0, "ema": 2.5},
    {"step": 2, "validation_loss": 1.5, "visual_norm_median": 20.0, "visual_norm_max_over_median": 1.4},
    {"step": 3, "loss": 0.5, "ema": 2.0},
]


def test_curves_are_those_of_the_log():
    figure = training_curves({"one": pd.DataFrame(ROWS), "two": pd.DataFrame(ROWS[:2])})
    losses, norms = figure.axes
    by_label = {line.get_label(): line for line in losses.lines}
    assert by_label["one"].get_xydata().tolist() == [[1, 3.0], [2, 2.5], [3, 2.0]]
    assert by_label["two"].get_xydata().tolist() == [[1, 3.0], [2, 2.5]]
    assert by_label["_held out"].get_xydata().tolist() == [[2, 1.5]]
    (line,) = norms.lines
    assert line.get_xydata().tolist() == [[2, 1.4]]
    assert len(training_curves({"two": pd.DataFrame(ROWS[:2])}).axes) == 1


def test_seeds_of_one_recipe_share_a_colour_and_a_name():
    runs = {name: pd.DataFrame(ROWS) for name in ("a-s0", "b-s0", "a-s1")}
    figure = training_curves(runs, {"a-s0": "a", "a-s1": "a", "b-s0": "b"})
    curves = [line for line in figure.axes[0].lines if len(line.get_xydata()) == 3]
    assert [line.get_label() for line in curves] == ["a", "a", "b"]
    assert curves[0].get_color() == curves[1].get_color() != curves[2].get_color()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a (2 seeds)", "b"]


def test_many_recipes_can_be_told_apart():
    figure = training_curves({f"recipe {n}": pd.DataFrame(ROWS) for n in range(20)})
    (legend,) = figure.legends
    assert len({(line.get_color(), line.get_marker()) for line in legend.legend_handles}) == 20


def test_runs_are_alike_if_only_their_seed_differs(tmp_path):
    identities = {
        "m-tuned-none-f4-s0-00000000": {"training": {"steps": 1}, "seed": 0},
        "m-tuned-none-f4-s1-11111111": {"training": {"steps": 1}, "seed": 1},
        "m-tuned-none-f4-s0-22222222": {"training": {"steps": 2}, "seed": 0},
        "m-tuned-mean-f4-s0-33333333": {"training": {"steps": 1}, "pooling": "mean", "seed": 0},
        "m-tuned-max-f4-s0-44444444": {"training": {"a": 1, "b": 1}, "c": 1, "seed": 0},
        "m-tuned-max-f4-s0-55555555": {"training": {"a": 2, "b": 2}, "c": 2, "seed": 0},
        "m-tuned-mean-f8-s0-66666666": {"training": {"steps": 9}, "seed": 0},
        "m-tuned-mean-f8-s0-77777777": {"training": {"steps": None, "share": 0.5}, "seed": 0},
    }
    for name, identity in identities.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"identity": identity}))
    *named, much, more, longer, half = recipes(tmp_path, identities).values()
    assert named == ["m-tuned-none-f4, steps 1"] * 2 + ["m-tuned-none-f4, steps 2", "m-tuned-mean-f4"]
    assert (longer, half) == ("m-tuned-mean-f8, steps 9", "m-tuned-mean-f8, share 0.5")
    for name in (much, more):  # they differ in too much to be said
        assert re.fullmatch("m-tuned-max-f4 [0-9a-f]{4}", name)
    assert much != more


@pytest.mark.parametrize("begun", [True, False])
def test_a_report_draws_runs_that_took_a_step(tmp_path, begun):
    study, clips = tmp_path / "results" / "s", write_clips(tmp_path / "data")
    write_point(study, [record(n, n < 3, -1.0, [1]) for n in range(6)], clips)
    (study / "mini-tuned").mkdir()
    (study / "mini-tuned" / "log.jsonl").write_text(  # the last line was cut off
        "".join(json.dumps(row) + "\n" for row in ROWS[: 4 * begun]) + '{"step": 4, "lo'
    )
    files = write_report(study, "none")[0]
    assert any(name.endswith("figures/training.png") for name in files) is begun
