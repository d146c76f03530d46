"""The columns of a study's tables: what each holds, its heading and its worth, and which are chosen."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import wraps
from typing import TypeVar
from weakref import ref

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from videopool.config.build import jsonable
from videopool.config.errors import ConfigError
from videopool.errors import did_you_mean
from videopool.reports.cells import (
    Cell,
    Column,
    Fields,
    Heading,
    TextTable,
    column,
    difference_cell,
    missing,
    number_cell,
    p_cell,
    plain_cell,
    share_cell,
    text_table,
)  # fmt: skip
from videopool.results.study import rows_of

COMPLETE = "complete"
# Columns that identify a point, and their words in a sentence. A constant one is left out of the table.
SETTINGS = {
    "model": "model {}",
    "benchmark": "benchmark {}",
    "split": "split {}",
    "stage": "stage {}",
    "positions": "{} positions",
    "layout": "layout {}",
    "pruning": "{}",
    "lora_alpha": "alpha {:g}",
    "judge": "judge {}",
    "prompt": "prompt {}",
    "seed": "seed {:g}",
    "trained_pooling": "trained under {}",
    "training_clips": "{:g} training clips",
    "training_images": "{:g} training images",
    "training_steps": "{:g} training steps",
    "setting": "{}",
}
USUAL = ("contiguous", "frames")  # positions and layout without words
WORDS = {"lora_alpha": "alpha"}  # headings of settings that are not their names
# Columns of numbers by name: the column of sweep.csv, heading, decimals, factor, rank (see Heading).
NUMBERS = {
    "frames": ("frames", "frames", 0, 1, 3),
    "tokens": ("visual_tokens", "visual tokens", 0, 1, 4),
    "separators": ("separators", "separators", 0, 1, 15),
    "mean_tokens": ("tokens_mean", "mean tokens", 1, 1, 6),
    "least_tokens": ("tokens_least", "least tokens", 0, 1, 6),
    "most_tokens": ("tokens_most", "most tokens", 0, 1, 6),
    "layer_tokens": ("layer_mean_tokens", "layer-mean tokens", 1, 1, 6),
    "gflops": ("prefill_gflops", "prefill GFLOPs per clip", 2, 1, 6),
    "pool_ms": ("pool_seconds", "pooling ms per clip", 2, 1000, 15),
    "pool_mb": ("pool_bytes", "pooling MB per clip", 2, 1e-6, 15),
    "saliency_seconds": ("saliency_seconds", "saliency s", 2, 1, 20),
    "n": ("n", "n", 0, 1, 10),
    "unreadable": ("n_failed", "unreadable", 0, 1, 9),
    "unparsed": ("n_unparsed", "unparsed", 0, 1, 11),
    "unscored": ("n_unscored", "unscored", 0, 1, 11),
    "words": ("answer_words", "words per answer", 1, 1, 12),
    "training_tflops": ("training_tflops", "training TFLOPs", 1, 1, 13),
    "ms_per_sample": ("seconds_per_sample", "model ms per sample", 1, 1000, 19),
    "shared_seconds": ("shared_seconds", "shared s", 1, 1, 20),
    "gpu_gb": ("device_peak_bytes", "peak GPU memory GB", 2, 1e-9, 17),
    "gpu_reserved_gb": ("device_reserved_bytes", "reserved GPU memory GB", 2, 1e-9, 22),
}
REAL = ("mean_tokens", "least_tokens", "most_tokens")  # of visual tokens, by clip
# Comparisons with the baseline: prefix of their columns, end of their names.
VIEWS = {"": "", "iso_token_": "_at_equal_tokens"}
LEAST_WORTH = 16  # rank of the last columns on the page
# Of every table, in this order.
DEFAULT = ("pooling", "frames", "tokens", "score", "difference")
NAMES = (
    "point", "pooling", "status", *SETTINGS, "frames", "tokens", "separators", *REAL, "layer_tokens", "score",
    "difference", "difference_at_equal_tokens", "gflops", "pool_ms", "pool_mb", "saliency_seconds",
    "score_<group>", "chance", "chance_<group>", "n", "unreadable", "unparsed", "unscored", "words",
    "training_tflops", "ms_per_sample", "shared_seconds", "gpu_gb", "gpu_reserved_gb", "p", "differs",
    "p_at_equal_tokens", "differs_at_equal_tokens", "mixed", "identical_to",
)  # fmt: skip
SAME = {field: name for name, (field, *_) in NUMBERS.items()} | {
    "same_map_as": "identical_to",
    **{f"iso_token_{part}": f"{part}_at_equal_tokens" for part in ("difference", "p", "differs")},
}  # names of sweep.csv


def chosen_columns(config: DictConfig) -> list[str] | None:
    """Names of job.columns, None for the usual ones. Raises ConfigError for anything but names of columns."""
    value = jsonable(OmegaConf.select(config, "job.columns"))
    if value is None:
        return None
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"job.columns={value}: give a list of names, as in job.columns=[pooling,score], or null")
    names = [SAME.get(name.strip(), name.strip()) for name in names]
    check_columns([name for name in names if not name.startswith(("score_", "chance_"))], NAMES)
    return list(dict.fromkeys(names))


Made = TypeVar("Made")


def of_last_frame(function: Callable[[pd.DataFrame], Made]) -> Callable[[pd.DataFrame], Made]:
    """Keep what is made of the last frame, which nobody changes: the tables of one report ask for it five times."""
    last: list[tuple[ref[pd.DataFrame], Made]] = []

    @wraps(function)
    def kept(frame: pd.DataFrame) -> Made:
        if not last or last[0][0]() is not frame:
            last[:] = [(ref(frame), function(frame))]
        return last[0][1]

    return kept


def check_columns(names: Iterable[str], known: Collection[str]) -> None:
    """Raises ConfigError for a name that is not known."""
    for name in names:
        if name not in known:
            near = did_you_mean(name, list(known))
            raise ConfigError(f"job.columns: there is no column {name!r}, only {', '.join(known)}{near}")


def groups_of(frame: pd.DataFrame) -> list[str]:
    """Names of the groups of tasks with scores in a study."""
    return [c.removeprefix("score_") for c in frame.columns if c.startswith("score_")]


def other_groups(frame: pd.DataFrame) -> list[str]:
    """Groups besides the headline, which has its own column."""
    scores = frame.score.astype(float).fillna(-1)
    return [g for g in groups_of(frame) if not (scores == frame[f"score_{g}"].astype(float).fillna(-1)).all()]


def main_group(frame: pd.DataFrame) -> str:
    """The name of the task group that the score is about, "" if it is about all tasks."""
    others = other_groups(frame)
    return " and ".join(group for group in groups_of(frame) if group not in others)


def varied(frame: pd.DataFrame) -> list[str]:
    """The settings in which points of a study differ. An untrained point says so by its model's name."""
    counted = {name: not name.startswith("train") for name in SETTINGS if name in frame}
    names = [name for name, absent in counted.items() if frame[name].nunique(dropna=not absent) > 1]
    if "trained_pooling" in names and (frame.trained_pooling.isna() | (frame.trained_pooling == frame.pooling)).all():
        names.remove("trained_pooling")  # each under its own
    if {"model", "lora_alpha"} <= set(names) and (frame.groupby("model").lora_alpha.nunique(dropna=False) == 1).all():
        names.remove("lora_alpha")  # part of the models' names
    return names


def setting_words(row: Fields, names: list[str]) -> list[str]:
    """Some settings of a point in words, without missing and usual ones."""
    return [SETTINGS[name].format(row[name]) for name in names if not missing(row[name]) and row[name] not in USUAL]


def point_labels(frame: pd.DataFrame) -> dict[str, str]:
    """A short unique name for each point, by its folder's name."""
    names, labels = varied(frame), {}
    for row in rows_of(frame[["point", "pooling", "frames", *names]]):
        frames = "" if missing(row["frames"]) else frames_text(row["frames"])
        labels[str(row["point"])] = ", ".join([str(row["pooling"]), frames, *setting_words(row, names)])
    texts = list(labels.values())
    return {
        point: label if texts.count(label) == 1 else f"{label} ({point.rsplit('-', 1)[-1]})"
        for point, label in labels.items()
    }


def frames_text(frames: float) -> str:
    """1 frame, 4 frames."""
    return f"{frames:g} frame{'' if frames == 1 else 's'}"


def baseline_text(frame: pd.DataFrame, view: str, labels: Mapping[str, str]) -> str:
    """The points that the differences of a view are from, in words. labels: from point_labels."""
    own = frame[frame.point.isin(set(frame.get(f"{view}baseline", pd.Series(dtype=object)).dropna()))]
    pooling = own.pooling.iloc[0] if own.pooling.nunique() == 1 else "the baseline"
    if view:
        return f"at equal tokens: from {pooling} at as many visual tokens"
    if len(own) == 1 < frame.frames.nunique():
        return f"difference: from {labels[own.point.iloc[0]]}"
    return f"difference: from {pooling} at as many frames"


@of_last_frame
def study_columns(frame: pd.DataFrame) -> dict[str, Column]:
    """All columns of a study, from add_differences, by name; which of them are filled, see with_content."""
    labels, groups = point_labels(frame), groups_of(frame)
    scores = frame.score.astype(float).where(frame.status == COMPLETE)
    best = set(frame.point[scores.notna() & (scores == scores.groupby(frame.benchmark).transform("max"))])

    def score(row: Fields) -> Cell:
        if row["status"] != COMPLETE:
            return Cell(str(row["status"]))
        return share_cell(row["score"], row["ci_low"], row["ci_high"], row["point"] in best)

    def name(row: Fields) -> Cell:
        return Cell(str(row["pooling"]), mark="" if missing(row["same_map_as"]) else " (=)")

    def twin(row: Fields) -> Cell:
        return Cell(labels.get(str(row["same_map_as"]), ""))

    columns: dict[str, Column] = {
        "point": column(Heading("point", False, 21), plain_cell, "point"),
        "pooling": (Heading("pooling", False), name),
        "status": column(Heading("status", False, 15), plain_cell, "status"),
    }
    for setting in SETTINGS:
        numeric = setting in ("lora_alpha", "seed") or setting.startswith("training_")
        columns[setting] = column(Heading(WORDS.get(setting, setting.replace("_", " ")), numeric), plain_cell, setting)
    numbers = {
        key: column(Heading(text, rank=rank), number_cell, field, digits=digits, scale=scale)
        for key, (field, text, digits, scale, rank) in NUMBERS.items()
    }
    columns |= {key: numbers.pop(key) for key in ("frames", "tokens", "separators", *REAL, "layer_tokens")}
    main = main_group(frame)
    note = f"score: main task group ({main})" if main else ""
    columns["score"] = Heading("score (%)", rank=1, note=note), score
    for view, end in VIEWS.items():
        parts = (f"{view}difference", f"{view}difference_low", f"{view}difference_high", f"{view}p_holm")
        text, rank = f"difference{end}".replace("_", " "), 5 if view else 2
        heading = Heading(text, rank=rank, note=baseline_text(frame, view, labels))
        columns[f"difference{end}"] = column(heading, difference_cell, *parts)
    columns["gflops"] = numbers.pop("gflops")
    for group in groups:
        own = (f"{name}_{group}" for name in ("score", "ci_low", "ci_high"))
        columns[f"score_{group}"] = column(Heading(f"{group} tasks (%)", rank=7), share_cell, *own)
    for group in ("", *groups):
        words, end = (f" on {group} tasks", f"_{group}") if group else ("", "")
        columns[f"chance{end}"] = column(Heading(f"chance{words} (%)", rank=8), share_cell, f"chance{end}")
    columns |= numbers
    for view, end in VIEWS.items():
        holm, words = f"{view}p_holm" in frame, end.replace("_", " ")
        heading = Heading(f"p{' (Holm)' if holm else ''}{words}", rank=16)
        columns[f"p{end}"] = column(heading, p_cell, f"{view}p_holm" if holm else f"{view}p")
        columns[f"differs{end}"] = column(Heading(f"differs in{words}", False, 14), plain_cell, f"{view}differs")
    columns["mixed"] = column(Heading("attempts differ in", False, 5), plain_cell, "mixed")
    columns["identical_to"] = (Heading("identical to", False, 18), twin)
    return columns


@of_last_frame
def with_content(frame: pd.DataFrame) -> dict[str, Column]:
    """The columns that tell something about a study, by name; a setting, if points differ in it."""
    columns, differing, others = study_columns(frame), varied(frame), other_groups(frame)
    complete = rows_of(frame[frame.status == COMPLETE])
    main = [f"{part}_{g}" for g in groups_of(frame) if g not in others for part in ("score", "chance")]

    def told(name: str) -> bool:
        if name in SETTINGS or name in ("point", "status", *main):
            return name in differing or (name == "status" and len(complete) < len(frame))
        texts = {columns[name][1](row).text for row in complete} - {"", "-"}
        if name == "n" or name.startswith("chance"):
            return len(texts) > 1
        if name in ("unreadable", "unparsed", "unscored", "separators"):
            return bool(texts - {"0"})
        if name in (*REAL, "layer_tokens"):
            first, second = ("tokens_least", "tokens_most") if name in REAL else ("layer_mean_tokens", "tokens_mean")
            return any(not missing(row.get(first)) and row[first] != row[second] for row in complete)
        return name in DEFAULT[:-1] or bool(texts)

    return {name: column for name, column in columns.items() if told(name)}


def default_names(frame: pd.DataFrame) -> list[str]:
    """The columns of a study's table unless others are chosen: those that identify a point, score and difference."""
    return [name for name in with_content(frame) if name in (*DEFAULT, *SETTINGS, "mixed")]


def page_names(frame: pd.DataFrame) -> list[str]:
    """The columns of some worth, for pages and wide terminals."""
    return [name for name, (heading, _) in with_content(frame).items() if heading.rank <= LEAST_WORTH]


def table_of(frame: pd.DataFrame, names: Sequence[str]) -> TextTable:
    """A table of columns by name."""
    columns = study_columns(frame)
    return text_table([columns[name] for name in names], frame)
