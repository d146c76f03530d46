"""Positions of visual tokens and pruning inside the language model, through real points."""

import pandas as pd
import pytest
import torch

from conftest import TASKS
from plain_reading import plainly
from videopool.config.errors import ConfigError
from videopool.evaluation import evaluator
from videopool.evaluation.run import evaluate, point_of
from videopool.models import load_backbone
from videopool.models.sizes import Pruning
from videopool.results import fingerprint, load_study
from videopool.results.study import point_records

SMALL = [
    "benchmark.clips=60",
    "benchmark.per_task=8",
    "benchmark.limit=2",
    "logger=none",
    "job.workers=0",
    "frames.num=2",
    TASKS,
]
CHOSEN = ["pooling=vidcom2", "pooling.tokens=40"]


@pytest.fixture
def read(hydra_conf, tmp_path, data_dir, monkeypatch):
    """Evaluates a point in this process; gives what the language model was given, and the records."""

    def call(*words):
        given, prefill, by_question = [], evaluator.prefill_clips, evaluator.by_question

        def told(backbone, before, clips, pruning):
            ends = torch.tensor(clips.ends)[:, None]
            places = None if clips.positions is None else torch.cat([clips.positions, ends], dim=1)
            given.append([before[0], clips.states, places, pruning])
            return prefill(backbone, before, clips, pruning)

        def asked(work, backbone, prefix, texts, chunk):
            given[-1].append(texts)
            return by_question(work, backbone, prefix, texts, chunk)

        monkeypatch.setattr(evaluator, "prefill_clips", told)
        monkeypatch.setattr(evaluator, "by_question", asked)
        config = hydra_conf(*SMALL, *words, f"results_dir={tmp_path}/results", f"data_dir={data_dir}")
        folder = evaluate(config).folder
        monkeypatch.undo()
        return given, point_records(folder)

    return call


def test_records_are_those_of_one_sequence_at_a_time(read):
    """The tokens are those of the grid at their places, and options as likely as in a plain pass over both."""
    whole, _ = read("pooling=none")
    given, records = read(*CHOSEN, "positions=original", "pruning=fastv", "pruning.layer=2", "pruning.share=0.3")
    plain = load_backbone("videopool:shapes/mini_llava", attention="eager")
    pruning, found = Pruning(2, 0.3), iter(records)
    for (_, grid, *_), (before, tokens, places, by, questions) in zip(whole, given, strict=True):
        assert by == pruning
        assert tokens.shape[1:] == (40, plain.shape.dim)
        assert places.shape == (len(tokens), 41)
        assert set(places[:, -1].tolist()) == {2 * 144}
        assert bool((places.diff() > 0).all())
        torch.testing.assert_close(tokens, torch.take_along_dim(grid, places[:, :-1, None], dim=1))
        for clip, row in enumerate(questions):
            for question in row:
                record = next(found)
                logits = plainly(plain, before, tokens[clip], question, places[clip], pruning, len(question))[-1]
                count = len(record["options"])
                letters = plain.next_token_ids("(", "ABCDEFGH"[:count])
                expected = logits.log_softmax(-1)[letters].tolist()
                assert record["option_logprobs"] == pytest.approx(expected, abs=2e-4)
                assert record["visual_tokens"] == 40
    assert next(found, None) is None


@pytest.mark.parametrize("scoring", ["cloze", "generate"])
def test_all_ways_of_answering_take_pruned_prefixes(read, scoring):
    """A share of 1 drops nothing: the same answers as without pruning; a small one gives others."""
    words = [*CHOSEN, f"benchmark.scoring={scoring}", "benchmark.max_new_tokens=4"]
    usual, all_stay, few = (
        read(*words, *more)[1]
        for more in (
            [],
            ["pruning=fastv", "pruning.share=1"],
            ["pruning=fastv", "pruning.layer=1", "pruning.share=0.03"],
        )
    )
    key = "option_logprobs" if scoring == "cloze" else "prediction"
    assert [record["id"] for record in usual] == [record["id"] for record in all_stay]
    for one, other in zip(usual, all_stay, strict=True):
        assert one[key] == (pytest.approx(other[key], abs=2e-4) if scoring == "cloze" else other[key])
    assert [record[key] for record in usual] != [record[key] for record in few]


def test_a_sweep_over_positions(videopool, tmp_path):
    """Points have names and columns of their own, and are no twins."""
    videopool("-m", *CHOSEN, "frames.num=2", "positions=contiguous,original", "pruning=fastv", "study=s")
    study = tmp_path / "results" / "s"
    table = load_study(study)
    assert list(zip(table.positions, table.pruning, strict=True)) == [
        ("contiguous", "fastv 2 0.5"), ("original", "fastv 2 0.5"),
    ]  # fmt: skip
    assert table.point.str.rsplit("-", n=1).str[0].tolist() == [
        "mini-vidcom2-40-f2-fastv-2-0.5", "mini-vidcom2-40-f2-original-fastv-2-0.5",
    ]  # fmt: skip
    assert table.same_map_as.isna().all()
    assert table.prefill_gflops.nunique() == 1
    assert list(pd.read_csv(study / "sweep.csv").positions) == ["contiguous", "original"]
    assert "original positions" in (study / "report.html").read_text()


def test_the_usual_way_is_not_hashed(hydra_conf, data_dir):
    def hashed(*words):
        return fingerprint(point_of(hydra_conf(*SMALL, *CHOSEN, *words, f"data_dir={data_dir}")).identity())

    usual = hashed()
    assert hashed("positions=contiguous", "pruning=none") == usual
    others = [
        hashed(*words)
        for words in (
            ["positions=original"],
            ["pruning=fastv"],
            ["pruning=fastv", "pruning.layer=1"],
            ["pruning=fastv", "pruning.share=0.4"],
        )
    ]
    assert len({usual, *others}) == 5


@pytest.mark.parametrize("word", ["positions=original", "pruning=fastv"])
def test_an_api_takes_neither(hydra_conf, word):
    with pytest.raises(ConfigError, match="a model behind an API"):
        point_of(hydra_conf("model=api", "model.base_url=http://localhost:1/v1", "model.model=m", word))
