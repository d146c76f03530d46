"""What a point's tokens and its pooling cost: in metrics, sweep.csv, tables and plans."""

import json
import time
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from conftest import TASKS
from videopool.evaluation.evaluator import bytes_of
from videopool.evaluation.run import evaluate, point_of
from videopool.inference.reader import ClipReader
from videopool.models.cost import prefill_flops
from videopool.planning.cost import cost_of, plan_table, with_twins
from videopool.pooling import Pooling, PoolingContext
from videopool.reports.columns import table_of, with_content
from videopool.results import load_study
from videopool.results.comparison import add_differences
from videopool.results.statistics import paired_difference

FEW = [
    "logger=none",
    "job.workers=0",
    "benchmark.clips=60",
    "benchmark.per_task=8",
    "benchmark.limit=1",
    "frames.num=3",
    TASKS,
]
COUNTS = ["mean_tokens", "least_tokens", "most_tokens"]


@pytest.fixture
def ran(hydra_conf, tmp_path, data_dir):
    """Runs points of one study in this process: the words of each -> the point's folder."""

    def run(*words):
        config = hydra_conf(f"results_dir={tmp_path}", f"data_dir={data_dir}", "study=s", *FEW, *words)
        evaluate(config)
        (folder,) = tmp_path.glob(f"s/{point_of(config).name}-*/")
        return folder

    return run


def contents(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    return metrics, records


def test_real_numbers_of_clips_that_vary(ran, hydra_conf, tmp_path):
    """Of a threshold form the announced number is a bound; tables and comparisons have the mean of the real ones."""
    words = ["pooling=scissor", "pooling.share=null", "pooling.tau=0.97"]
    metrics, records = contents(ran(*words))
    ran("pooling=none")
    counts = {record["clip"]: record["visual_tokens"] for record in records}
    assert all(record["visual_tokens"] == counts[record["clip"]] for record in records)
    numbers = list(counts.values())
    assert 1 <= min(numbers) < max(numbers) < 432
    mean = sum(numbers) / len(numbers)
    assert (metrics["tokens_least"], metrics["tokens_most"]) == (min(numbers), max(numbers))
    assert metrics["tokens_mean"] == metrics["layer_mean_tokens"] == pytest.approx(mean)
    shape = point_of(hydra_conf("pooling=none")).shape
    flops = sum(prefill_flops(shape, number) for number in numbers) / len(numbers)

    frame = add_differences(load_study(tmp_path / "s"), "none").set_index("pooling", drop=False)
    row, whole = frame.loc["scissor"], frame.loc["none"]
    assert row.visual_tokens == pytest.approx(mean)
    assert row.prefill_gflops == pytest.approx(flops / 1e9)
    assert row.iso_token_difference is None, "their tokens are not equal, whatever the bound"
    assert (row.baseline, whole.visual_tokens, whole.tokens_mean, whole.separators) == (whole.point, 432, 432, 0)
    assert set(COUNTS) <= set(with_content(frame)), "where clips differ"
    assert not {*COUNTS, "layer_tokens", "separators"} & set(with_content(frame[frame.pooling == "none"]))
    (cells,) = table_of(frame[frame.pooling == "scissor"], COUNTS).rows
    assert [cell.text for cell in cells.cells] == [f"{mean:.1f}", str(min(numbers)), str(max(numbers))]

    planned = cost_of(hydra_conf("job=plan", f"results_dir={tmp_path}", "study=s", *FEW[2:], *words))
    assert planned["visual_tokens"] == planned["layer_mean_tokens"] == 432
    assert with_twins([planned])[0]["note"] == "clips differ in their tokens: 432 are the most"
    assert planned["seen_pool_ms"] == pytest.approx(1000 * metrics["pool_seconds"])
    headings = [heading.text for heading in plan_table([planned]).table.headings]
    assert "seen pooling ms per clip" in headings
    assert not {"separators", "layer-mean tokens"} & set(headings), "all as the visual tokens say"


def test_pooling_and_saliency_have_seconds_of_their_own(ran):
    first, records = contents(ran("pooling=visionzip", "pooling.tokens=40"))
    seconds = first["seconds"]
    assert {"vision", "saliency", "project", "pool", "prefill"} <= seconds.keys()
    clips = len({record["clip"] for record in records})
    assert first["pool_seconds"] * clips == pytest.approx(seconds["pool"], abs=1e-3)
    assert first["saliency_seconds"] == pytest.approx(seconds["saliency"], abs=1e-3)
    assert 0 < seconds["saliency"] < seconds["vision"]
    assert first["pool_bytes"] > 0
    metrics, _ = contents(ran("pooling=none"))
    assert metrics["pool_bytes"] == 0
    assert "saliency" not in metrics["seconds"]


class Held(Pooling):
    """Makes one tensor of the grid's size, another of half, drops the first, and returns a tenth."""

    def forward(self, grid, context=None):
        whole = grid * 2
        half = whole[:, :, :5] + 1
        del whole
        assert half.shape[2] == 5
        return (half.flatten(1, 3)[:, :10] * 2).clone()

    def num_tokens(self, frames, height, width):
        return 10


def test_bytes_are_the_most_alive_at_once():
    grid = torch.zeros(1, 1, 10, 10, 8)
    assert bytes_of(Held(), grid, PoolingContext()) == grid.nbytes * 3 / 2
    with torch.inference_mode():
        inner = torch.zeros(1, 1, 10, 10, 8)
        assert bytes_of(Held(), inner, PoolingContext()) == grid.nbytes * 3 / 2


def test_a_block_within_another_counts_for_itself():
    reader = SimpleNamespace(seconds=defaultdict(float), backbone=SimpleNamespace(device=torch.device("cpu")))
    started = time.perf_counter()
    with ClipReader.clock(reader, "outer"):
        time.sleep(0.02)
        with ClipReader.clock(reader, "inner"):
            time.sleep(0.05)
    spent = time.perf_counter() - started
    assert sum(reader.seconds.values()) == pytest.approx(spent, abs=0.005)
    assert reader.seconds["inner"] >= 0.05
    assert 0.02 <= reader.seconds["outer"] < spent - 0.05


@pytest.mark.parametrize("baseline", ["even", "even 0.5"])
def test_a_baseline_without_its_budget_is_the_one_of_equal_tokens(ran, tmp_path, baseline):
    for name, share in (("even", 0.5), ("even", 0.25), ("evs", 0.25)):
        ran(f"pooling={name}", f"pooling.share={share}")
    frame = add_differences(load_study(tmp_path / "s"), baseline).set_index("pooling")
    partner = {"even": "even 0.25", "even 0.5": "even 0.5"}[baseline]
    row = frame.loc["evs 0.25"]
    assert row.baseline == frame.loc[partner].point
    assert row.iso_token_baseline == (frame.loc[partner].point if baseline == "even" else None)
    rows = [[json.loads(line) for line in (tmp_path / "s" / point / "records.jsonl").read_text().splitlines()]
            for point in (row.point, row.baseline)]  # fmt: skip
    first, second = ([r for r in own if r["task"] in headline_tasks(tmp_path / "s" / row.point)] for own in rows)
    expected = paired_difference(
        [r["score"] for r in first],
        [r["score"] for r in second],
        [r["clip"] for r in first],
        [r["task"] for r in first],
    )
    assert row.difference == pytest.approx(expected.value)


def headline_tasks(folder):
    return json.loads((folder / "run.json").read_text())["identity"]["headline"]
