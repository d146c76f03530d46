"""Benchmarks: samples from annotations, prompts, scoring."""

from videopool.benchmarks.benchmark import (
    Benchmark,
    Sample,
    contradictions,
    missing_clips,
    repeated_answers,
    require_clips,
)
from videopool.benchmarks.errors import BenchmarkError
from videopool.benchmarks.lmms_task import load_lmms_task
from videopool.benchmarks.mvbench import load_mvbench
from videopool.benchmarks.prompts import Prompt
from videopool.benchmarks.released import load_released
from videopool.benchmarks.sheets import load_clips, load_qa_pairs, load_qa_sheet
from videopool.benchmarks.vcgbench import load_vcgbench
from videopool.benchmarks.video_mme import load_video_mme

__all__ = [
    "Benchmark", "BenchmarkError", "Prompt", "Sample", "contradictions", "load_clips", "load_lmms_task", "load_mvbench",
    "load_qa_pairs", "load_qa_sheet", "load_released", "load_vcgbench", "load_video_mme", "missing_clips",
    "repeated_answers", "require_clips",
]  # fmt: skip
