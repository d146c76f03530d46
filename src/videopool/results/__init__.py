"""Results: records, fingerprints, statistics, tables."""

from videopool.results.all_records import load_records
from videopool.results.comparison import (
    Comparison,
    Flips,
    add_differences,
    by_task_table,
    compare,
    compare_by_task,
    compared_study,
)
from videopool.results.errors import PointBusy, PointFailed, ResultsError
from videopool.results.fingerprint import fingerprint, without_seed
from videopool.results.metrics import metrics_of
from videopool.results.point import PointFolder, is_claimed, is_complete
from videopool.results.records import RecordLog, ReplyStore, read_records, write_records
from videopool.results.replicates import over_seeds
from videopool.results.statistics import Estimate, mean_interval, paired_difference
from videopool.results.study import add_pooled_shapes, load_study, point_records

__all__ = [
    "Comparison", "Estimate", "Flips", "PointBusy", "PointFailed", "PointFolder", "RecordLog", "ReplyStore",
    "ResultsError", "add_differences", "add_pooled_shapes", "by_task_table", "compare", "compare_by_task",
    "compared_study", "fingerprint", "is_claimed", "is_complete", "load_records", "load_study", "mean_interval",
    "metrics_of", "over_seeds", "paired_difference", "point_records", "read_records", "without_seed", "write_records",
]  # fmt: skip
