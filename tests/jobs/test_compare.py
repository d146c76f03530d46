"""job=compare on points that were really run."""

import json

import pytest

from videopool.results import load_study, paired_difference
from videopool.results.study import scores_by_sample


@pytest.fixture(scope="module")
def study(tmp_path_factory, data_dir, forked):
    """Two poolings of one study."""
    root = tmp_path_factory.mktemp("compare")
    words = ["-m", "pooling=none,adaptive_1x6x6", "frames.num=2", "study=two"]
    small = ["benchmark.clips=60", "benchmark.per_task=8", "logger=none", "job.workers=0", "benchmark.limit=4"]
    small.append("+benchmark.tasks=[existence,scene,event_order]")
    done = forked.run([*words, *small, f"results_dir={root}", f"data_dir={data_dir}"], root)
    assert done.returncode == 0, done.stderr
    return root


def test_tables_flips_and_file(study, videopool):
    table = load_study(study / "two")
    names = [table[table.pooling == p].point.iloc[0] for p in ("none", "adaptive 1x6x6")]
    done = videopool(
        "job=compare", f"results_dir={study}", "study=two", f"points=[{names[0]},mini-adaptive]", "job.show=1"
    )
    content = json.loads((study / "two" / f"compare-{names[0]}-{names[1]}.json").read_text())
    scores = [scores_by_sample(study / "two" / name) for name in names]
    tasks = sorted({value[2] for value in scores[0].values()})
    assert set(content["comparisons"]) == {"all", *tasks}
    for task in (tasks[0], "event_order"):
        ids = sorted(i for i, value in scores[0].items() if value[2] == task)
        wanted = paired_difference(*([s[i][0] for i in ids] for s in scores), [scores[0][i][1] for i in ids])
        found = content["comparisons"][task]
        assert (found["difference"], found["p"], found["n"]) == (wanted.value, wanted.p, len(ids))
        assert len(found["only_first"]) - len(found["only_second"]) == pytest.approx(wanted.value * len(ids))
    assert content["differs"] == ["tokens"]
    assert "McNemar" in done.stdout
    first = [line.strip().split("  ")[0] for line in done.stdout.splitlines()]
    image, time = first.index("main group (image)"), first.index("time tasks")
    assert image < first.index("scene") < time < first.index("event_order"), "tasks below their groups"
    assert "also different: tokens" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["points=[mini]"], "name two points"),
        ([], "name two points"),
        (["points=[mini,nothing]"], "points: mini: 2 complete points begin so"),
        (["points=[mini-none,nothing]"], "points: nothing: no complete point begins so"),
        (["points=[mini-none,mini-none]", "intersect=maybe"], "true or false"),
    ],
)
def test_wrong_names_are_one_line(study, videopool, words, said):
    early = 2 if "intersect=maybe" in words else 1  # refused with the configuration
    done = videopool("job=compare", f"results_dir={study}", "study=two", *words, check=early)
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
