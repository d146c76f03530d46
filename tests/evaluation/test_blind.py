"""The blind control through real runs: no visual tokens, from the prefix to the report."""

import json
from collections import defaultdict

import pandas as pd
import pytest

from videopool.norms import load_norms
from videopool.results import load_study


def asked_and_answered(folder):
    """Log-probabilities of options by what was asked."""
    found = defaultdict(list)
    for line in (folder / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        found[record["question"], tuple(record["options"])].append((record["clip"], record["option_logprobs"]))
    return found


def test_answers_follow_from_the_words_alone(videopool, tmp_path):
    done = videopool(
        "-m",
        "pooling=none,blind",
        "frames.num=1,2",
        "study=s",
        "benchmark.limit=null",
        "+benchmark.tasks=[existence,scene,relation_vertical,attribute_shape]",
        env={"VIDEOPOOL_FIGURES": "svg"},
    )
    assert "Traceback" not in done.stderr
    study = tmp_path / "results" / "s"
    table = load_study(study).set_index(["pooling", "frames"])
    assert set(table.status) == {"complete"}
    assert set(table.loc["blind", "visual_tokens"]) == {0}
    assert set(table.loc["blind", "prefill_gflops"]) == {0}
    one, two = (study / name for name in table.loc["blind", "point"])
    words = asked_and_answered(one)
    several = [told for told in words.values() if len({clip for clip, _ in told}) > 1]
    assert several
    for asked, told in [*words.items(), *asked_and_answered(two).items()]:
        for _, scores in told:  # whatever the clip shows, and however many frames it has
            assert scores == pytest.approx(words[asked][0][1], abs=1e-3)
    sweep = pd.read_csv(study / "sweep.csv").set_index(["pooling", "frames"])
    assert sweep.loc[("blind", 2), "difference"] < -0.3  # minus no pooling at the same frames, on the same samples
    assert list((study / "figures").glob("score_image_by_visual_tokens*.svg"))


def test_generating_norms_and_costs(videopool, tmp_path):
    small = ["pooling=blind", "frames.num=1", "benchmark.limit=2"]
    videopool(*small, "benchmark.scoring=generate", "study=g")
    (folder,) = (path.parent for path in (tmp_path / "results" / "g").glob("*/metrics.json"))
    assert json.loads((folder / "metrics.json").read_text())["n_failed"] == 0
    videopool("job=norms", *small, "job.stages=[projector,pooled,llm.2]", "study=n")
    (folder,) = (path.parent for path in (tmp_path / "results" / "n").glob("*/norms.json"))
    stages = load_norms(folder).numbers["stages"]
    assert stages["projector"]["mean"] > 0
    for stage in ("pooled", "llm.2"):
        assert (stages[stage]["tokens"], stages[stage]["mean"]) == (0, None)
    planned = videopool("job=plan", *small)
    assert "0 visual tokens" in planned.stdout
