"""Video-MME (arXiv 2405.21075): a table with one row per question, or JSON with one object per video."""

from pathlib import Path
from typing import Any

from videopool.benchmarks.benchmark import Benchmark
from videopool.benchmarks.errors import check_choice
from videopool.benchmarks.released import load_released

# By breakdown, the columns of the two released forms.
TASKS = {
    "duration": "duration|duration_category",
    "domain": "domain|video_category",
    "sub_category": "sub_category|video_subcategory",
    "task_type": "task_type",
}


def load_video_mme(
    root: str | Path,
    annotations: str | Path,
    id: str = "video_mme",
    split: str = "test",
    tasks: str = "duration",
    **settings: Any,
) -> Benchmark:
    """Read questions with videoID or video_id, question_id, question, options or choices, and answer (a letter).

    They have duration, domain and sub_category; or else stand in a list `questions` of their video, which has
    duration_category, video_category and video_subcategory. `settings` are load_released's. Raises BenchmarkError as it
    does.
    """
    check_choice("benchmark.tasks", tasks, TASKS)
    columns = {"video_name": "videoID|video_id", "question_id": "question_id", "question_type": TASKS[tasks]}
    settings = {"inner": "questions", "answers": "letter", **settings}
    return load_released(root, annotations, id, split, columns, **settings)
