"""Benchmarks: annotations to samples, prompts, scoring."""

from videopool.benchmarks.benchmark import Benchmark, Sample
from videopool.benchmarks.clips import load_clips
from videopool.benchmarks.errors import BenchmarkError
from videopool.benchmarks.mvbench import load_mvbench
from videopool.benchmarks.prompts import Prompt

__all__ = ["Benchmark", "BenchmarkError", "Prompt", "Sample", "load_clips", "load_mvbench"]
