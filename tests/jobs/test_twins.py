"""A pooling that changes nothing, or computes what another point does, is said to do so before it runs."""

import csv

import pytest


@pytest.fixture(scope="module")
def quick():
    return ["benchmark.limit=1", "job.workers=0"]


def test_a_sweep_says_so_before_the_second_twin_runs(videopool, quick):
    done = videopool("-m", "pooling=none,adaptive,average", "frames.num=1", "study=s", *quick)
    lines = (done.stderr + done.stdout).splitlines()
    assert "videopool: adaptive 16x12x12 changes nothing on this model's grid (1 x 12 x 12): it is no pooling" in lines
    twin = next(line for line in lines if "adaptive 16x12x12: the same map as mini-none-f1-" in line)
    assert twin.endswith(", which is done")
    again = videopool("-m", "pooling=none,adaptive,average", "frames.num=1", "study=s", *quick)
    assert "same map as mini" not in again.stderr  # what is finished does not run


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["pooling=adaptive", "pooling.shape=[16,999,999]", "frames.num=4"], "16x999x999 changes nothing"),
        (["pooling=adaptive_Tx6x6", "frames.num=4"], None),
        (["pooling=average", "frames.num=1"], "average time changes nothing on this model's grid (1 x 12 x 12)"),
        (["pooling=adaptive", "pooling.stage=encoder", "frames.num=2"], "(2 x 12 x 12): it is no pooling"),
        (["pooling=none", "frames.num=2"], None),
    ],
    ids=str,
)
def test_inspect_and_plan_say_it(videopool, words, line):
    for job in ("inspect", "plan"):
        done = videopool(f"job={job}", *words)
        told = " ".join((done.stderr + done.stdout).split())
        assert (line or "changes nothing") in told if line else "changes nothing" not in told


def test_a_plan_names_the_twin(videopool, tmp_path):
    words = ["pooling=adaptive", "pooling.shape=[8,6,6],[16,6,6],[4,6,6]", "frames.num=8", "study=p"]
    videopool("-m", "job=plan", *words)
    with (tmp_path / "results" / "p" / "plan.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["note"] for row in rows] == ["", "the same map as mini-adaptive-8x6x6-f8", ""]


def test_show_says_which_rows_are_the_same(videopool):
    shown = "job.poolings=[adaptive,adaptive_4x6x6,adaptive_Tx6x6]"
    told = videopool("job=show", shown, "frames.num=4", "study=show").stderr
    assert "adaptive 16x12x12 changes nothing" in told
    assert "adaptive Tx6x6: the same map as adaptive 4x6x6" in told


def test_points_are_named_where_two_are_asked_for(videopool, quick):
    videopool("-m", "pooling=none,average", "frames.num=2", "study=c", *quick)
    told = videopool("job=compare", "study=c", check=1).stderr
    assert "points=[A,B]" in told
    assert "mini-none-f2-" in told
    assert "mini-average-time-f2-" in told
    done = videopool("job=report", "study=c", "job.pair=[mini-av,mini-none]", "baseline=nonsense")
    assert "baseline=nonsense: no pooling and no point of the study is named so; its poolings are none" in done.stderr
    told = videopool("job=report", "study=c", "job.pair=[mini-nothing,mini-none]", check=1).stderr
    assert "job.pair: mini-nothing: no complete point begins so" in told
