"""Peaks of memory: of a pretended accelerator, of this process; in metrics, tables and beside a plan."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from videopool.evaluation.run import evaluate
from videopool.planning.cost import cost_of, plan_table
from videopool.reports.columns import study_columns, table_of
from videopool.results import load_study, manifest
from videopool.results.comparison import add_differences


class Pretended:
    """As torch.cuda with two devices, of which a point takes 3 GB and 5 GB after a peak of 90 GB before it."""

    def __init__(self):
        self.peaks = [90_000_000_000, 90_000_000_000]

    def is_available(self):
        return True

    is_initialized = is_available

    def device_count(self):
        return 2

    def get_device_name(self):
        return "pretended"

    def reset_peak_memory_stats(self, device):
        self.peaks[device] = 3_000_000_000 + 2_000_000_000 * device

    def max_memory_allocated(self, device):
        return self.peaks[device]

    def max_memory_reserved(self, device):
        return self.peaks[device] + 1_000_000_000


def test_a_device_peaks_are_in_metrics_table_and_plan(hydra_conf, tmp_path, data_dir, monkeypatch):
    words = [f"results_dir={tmp_path}", f"data_dir={data_dir}", "study=s", "pooling=average", "frames.num=2"]
    small = ["logger=none", "job.workers=0", "benchmark.clips=60", "benchmark.per_task=8", "benchmark.limit=1"]
    pretended = SimpleNamespace(cuda=Pretended(), get_num_threads=torch.get_num_threads)
    before = cost_of(hydra_conf("job=plan", *words, *small[2:]))
    monkeypatch.setattr(manifest, "torch", pretended)
    evaluate(hydra_conf(*words, *small))
    (metrics,) = (json.loads(path.read_text()) for path in (tmp_path / "s").glob("*/metrics.json"))
    assert (metrics["device_peak_bytes"], metrics["device_reserved_bytes"]) == (5e9, 6e9)
    assert metrics["peak_memory_bytes"] > 1e8

    frame = add_differences(load_study(tmp_path / "s"), "none")
    assert frame.device_peak_bytes.tolist() == [5e9]
    assert {"gpu_gb", "gpu_reserved_gb"} <= study_columns(frame).keys()
    (row,) = table_of(frame, ["gpu_gb", "gpu_reserved_gb"]).rows
    assert [cell.text for cell in row.cells] == ["5.00", "6.00"]

    assert before["seen_memory_gb"] is None
    after = cost_of(hydra_conf("job=plan", *words, *small[2:]))
    pooled = {key: after[key] for key in ("seen_pool_ms", "seen_pool_mb")}
    assert after == {**before, "seen_memory_gb": 5.0, **pooled}
    assert pooled["seen_pool_ms"] == pytest.approx(1000 * metrics["pool_seconds"])
    assert pooled["seen_pool_mb"] == metrics["pool_bytes"] / 1e6 > 0
    other = cost_of(hydra_conf("job=plan", *words, "frames.num=4"))
    assert other["seen_memory_gb"] is None
    with_peak, without = ([each.text for each in plan_table([row]).table.headings] for row in (after, before))
    assert [text for text in with_peak if text not in without] == [
        "seen GB", "seen pooling ms per clip", "seen pooling kB per clip",
    ]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="resets the peak through /proc")
def test_a_processs_peak_is_since_the_last_reset():
    block = bytearray(400_000_000)
    high = manifest.peak_memory()["peak_memory_bytes"]
    del block
    manifest.watch_memory()
    low = manifest.peak_memory()["peak_memory_bytes"]
    assert 3e8 < high - low < 6e8
    assert set(manifest.peak_memory()) == {"peak_memory_bytes"}
