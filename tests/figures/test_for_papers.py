"""What a paper asks of every figure: size, letters, looks, axes, legends, captions, files."""

import os
import re
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.text import Text

from made_study import record, write_clips, write_point
from videopool.figures import (
    differences,
    learning_curve,
    ranked,
    save_figure,
    score_against,
    score_by_shape,
    training_curves,
)
from videopool.figures.film import FilmRow, film_strip
from videopool.figures.norms import attention_against_norm, by_distance, frame_profiles, norm_histograms, norm_maps
from videopool.figures.speed import sweep_seconds
from videopool.figures.style import COLOURS, MARKERS, frames_look, looks
from videopool.figures.words import pooling_words, stage_words
from videopool.norms.statistics import LogHistogram
from videopool.pooling import (
    Average,
    Chain,
    ClipNorm,
    DropOutliers,
    InjectOutliers,
    NoPooling,
    RescaleNorm,
    ShuffleSpace,
    ShuffleTime,
)
from videopool.reports.files import write_report

pytestmark = pytest.mark.usefixtures("drawn")

COLUMN = 8 / 2.54  # inches
CHAIN = "inject outliers 0.02 both x10 random seed 0 + none"
POOLINGS = ("none", "average time", "adaptive Tx6x6", "something new", CHAIN)


def points(poolings=POOLINGS, level=0.6, half=0.02, chance=0.37, frames=(1, 4, 16)):
    rows = [
        (pooling, count, 36 * count * (1 + place), level - 0.04 * place + count / 1000)
        for place, pooling in enumerate(poolings)
        for count in frames
    ]
    table = pd.DataFrame(rows, columns=["pooling", "frames", "visual_tokens", "score"])
    change = {"difference": table.score - level, "difference_low": table.score - level - half}
    return table.assign(
        ci_low=table.score - half, ci_high=table.score + half, chance=chance, benchmark="made/test", model="mini",
        point=[f"p{n}" for n in range(len(table))], same_map_as=None, **change,
        difference_high=table.score - level + half,
    )  # fmt: skip


def shapes():
    table = points(("adaptive",), frames=(4, 8))
    sizes = [(size, table.assign(pooled_height=size, pooled_width=size)) for size in (3, 6)]
    return pd.concat([each for _, each in sizes]).assign(pooled_frames=lambda rows: rows.frames, operator="adaptive")


def every_figure():
    norms = LogHistogram()
    norms.add(np.random.default_rng(0).lognormal(3, 0.3, 5000))
    histogram = norms.counts[1:-1], norms.edges()
    stages = ("encoder.0", "encoder", "projector", "pooled", "llm.-1")
    sizes = dict.fromkeys(stages, "1,000 tokens, 10\u00a0clips")
    curves = {stage: {name: np.linspace(1, 0.99, 8) for name in POOLINGS[:3]} for stage in stages}
    log = [{"step": n, "ema": 2.0 - n / 100} for n in range(1, 50)]
    log.append({"step": 50, "validation_loss": 1.5, "visual_norm_max_over_median": 1.4})
    checks = [{"stage": "letters-check", "step": n, "words/a_task": 0.5, "letters/a_task": 0.4} for n in (1, 2)]
    frames = np.zeros((8, 24, 24, 3))
    rows = [
        FilmRow("norms", list(np.ones((8, 3, 3))), unit="L2 norm", over=True),
        FilmRow("p", frames[:3], ["1 s"] * 3),
    ]
    yield score_against(points(), "frames")
    yield score_against(points(), "visual_tokens")
    yield ranked(points())
    yield differences(points(), "pooling", "frames", title="minus none")
    yield differences(points().rename(columns={"pooling": "task"}), "task")
    yield score_by_shape([shapes()])
    yield score_by_shape([shapes(), shapes().assign(operator="median")])
    yield norm_histograms({stage: {"none": histogram} for stage in stages}, "2", None, None, sizes)
    yield norm_maps({stage: np.eye(6) + 20 for stage in stages}, "mean L2 norm", sizes=sizes)
    yield frame_profiles(curves, None, sizes)
    yield by_distance(curves, "cosine at equal positions", curves, None, sizes)
    yield attention_against_norm({"layer 1": (2.0 ** np.arange(-2, 3), np.ones(4), np.full(4, 100))})
    yield training_curves({"a-run": pd.DataFrame(log)})
    yield learning_curve(pd.DataFrame(checks))
    yield sweep_seconds({"off": {"decode": 3.0, "tower": 4.0}, "warm": {"decode": 1.0}})
    yield film_strip(frames, np.arange(8) / 2, rows, "a clip, mini")


def test_figures_are_legible_in_a_column_untitled_and_have_captions():
    for figure in every_figure():
        figure.draw_without_rendering()
        width, height = figure.get_size_inches()
        texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        assert min(COLUMN / width * text.get_fontsize() for text in texts) >= 5.99, figure.get_label()
        assert figure.get_suptitle() == ""
        assert len(figure.get_label()) > 10
        assert len([axes for axes in figure.axes if axes.get_title()]) != 1, "a lone panel needs no title"
        drawn = figure.get_tightbbox()
        assert drawn.x0 >= -0.02, figure.get_label()
        assert drawn.x1 <= width + 0.02, figure.get_label()
        assert -0.05 <= drawn.y0 < drawn.y1 <= height + 0.05, figure.get_label()


def drawn_looks(figure):
    marks = [c for axes in figure.axes for c in axes.containers if isinstance(c, ErrorbarContainer)]
    return {c.get_label(): (c[0].get_color(), c[0].get_marker()) for c in marks}


def test_a_pooling_looks_the_same_in_every_figure():
    table = points()
    scores = drawn_looks(score_against(table, "frames"))
    assert drawn_looks(score_against(table, "visual_tokens")) == scores
    assert scores["none"] == ("#000000", "o")
    assert len(set(scores.values())) == len({colour for colour, _ in scores.values()}) == len(POOLINGS)
    ((words, _),) = [(name, look) for name, look in scores.items() if "tokens" in name]
    assert words == "2 % of tokens made 10x larger and turned one way, then no pooling"
    curves = {"encoder": {name: np.linspace(1, 0.9, 4) for name in POOLINGS}}
    lines = {line.get_label(): (line.get_color(), line.get_marker()) for line in frame_profiles(curves).axes[0].lines}
    assert {pooling_words(name): look for name, look in lines.items()} == scores
    single = differences(table[table.frames == 4].assign(task="t"), "pooling")
    marks = [c for c in single.axes[0].containers if isinstance(c, ErrorbarContainer)]
    assert {(c[0].get_color(), c[0].get_marker()) for c in marks} == set(scores.values())
    few = points(("adaptive Tx6x6", "none"))
    assert drawn_looks(score_against(few, "frames")).items() <= scores.items()


def test_looks_depend_on_names_alone_and_do_not_collide():
    names = [f"pooling {number}" for number in range(30)]
    one, other = looks(names), looks(reversed(names))
    assert one == other
    assert len({(look["color"], look["marker"]) for look in one.values()}) == 30
    assert len({look["color"] for look in looks(names[:7]).values()}) == len(COLOURS)
    poolings = {"none": "none", "none, before": "none", "mean": "mean", "mean, before": "mean"}
    found = looks(poolings, poolings)
    assert found["none"]["color"] == found["none, before"]["color"] != found["mean"]["color"]
    assert found["none, before"]["fillstyle"] == found["mean, before"]["fillstyle"] != found["none"]["fillstyle"]


def test_frame_counts_have_a_scale_of_their_own_fixed_by_value():
    both = [differences(points(frames=frames), "pooling", "frames") for frames in ((1, 4, 16), (4, 16))]
    first, second = map(drawn_looks, both)
    assert second == {name: first[name] for name in second}
    assert drawn_looks(ranked(points(frames=(4, 16)))) == second
    counts = [1, 2, 4, 8, 16, 32, 64]
    assert len({frames_look(count)["marker"] for count in counts}) == 7 < len(MARKERS)
    light = [sum(int(frames_look(count)["color"][place : place + 2], 16) for place in (1, 3, 5)) for count in counts]
    assert light == sorted(light)


@pytest.mark.parametrize("axis", ["frames", "visual_tokens"])
def test_at_chance_scores_look_like_chance(axis):
    table = points(level=0.35, half=0.03, chance=1 / 3).assign(score=[0.32, 0.34, 0.36] * 5)
    table = table.assign(ci_low=table.score - 0.03, ci_high=table.score + 0.03)
    figure = score_against(table, axis)
    axes = figure.axes[0]
    low, high = axes.get_ylim()
    assert high - low >= 30
    assert low < 100 / 3 < high
    assert "begins at" in figure.get_label()
    assert [line for line in axes.lines if line.get_label() == "_cut"], "the axis is marked where it is cut"
    assert not [line for line in axes.lines if line.get_label() == "Pareto front"]
    wide = score_against(points(level=0.9, chance=0.2), axis).axes[0]
    assert wide.get_ylim() == (0, 100)
    assert not [line for line in wide.lines if line.get_label() == "_cut"]


def test_axes_of_norms_and_shapes_have_a_smallest_span():
    wiggle = {stage: {"none": 1 + 0.005 * np.sin(np.arange(8))} for stage in ("encoder", "projector")}
    for axes in frame_profiles(wiggle).axes:
        assert axes.get_ylim()[1] - axes.get_ylim()[0] >= 0.2
    curves = {"encoder": {"none": np.linspace(1, 0.9, 5)}, "llm.0": {"none": np.linspace(1, 0.2, 5)}}
    assert len({axes.get_ylim() for axes in by_distance(curves, "cosine").axes}) == 1
    limits = score_by_shape([shapes()]).axes[0].images[0].get_clim()
    assert limits[1] - limits[0] >= 30
    (image,) = norm_maps({"encoder": np.full((3, 3), 20.0) + np.eye(3) / 100}, "norm").axes[0].images
    assert image.get_clim()[1] - image.get_clim()[0] >= 3.9


def test_histograms_of_all_stages_have_the_same_bins():
    stages = {}
    for stage, spread in (("encoder", 0.02), ("projector", 0.8)):
        norms = LogHistogram()
        norms.add(np.random.default_rng(0).lognormal(3, spread, 5000))
        stages[stage] = {"none": (norms.counts[1:-1], norms.edges())}
    figure = norm_histograms(stages, "2")
    steps = [np.diff(np.log(axes.patches[0].get_data().edges)) for axes in figure.axes]
    assert steps[0][0] == pytest.approx(steps[1][0])
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    assert [axes.get_title() for axes in figure.axes] == ["tower", "projector"]


def test_legends_follow_the_lines_and_end_with_chance():
    for axis in ("frames", "visual_tokens"):
        (legend,) = score_against(points(("c", "a", "b")).assign(score=lambda rows: rows.score), axis).legends
        assert [text.get_text() for text in legend.get_texts()][:3] == ["c", "a", "b"]
        assert legend.get_texts()[-1].get_text() == "chance"
    (legend,) = ranked(points()).legends
    assert [text.get_text() for text in legend.get_texts()] == ["1", "4", "16", "chance"]


def test_equal_maps_are_drawn_once():
    table = points(("none", "twin", "mean"))
    whole = table.assign(same_map_as=[None] * 3 + ["p0", "p1", "p2"] + [None] * 3)
    assert sorted(drawn_looks(score_against(whole, "frames"))) == ["mean", "none = twin"]
    assert [t.get_text().split("  ")[0] for t in ranked(whole).axes[0].get_yticklabels()] == ["none = twin", "mean"]
    assert len(differences(whole, "pooling", "frames").axes[0].get_yticklabels()) == 2
    one = table.assign(same_map_as=[None] * 3 + ["p0"] + [None] * 5)
    figure = score_against(one, "frames")
    marks = {c.get_label(): len(c[0].get_xdata()) for c in figure.axes[0].containers}
    assert marks == {"none": 3, "twin": 2, "mean": 3}
    assert "equal maps" in figure.get_label()


def test_numbers_of_frames_stand_beside_the_marks():
    figure = score_against(points(("none", "mean"), frames=(1, 2, 4, 8)), "visual_tokens")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) >= 7
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert {text.get_color() for text in axes.texts} == {look[0] for look in drawn_looks(figure).values()}


def test_interventions_are_said_in_words_and_stay_apart():
    ways = [
        ClipNorm(quantile=0.9), ClipNorm(quantile=0.98), ClipNorm(max_norm=2), RescaleNorm(), RescaleNorm(3),
        InjectOutliers(0.02, 10), InjectOutliers(0.02, 0.5), InjectOutliers(0.02, 10, seed=3), InjectOutliers(0.1, 10),
        *(InjectOutliers(0.02, 10, mode=mode) for mode in ("direction", "both")),
        *(InjectOutliers(0.02, 10, placement=place) for place in ("same", "border", "centre")),
        DropOutliers(), DropOutliers(5), ShuffleTime(), ShuffleTime(1), ShuffleSpace(),
    ]  # fmt: skip
    labels = [Chain([way, pooling]).label for way in ways for pooling in (NoPooling(), Average())]
    words = [pooling_words(label) for label in labels]
    assert len(set(words)) == len(labels)
    assert all(", then " in text and " + " not in text for text in words)
    assert words[0] == "norms clipped at quantile 0.9, then no pooling"
    for plain in ("none", "adaptive Tx6x6", "cls + none", "grid pyramid 4/2 4/4", "a user's own"):
        assert pooling_words(plain) == plain


def test_stages_in_words():
    words = {
        "encoder": "tower", "encoder.0": "tower, before layer 1", "encoder.3": "tower, after layer 3",
        "llm.-1": "language model, last layer", "llm.-2": "language model, last layer but 1",
        "pooled": "after pooling", "own": "own",
    }  # fmt: skip
    assert {name: stage_words(name) for name in words} == words


def test_a_film_says_hatched_in_its_rows_alone_and_keeps_unequal_times_apart():
    frames = np.zeros((3, 8, 8, 3))
    figure = film_strip(frames, [0.1, 0.2, 9.5], [], "clip", "Cells: colours.")
    assert figure.get_label() == "clip, 3 frames. Cells: colours."
    assert [axes.get_xlabel() for axes in figure.axes] == ["0.10 s", "0.20 s", "9.50 s"]


class Own:
    """A user's figure with a caption of its own."""

    name, caption = "mine", "Said by <me>."

    def applies(self, view):
        return view.benchmark is not None

    def draw(self, view):
        figure = ranked(points())
        figure.set_label("")
        return figure


def test_a_report_writes_equal_files_with_embedded_fonts_and_shows_captions(tmp_path):
    clips = write_clips(tmp_path / "data")
    written = []
    for name in ("one", "two"):
        study = tmp_path / name / "made"
        for pooling in ("none", "average time"):
            write_point(study, [record(n, n < 4, -1.0, [1]) for n in range(6)], clips, pooling=pooling)
        write_report(study, "none", own_figures={"own": Own()})
        written.append({p.name: p.read_bytes() for p in sorted((study / "figures").iterdir())})
        page = (study / "report.html").read_text()
    assert written[0] == written[1]
    assert {name.rsplit(".", 1)[1] for name in written[0]} == {"pdf", "png", "svg"}
    assert "<figcaption" in page
    assert "score against frames" in page
    assert "Said by &lt;me&gt;." in page
    (pdf,) = (study / "figures").glob("*hard_by_frames*.pdf")
    assert b"CreationDate" not in pdf.read_bytes()
    if shutil.which("pdffonts"):
        listed = subprocess.run(["pdffonts", pdf], capture_output=True, text=True, check=True).stdout.splitlines()[2:]
        assert listed
        for line in listed:
            assert "TrueType" in line
            assert re.search(r" yes yes ", line), "embedded, and a subset"


def test_files_are_equal_in_another_process(tmp_path):
    script = (
        "from pathlib import Path; from videopool.figures import save_figure; from videopool.figures.speed import *;"
        "import sys; save_figure(sweep_seconds({'off': {'décode': 3.0, 'tower': 4.0}}), Path(sys.argv[1]))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", script, tmp_path / "a"], check=True, env=env)
    saved = save_figure(sweep_seconds({"off": {"décode": 3.0, "tower": 4.0}}), tmp_path / "b")
    assert [name.rsplit(".")[1] for name in saved] == ["png", "svg", "pdf"]
    for name in saved:
        other = tmp_path / f"a.{name.rsplit('.')[1]}"
        assert Path(name).read_bytes() == other.read_bytes()
