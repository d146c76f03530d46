"""Points against each other: what is refused, what is said, and both views."""

import json
import math

import numpy as np
import pandas as pd
import pytest

import made_study
from videopool.results import (
    ResultsError,
    add_differences,
    by_task_table,
    compare,
    compare_by_task,
    compared_study,
    load_study,
    over_seeds,
    paired_difference,
)
from videopool.results.statistics import DIFFERENCE, holm, mean_over_seeds
from videopool.results.study import rows_of

ALL = lambda task: True  # noqa: E731


def write_point(
    study, pooling, frames, tokens, right, /, *, model="m", benchmark="b/test", judge=None, drop=(), recipe=None,
    tasks=("t",), **identity,
):  # fmt: skip
    """A complete point whose samples are right or not, four on a clip, of each task in turn.

    identity may say pooling and frames in full.
    """
    folder = study / f"m-{pooling}-f{frames}-{len(list(study.glob('*'))):08d}"
    folder.mkdir(parents=True)
    point = {"model": model, "pooling": pooling, "frames": frames, "visual_tokens": tokens, "stage": "projector"}
    point |= {"benchmark": benchmark, "split": benchmark.split("/")[1], "map_signature": f"{pooling} {frames}"}
    point["trained_recipe"] = recipe
    known = {"model": model, "benchmark": benchmark, "judge": judge, "seed": 0, "prompt": "p", **identity}
    (folder / "run.json").write_text(json.dumps({"fingerprint": folder.name, "point": point, "identity": known}))
    records = [
        {
            "id": f"q{i}",
            "clip": f"c{i // 4}",
            "task": tasks[i % len(tasks)],
            "status": "ok",
            "prediction": "x",
            "score": float(score),
        }
        for i, score in enumerate(right)
        if i not in drop
    ]
    (folder / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    metrics = {"score": float(np.mean(right)), "n": len(records), "n_failed": len(drop), "groups": {}, "tasks": {}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


@pytest.fixture
def right():
    rng = np.random.default_rng(0)
    return [(rng.random(80) < chance).astype(int) for chance in (0.5, 0.6, 0.8)]


def test_the_difference_is_that_of_the_same_samples(tmp_path, right):
    first, second = (write_point(tmp_path, f"p{i}", 4, 16, scores) for i, scores in enumerate(right[:2]))
    found = compare(first, second)
    clips = [f"c{i // 4}" for i in range(80)]
    assert found.difference == paired_difference(right[0].tolist(), right[1].tolist(), clips)
    assert found.dropped == 0
    assert found.flips is not None
    assert len(found.flips.first) == ((right[0] == 1) & (right[1] == 0)).sum()


@pytest.mark.parametrize(
    ("unlike", "said"),
    [({"benchmark": "b/val"}, "split b/test is not split b/val"), ({"judge": "j2"}, "judge none is not judge j2")],
)
def test_splits_and_judges_are_never_mixed(tmp_path, right, unlike, said):
    first = write_point(tmp_path, "none", 4, 16, right[0])
    second = write_point(tmp_path, "average", 4, 4, right[1], **unlike)
    with pytest.raises(ResultsError, match=said):
        compare(first, second)
    table = add_differences(load_study(tmp_path), "none", ALL)
    assert table.difference.isna().all()


def test_unequal_samples_are_refused_unless_told(tmp_path, right):
    first = write_point(tmp_path, "none", 4, 16, right[0])
    second = write_point(tmp_path, "average", 4, 4, right[1], drop=(3, 7, 70))
    with pytest.raises(ResultsError, match="3 only in the first, 0 only in the second"):
        compare(first, second)
    found = compare(first, second, intersect=True)
    assert (found.difference.n, found.dropped) == (77, 3)
    row = add_differences(load_study(tmp_path), "none", ALL).set_index("pooling").loc["average"]
    assert row.differs == "samples, tokens"
    assert row.difference is None


def test_two_views_and_one_correction_over_both(tmp_path, right):
    write_point(tmp_path, "none", 4, 64, right[0])
    write_point(tmp_path, "none", 16, 256, right[0])
    write_point(tmp_path, "space", 4, 16, right[1])
    write_point(tmp_path, "space", 16, 65, right[2])
    table = add_differences(load_study(tmp_path), "none", ALL).set_index(["pooling", "frames"])
    small, large = table.loc[("space", 4)], table.loc[("space", 16)]
    assert small.baseline.startswith("m-none-f4")
    assert small.differs == "tokens"
    assert small.iso_token_baseline is None  # no unpooled point has 16 tokens
    assert large.baseline.startswith("m-none-f16")
    assert large.iso_token_baseline.startswith("m-none-f4")  # 64 tokens and 65
    assert large.iso_token_differs == "frames"
    assert large.iso_token_difference == pytest.approx(right[2].mean() - right[0].mean())
    three = holm([small.p, large.p, large.iso_token_p])
    assert [small.p_holm, large.p_holm, large.iso_token_p_holm] == pytest.approx(three)
    assert table.loc[("none", 4)].baseline is None


def test_what_is_unequal_beside_pooling_is_said(tmp_path, right):
    write_point(tmp_path, "none", 4, 64, right[0])
    write_point(tmp_path, "space", 4, 64, right[1], prompt="other", dtype="bfloat16")
    row = add_differences(load_study(tmp_path), "none", ALL).set_index("pooling").loc["space"]
    assert row.differs == "prompt, dtype"
    assert row.iso_token_differs == "prompt, dtype"
    assert row.difference is not None


def test_seeds_are_taken_together(tmp_path):
    """Means over three seeds and their difference, against mean_over_seeds of the scores put together by hand."""
    rng = np.random.default_rng(1)
    right = {
        (pooling, seed): (rng.random(80) < chance).astype(int)
        for pooling, chance in (("none", 0.5), ("space", 0.7))
        for seed in (0, 1, 2)
    }
    for (pooling, seed), scores in right.items():
        write_point(tmp_path, pooling, 4, 64, scores, seed=seed)
    write_point(tmp_path, "once", 4, 64, right["none", 0])
    table = over_seeds(load_study(tmp_path), "none", ALL).set_index("pooling")
    assert set(table.index) == {"none", "space"}
    clips, order = [f"c{i // 4}" for i in range(80)], sorted(range(80), key=lambda i: f"q{i}")
    names = [clips[i] for i in order]
    by_seed = {p: {s: right[p, s][order] for s in range(3)} for p in ("none", "space")}
    wanted = mean_over_seeds(by_seed["space"], names)
    row = table.loc["space"]
    assert (row.seeds, row.n) == ("0, 1, 2", 80)
    assert [row.score, row.ci_low, row.ci_high] == pytest.approx([wanted.value, wanted.low, wanted.high])
    by_hand = {s: by_seed["space"][s] - by_seed["none"][s] for s in range(3)}
    difference = mean_over_seeds(by_hand, names, bounds=DIFFERENCE)
    assert [row.difference, row.difference_low, row.p] == pytest.approx(
        [difference.value, difference.low, difference.p]
    )
    assert row.p_holm == row.p  # the only comparison
    assert pd.isna(table.loc["none"].difference)


def test_an_interval_of_scores_stays_within_what_scores_can_be(tmp_path):
    """Seeds of 100, 100 and 90 %."""
    for seed, wrong in enumerate((0, 0, 8)):
        write_point(tmp_path, "none", 4, 64, np.array([0] * wrong + [1] * (80 - wrong)), seed=seed)
    row = over_seeds(load_study(tmp_path), "none", ALL).iloc[0]
    assert 0.5 < row.ci_low < row.score < row.ci_high < 1


def test_points_that_are_no_replicates_stay_apart(tmp_path, right):
    write_point(tmp_path, "none", 4, 64, right[0], seed=0)
    write_point(tmp_path, "none", 4, 64, right[1], seed=1, prompt="other")
    write_point(tmp_path, "space", 4, 64, right[0], seed=0)
    write_point(tmp_path, "space", 4, 64, right[1], seed=1, drop=(1,))
    write_point(tmp_path, "time", 4, 64, right[0], seed=0)
    write_point(tmp_path, "time", 4, 64, right[1], seed=0)
    assert over_seeds(load_study(tmp_path), "none", ALL).empty


def test_tasks_one_by_one_and_those_that_count_together(tmp_path, right):
    """Each row against paired_difference of just its samples; the flips of a task, counted."""
    tasks = ("image", "time", "other")
    folders = [
        write_point(tmp_path, f"p{i}", 4, 16, right[i], tasks=tasks, headline=["image", "other"]) for i in (0, 2)
    ]
    table = by_task_table(compare_by_task(*folders)).set_index("task")
    assert list(table.index) == ["all", "image", "other", "time"]
    clips = [f"c{i // 4}" for i in range(80)]
    for name, counted in {
        "all": ("image", "other"),
        "image": ("image",),
        "other": ("other",),
        "time": ("time",),
    }.items():
        places = sorted((i for i in range(80) if tasks[i % 3] in counted), key=lambda i: f"q{i}")
        one, two = (right[n][places].tolist() for n in (0, 2))
        wanted, row = paired_difference(one, two, [clips[i] for i in places]), table.loc[name]
        assert (row.n, row.clips, row.dropped) == (len(places), len({clips[i] for i in places}), 0)
        assert [row.difference, row.difference_low, row.difference_high, row.p] == pytest.approx(
            [wanted.value, wanted.low, wanted.high, wanted.p]
        )
        assert row.only_first - row.only_second == pytest.approx(wanted.value * len(places))
    assert pd.isna(table.loc["all"].p_holm)
    names = ["image", "other", "time"]
    assert list(table.loc[names].p_holm) == pytest.approx(holm(list(table.loc[names].p)))


def test_a_study_is_compared_on_what_counts_towards_its_score(tmp_path, right):
    for number, pooling in enumerate(("none", "space")):
        write_point(tmp_path, pooling, 4, 16, right[number], tasks=("image", "time"), headline=["image"])
    row = compared_study(tmp_path, "none").set_index("pooling").loc["space"]
    assert row.difference == pytest.approx((right[1] - right[0])[::2].mean())
    assert row.difference != pytest.approx((right[1] - right[0]).mean())


def test_a_study_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ResultsError, match="there is no study"):
        compared_study(tmp_path / "nothing", "none")
    with pytest.raises(ResultsError, match="holds no points"):
        compared_study(tmp_path, "none")


UNIFORM, RANDOM = ({"_target_": f"videopool.video.{name}Sampler", "num": 4} for name in ("Uniform", "Random"))
SHUFFLED = {"_target_": "videopool.pooling.ShuffleTime", "seed": 0}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"frames": UNIFORM}, {"frames": {**RANDOM, "seed": 1}}),  # another sampler of as many frames
        ({"frames": {**RANDOM, "seed": 5}}, {"frames": {**RANDOM, "seed": 6}}),  # not the point's seed
        ({"pooling": SHUFFLED}, {"pooling": {**SHUFFLED, "seed": 1}}),  # other settings under one label
        ({"stage": "projector", "judge": "j"}, {"stage": "encoder", "judge": "j"}),
    ],
)
def test_settings_that_tables_name_alike_are_not_lumped(tmp_path, right, first, second):
    """Tables say of frames how many, of a pooling its label; the identity says the rest."""
    write_point(tmp_path, "none", 4, 64, right[0], seed=0, **first)
    write_point(tmp_path, "none", 4, 64, right[1], seed=1, **second)
    assert over_seeds(load_study(tmp_path), "none", ALL).empty


def test_a_sampler_that_follows_the_seed_makes_replicates(tmp_path, right):
    for seed in (0, 1):
        identity = {"frames": {**RANDOM, "seed": seed}, "pooling": SHUFFLED}  # the pooling's seed stays as it is
        write_point(tmp_path, "none", 4, 64, right[seed], seed=seed, **identity)
    assert list(over_seeds(load_study(tmp_path), "none", ALL).seeds) == ["0, 1"]


@pytest.mark.parametrize(
    ("recipes", "change", "together"),
    [
        (("r", "r"), {}, True),
        (("r", "other"), {}, False),
        (("r", None), {}, False),
        ((None, None), {}, False),  # two checkpoints of which nothing is known
        (("r", "r"), {"alpha": 2.0}, False),
        (("r", "r"), {"projector": 0.5}, False),
    ],
)
def test_checkpoints_of_one_recipe_are_replicates(tmp_path, right, recipes, change, together):
    for seed, more in ((0, {}), (1, change)):
        adapter = {"identity": f"weights {seed}", "alpha": 4.0, **more}
        write_point(tmp_path, "none", 4, 64, right[seed], seed=seed, adapter=adapter, recipe=recipes[seed])
    assert len(over_seeds(load_study(tmp_path), "none", ALL)) == together


@pytest.mark.parametrize(
    ("ours", "others"),
    [({"model": "tuned"}, {"model": "m"}), ({"frames": {**RANDOM, "seed": "own"}}, {"frames": UNIFORM})],
)
def test_differences_over_seeds_are_those_of_one_model_and_sampler(tmp_path, ours, others):
    """The baseline pooling was run under another model, or sampler, too; its points stand first on disk."""
    rng = np.random.default_rng(2)
    scores = {}
    for pooling, more in (("none", others), ("none", ours), ("space", ours)):
        for seed in (0, 1):
            more = {**more, "frames": {**more["frames"], "seed": seed}} if "seed" in more.get("frames", ()) else more
            scores[pooling, seed] = rng.random(80) < 0.6
            write_point(tmp_path, pooling, 4, 64, scores[pooling, seed].astype(int), seed=seed, **more)
    table = over_seeds(load_study(tmp_path), "none", ALL)
    wanted = np.mean([scores["space", seed].mean() - scores["none", seed].mean() for seed in (0, 1)])
    assert table[table.pooling == "space"].difference.item() == pytest.approx(wanted)


def test_another_sampler_of_as_many_frames_is_said(tmp_path, right):
    write_point(tmp_path, "none", 4, 64, right[0], frames=UNIFORM)
    write_point(tmp_path, "space", 4, 64, right[1], frames={**RANDOM, "seed": 0})
    row = add_differences(load_study(tmp_path), "none", ALL).set_index("pooling").loc["space"]
    assert row.differs == "sampler"


def test_points_of_one_checkpoint_are_ordered_by_their_alpha(tmp_path):
    clips = made_study.write_clips(tmp_path / "data")
    answers = [made_study.record(n, True, -1.0, [1]) for n in range(6)]
    for alpha in (64.0, 8.0, None, 16.0):
        model = "mini" if alpha is None else f"mini alpha {alpha:g}"
        made_study.write_point(tmp_path / "s", answers, clips, model=model, lora_alpha=alpha)
    table = load_study(tmp_path / "s")
    assert list(table.model) == ["mini alpha 8", "mini alpha 16", "mini alpha 64", "mini"]
    assert "base" not in table


@pytest.mark.parametrize("order", [("a/test", "b/test", "c/test"), ("c/test", "b/test", "a/test")])
def test_each_benchmark_has_its_own_headline_and_its_own_family(tmp_path, order):
    """Three benchmarks of one study, of other headlines: differences are those of scores, whatever sorts first."""
    rng = np.random.default_rng(3)
    headlines = dict(zip(order, (["image"], ["time"], []), strict=True))
    right = {(b, p, s): (rng.random(80) < 0.6).astype(int) for b in order for p in ("none", "space") for s in (0, 1)}
    for (benchmark, pooling, seed), scores in right.items():
        told = {"benchmark": benchmark, "headline": headlines[benchmark], "seed": seed}
        write_point(tmp_path, pooling, 4, 16, scores, tasks=("image", "time"), **told)
    table, seeds = compared_study(tmp_path, "none"), over_seeds(load_study(tmp_path), "none")
    counted = dict(zip(order, (slice(0, None, 2), slice(1, None, 2), slice(None)), strict=True))
    for benchmark in order:
        rows = table[(table.benchmark == benchmark) & (table.pooling == "space")].sort_values("seed")
        gaps = [(right[benchmark, "space", s] - right[benchmark, "none", s])[counted[benchmark]].mean() for s in (0, 1)]
        assert list(rows.difference) == pytest.approx(gaps)
        family = table[table.benchmark == benchmark]
        # Both views compare a point with the same one, as they do the baseline's under another seed.
        pairs = family[["point", "baseline", "p"]].dropna().drop_duplicates()
        assert list(family.p_holm.dropna().astype(float)) == pytest.approx(holm(list(pairs.p)))
        row = seeds[(seeds.benchmark == benchmark) & (seeds.pooling == "space")].iloc[0]
        assert row.difference == pytest.approx(np.mean(gaps))
        assert row.p_holm == row.p


def test_points_of_other_headlines_are_not_compared(tmp_path, right):
    first = write_point(tmp_path, "none", 4, 16, right[0], tasks=("image", "time"), headline=["image"])
    second = write_point(tmp_path, "space", 4, 16, right[1], tasks=("image", "time"), headline=["time"])
    with pytest.raises(ResultsError, match="headline"):
        compare(first, second)
    row = compared_study(tmp_path, "none").set_index("pooling").loc["space"]
    assert row.difference is None
    assert row.differs == "headline"


def test_of_few_clips_there_is_no_interval_and_no_p_anywhere(tmp_path, right):
    for pooling, scores in (("none", right[0]), ("space", right[2])):
        for seed in (0, 1):
            write_point(tmp_path, pooling, 4, 16, scores[:36], seed=seed)  # on nine clips
    table, seeds = compared_study(tmp_path, "none"), over_seeds(load_study(tmp_path), "none")
    for row in (table[table.pooling == "space"].iloc[0], seeds[seeds.pooling == "space"].iloc[0]):
        assert row.difference == pytest.approx((right[2] - right[0])[:36].mean())
        assert row[["difference_low", "difference_high", "p", "p_holm"]].isna().all()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_rows_of_a_table_are_those_of_pandas(count):
    values = {
        "text": ["a", None, "ü"], "number": [1, 2, 3], "score": [0.5, math.nan, 1.0], "flag": [True, False, True],
        "mixed": [1, "b", None], "list": [[1], [], None], "empty": [None] * 3, "whole": pd.array([1, None, 2], "Int64"),
        "choice": pd.Categorical(["x", "y", "x"]),
    }  # fmt: skip
    table = pd.DataFrame(values).iloc[:count]
    expected = table.to_dict("records")
    assert str(rows_of(table)) == str(expected)
    assert [list(map(type, row.values())) for row in rows_of(table)] == [list(map(type, r.values())) for r in expected]
