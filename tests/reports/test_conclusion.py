"""The conclusion of a study, against numbers computed from the records alone."""

import itertools
import json
import re
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from made_study import record, write_point
from videopool.config.errors import ConfigError
from videopool.reports.conclusion import conclusion
from videopool.reports.headline import headline_pair
from videopool.reports.samples import choose_pair, differing_samples
from videopool.results import compared_study, over_seeds

CLIPS, EACH = 40, 4  # samples per clip
N = CLIPS * EACH


def answers(rate, seed=0, clips=CLIPS, **about):
    """Records that are right with such a probability; those of one clip are alike, and those of equal rates equal."""
    generator = np.random.default_rng(seed)
    ease, noise = generator.random(clips), generator.random((clips, EACH))
    made = []
    for clip, place in itertools.product(range(clips), range(EACH)):
        right = 0.5 * ease[clip] + 0.5 * noise[clip, place] < rate
        made.append(record(clip * EACH + place, bool(right), -0.1 if right else -3.0, [1]) | about)
        made[-1] |= {"clip": f"clip{clip}.mp4", "task": ("colour", "shape_of")[place % 2]}
    return made


POINTS = {  # pooling and frames: tokens, rate
    ("none", 4): (576, 0.60),
    ("none", 8): (1152, 0.62),
    ("average time", 4): (144, 0.25),
    ("average time", 8): (144, 0.60),
    ("adaptive Tx6x6", 8): (576, 0.85),
    ("median", 8): (36, 0.63),
}


def write(folder, points=POINTS, **about):
    for place, ((pooling, frames), (tokens, rate)) in enumerate(points.items()):
        more = {"pooling": pooling, "frames": frames, "visual_tokens": tokens, **about}
        write_point(folder, answers(rate, seed=place if pooling == "median" else 0), {}, **more)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write(tmp_path_factory.mktemp("made") / "s")


def said(study, baseline="none", headline=""):
    table = compared_study(study, baseline)
    return conclusion(table, baseline, over_seeds(table, baseline), headline)


def read(study):
    """Scores by pooling and frames, [clips, samples per clip], from the files alone."""
    found = {}
    for path in study.glob("*/run.json"):
        point = json.loads(path.read_text())["point"]
        lines = [json.loads(line) for line in path.with_name("records.jsonl").read_text().splitlines()]
        ordered = sorted(lines, key=lambda line: int(line["id"][1:]))
        found[point["pooling"], point["frames"]] = np.array([line["score"] for line in ordered]).reshape(-1, EACH)
    return found


def test_what_differs_by_how_much_and_what_does_not(study):
    scores = read(study)
    at_frames = {key: ("none", key[1]) for key in scores if key[0] != "none"}
    at_tokens = {("adaptive Tx6x6", 8): ("none", 4)}  # 576 each
    pairs = {(key, other) for view in (at_frames, at_tokens) for key, other in view.items()}
    # Each clip's mean difference, and a t-test on these: not the program's interval, but the same question.
    p = {pair: stats.ttest_1samp((scores[pair[0]] - scores[pair[1]]).mean(axis=1), 0.0).pvalue for pair in pairs}
    found, ordered = set(), sorted(pairs, key=p.__getitem__)
    for place, pair in enumerate(ordered):  # Holm
        if p[pair] * (len(pairs) - place) >= 0.05:
            break
        found.add(pair)
    assert 0 < len(found) < len(pairs)
    sentences = said(study)
    text = " ".join(sentences)
    for words, view in (("At equal frames", at_frames), ("At equal tokens", at_tokens)):
        own = {pair: (scores[pair[0]] - scores[pair[1]]).mean() for pair in view.items()}
        significant = {pair: value for pair, value in own.items() if pair in found}
        largest = max(significant.values(), key=abs)
        (sentence,) = [s for s in sentences if s.startswith(words)]
        assert f"{100 * largest:+.1f} points [" in sentence
        assert f"Holm's correction for {len(pairs)}" in sentence
        assert f"{len(significant)} of {len(own)} comparison" in sentence
        for sign, word in ((1, "higher"), (-1, "lower")):
            count = sum(sign * value > 0 for value in significant.values())
            assert (f"{count} {word}" in sentence) is bool(count)
    (untold,) = [s for s in sentences if s.startswith("Not told apart")]
    for (pooling, frames), _ in pairs - found:
        assert f"{pooling} ({frames} frames)" in untold
    for (pooling, frames), _ in found:
        assert f"{pooling} ({frames} frames)" not in untold
    best = max(scores, key=lambda key: scores[key].mean())
    assert f"The highest score is {100 * scores[best].mean():.1f} % [" in text
    assert f"of {best[0]} ({best[1]} frames)" in text
    assert 3 <= len(sentences) <= 6


def test_a_study_of_one_point_or_without_baseline(tmp_path):
    write(tmp_path / "one", {("median", 1): (36, 0.7)})
    one = said(tmp_path / "one")
    assert re.match(
        r"The highest score is \d.* % \[\d+\.\d, \d+\.\d\] \(chance: 50\.0 %\), of median \(1 frame\)\.", one[0]
    )
    assert one[1:] == ["There is no other point to compare it with."]
    write(tmp_path / "two", {("median", 4): (36, 0.7), ("average", 8): (36, 0.3)})
    two = said(tmp_path / "two")
    assert "median (4 frames)" in two[0]
    assert two[1].startswith("No complete point can be compared with the baseline (none); baseline=... names another")
    assert "1 of 1 comparison with the baseline (median) shows a difference" in " ".join(
        said(tmp_path / "two", "median")
    )  # at equal tokens


@pytest.mark.parametrize(("rates", "words"), [((0.5, 0.9, 0.95), "2 of 2"), ((0.5, 0.51, 0.44), None)])
def test_all_better_and_none(tmp_path, rates, words):
    names = ("none", "average", "median")
    points = {(name, 4): (100 * place, rate) for place, (name, rate) in enumerate(zip(names, rates, strict=True), 1)}
    sentences = said(write(tmp_path / "s", points))
    (frames,) = [s for s in sentences if s.startswith("At equal frames")]
    untold = [s for s in sentences if s.startswith("Not told apart")]
    if words:
        assert "2 of 2 comparisons with the baseline (none) show a difference" in frames
        assert ": 2 higher, the largest" in frames
        assert not untold
    else:
        assert "0 of 2 comparisons with the baseline (none) show a difference" in frames
        assert untold[0].startswith("Not told apart from the baseline: median (4 frames) and average (4 frames) at ")


def test_equal_maps_are_no_comparisons(tmp_path):
    points = {("none", 1): (144, 0.5), ("average", 1): (144, 0.5)}
    study = write(tmp_path / "s", points)
    table = compared_study(study, "none")
    table.loc[table.pooling == "average", "same_map_as"] = table.point[table.pooling == "none"].iloc[0]
    assert conclusion(table, "none")[1:] == ["The same as the baseline is computed by average (1 frame)."]


def test_few_clips_have_no_intervals(tmp_path):
    for place, rate in enumerate((0.2, 0.9)):
        write_point(tmp_path / "s", answers(rate, clips=5), {}, pooling=("none", "average")[place])
    text = " ".join(said(tmp_path / "s"))
    assert "the largest difference from the baseline (none) is +" in text
    assert "with fewer than 10 clips there are no intervals, and nothing can be told apart" in text
    assert "[" not in text
    assert "correction" not in text


def test_several_benchmarks_models_and_judges(tmp_path):
    study = tmp_path / "s"
    for number in range(5):
        write(study, {("none", 4): (9, 0.3), ("average", 4): (9, 0.8)}, benchmark=f"b{number}/test")
    sentences = said(study)
    for number in range(3):
        assert any(s.startswith(f"On b{number}/test: The highest score is") for s in sentences)
        assert any(s.startswith(f"On b{number}/test: At equal frames, 1 of 1 comparison") for s in sentences)
    assert "The tables show 2 more benchmarks." in sentences
    two = tmp_path / "models"
    for model in ("small", "large"):
        write(two, {("none", 4): (9, 0.3), ("average", 4): (9, 0.8)}, model=model)
    assert "2 of 2 comparisons" in " ".join(said(two))
    assert "model small" in " ".join(said(two)) or "model large" in " ".join(said(two))


def test_seeds_are_taken_together(tmp_path):
    study = tmp_path / "s"
    for seed in (0, 1):
        for pooling, rate in (("none", 0.3), ("average", 0.8), ("median", 0.3)):
            write_point(study, answers(rate, seed=seed), {}, pooling=pooling, seed=seed)
    sentences = said(study)
    scores = over_seeds(compared_study(study, "none"), "none").set_index("pooling").difference
    frames = [s for s in sentences if s.lower().startswith(("over seeds", "at equal frames"))]
    assert frames == [s for s in sentences if s.startswith("Over seeds, at equal frames, 1 of 2 comparisons")]
    assert f"the largest {100 * scores['average']:+.1f} points [" in frames[0]
    assert "for average (4 frames)" in frames[0]
    assert "median (4 frames) over seeds, at equal frames" in " ".join(sentences)


def test_what_is_not_complete_or_has_no_score(tmp_path):
    study = write(tmp_path / "s", {("none", 4): (576, 0.5), ("average", 4): (144, 0.5)})
    write_point(study, [], {}, failure="no clip", pooling="median")
    write_point(study, [], {}, pooling="strided")
    assert said(study)[0] == "The study is partly complete: 2 of 4 points; 1 failed, 1 not finished."
    unscored = [r | {"score": None} if place < 3 else r for place, r in enumerate(answers(0.5))]
    failed = [r | {"status": "failed", "score": None} if place < 2 else r for place, r in enumerate(answers(0.5))]
    write_point(study, unscored, {}, pooling="blind")
    write_point(study, failed, {}, pooling="subsample")
    sentences = said(study)
    assert "2 samples could not be evaluated, 3 samples had no reference answer or verdict" in sentences[-1]
    assert "2 points cannot be compared with the baseline: unequal samples" in " ".join(sentences)
    nothing = tmp_path / "t"
    write_point(nothing, [r | {"score": None} for r in answers(0.5)], {})
    assert said(nothing)[0] == "No answer has a score: there are no reference answers, or no judge."
    empty = tmp_path / "u"
    write_point(empty, [], {}, failure="no clip")
    assert said(empty) == ["The study is partly complete: 0 of 1 point; 1 failed."]


def test_the_headline(study):
    text = "(T,6,6) minus none at 8 frames, on the tasks that one frame can answer."
    sentence = said(study, headline=text)[0]
    scores = read(study)
    value = 100 * (scores["adaptive Tx6x6", 8] - scores["none", 8]).mean()
    assert sentence.startswith(
        f"The headline, adaptive Tx6x6 (8 frames) minus none (8 frames), is {value:+.1f} points ["
    )
    assert "after Holm's correction" in sentence
    other = said(study, headline="none at 8 frames minus none at 4")[0]
    assert "none (8 frames) minus none (4 frames)" in other
    assert "by itself" in other
    assert choose_pair(compared_study(study, "none"), None, text)[0].startswith("mini-adaptive-Tx6x6-8-")


@pytest.mark.parametrize(
    ("headline", "pair"),
    [
        ("average time minus none at 4 frames", (("average time", 4), ("none", 4))),
        ("6 x 6 minus none, at 8 frames", (("adaptive Tx6x6", 8), ("none", 8))),
        ("none at 8 frames minus none at 4; and more", (("none", 8), ("none", 4))),
        ("none minus none", None),  # one point less itself at 4 frames, or any two
        ("average minus sixteen", None),
        ("median minus none at 16 frames", None),
        ("each minus the best", None),
        ("", None),
        (" minus ", None),
    ],
)
def test_headlines_are_read(study, headline, pair):
    table = compared_study(study, "none")
    found = headline_pair(headline, table)
    if headline == "none minus none":
        assert found is None or found[0] != found[1]
        return
    names = {(row.pooling, row.frames): row.point for row in table.itertuples()}
    assert found == (pair and (names[pair[0]], names[pair[1]]))


def test_samples_are_spread_over_tasks_and_directions(tmp_path):
    first, second = answers(0.6, seed=1), answers(0.5, seed=2)
    for one in (first, second):
        for place, each in enumerate(one):
            each["task"] = "big" if place < 100 else f"small{place % 3}"
    names = [write_point(tmp_path / "s", own, {}, pooling=p) for own, p in ((first, "a"), (second, "b"))]
    folders = [tmp_path / "s" / name for name in names]
    found = differing_samples(*folders, 12)
    assert found == differing_samples(*folders, 12)
    tasks = Counter(a["task"] for a, _ in found)
    assert set(tasks) == {"big", "small0", "small1", "small2"}
    assert max(tasks.values()) - min(tasks.values()) <= 1
    better = Counter(a["score"] > b["score"] for a, b in found)
    assert min(better.values()) >= 4
    assert len({a["clip"] for a, _ in found}) >= 10


def test_a_pair_may_be_named_by_unique_beginnings(study):
    table = compared_study(study, "none")
    names = {(row.pooling, row.frames): row.point for row in table.itertuples()}
    assert choose_pair(table, ["mini-median", "mini-none-8"]) == (names["median", 8], names["none", 8])
    with pytest.raises(ConfigError, match="mini-none: 2 complete points begin so; there are: mini-none-"):
        choose_pair(table, ["mini-none", "mini-median"])
    with pytest.raises(ConfigError, match="are one point"):
        choose_pair(table, ["mini-median", "mini-median-8"])
