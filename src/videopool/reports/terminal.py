"""A study's table for the terminal."""

import pandas as pd
from rich.table import Table

from videopool.reports.cells import Cell, Fields, missing, number_cell, percent_text, share_cell
from videopool.reports.columns import (
    COMPLETE,
    SHARED_TIME,
    TIME,
    VIEWS,
    other_groups,
    records_of,
    setting_words,
    varied,
)  # fmt: skip
from videopool.runtime.terminal import console, plain

LEVEL = 0.05  # of a marked difference


def show(table: pd.DataFrame, title: str) -> None:
    """Print a study's table."""
    console().print(rich_table(table, title))


def rich_table(table: pd.DataFrame, title: str) -> Table:
    """A study's table for the terminal."""
    groups, words = other_groups(table), bool(table.answer_words.notna().any())
    views = [view for view in VIEWS if table[f"{view}difference"].notna().any()]
    judges = table.judge.nunique(dropna=False) > 1
    alphas = ["lora_alpha"] if table.model.nunique() > 1 else []  # part of the models' names
    settings = [name for name in varied(table) if name not in ("judge", *alphas)]
    out = Table(title=plain(title, "table.title"))
    for heading in (
        "pooling", "frames", "tokens", "score % [95 %]", "chance %", *(f"{group} tasks % (chance)" for group in groups),
        "n", "failed", *["words"] * words, "GFLOPs", TIME, SHARED_TIME,
        *(f"minus baseline{VIEWS[view]}" for view in views), "status",
    ):  # fmt: skip
        out.add_column(plain(heading), justify="left" if heading == "pooling" else "right")
    for row in records_of(table):
        name = ", ".join([str(row["pooling"]), *setting_words(row, settings)])
        if judges:
            name += " (no judge)" if missing(row["judge"]) else f" ({row['judge']})"
        cells = [
            Cell(name if missing(row["same_map_as"]) else f"{name} (=)"),
            number_cell(row["frames"]),
            number_cell(row["visual_tokens"]),
            share_cell(row["score"], row["ci_low"], row["ci_high"]),
            share_cell(row["chance"]),
            *(Cell(f"{percent_text(row[f'score_{g}'])} ({percent_text(row[f'chance_{g}'])})") for g in groups),
            number_cell(row["n"]),
            number_cell(row["n_failed"]),
            *[number_cell(row["answer_words"], 1)] * words,
            number_cell(row["prefill_gflops"], 2),
            number_cell(row["seconds_per_sample"], 1, scale=1000),
            number_cell(row["shared_seconds"], 1),
        ]
        texts = [_text(cell) for cell in cells] + [_difference(row, view) for view in views]
        done = "ok" if missing(row["mixed"]) else "ok, mixed"
        status = plain(done) if row["status"] == COMPLETE else plain(row["status"], "red")
        out.add_row(*map(plain, texts), status)
    out.caption = (
        "score: tasks of the headline; intervals clustered by clip, none of fewer than 10; (=): same map as an earlier "
        "point; *: p < 0.05 after Holm's correction; shared: reading clips and the vision tower, for later points too"
        + ("; mixed: attempts at the point differ (run.json)" if table.mixed.notna().any() else "")
    )
    return out


def _text(cell: Cell) -> str:
    return f"{cell.text} {cell.interval}".strip()


def _difference(row: Fields, view: str) -> str:
    """A difference with its interval, marked if it is significant."""
    value, low, high, p = (
        row[f"{view}{name}"] for name in ("difference", "difference_low", "difference_high", "p_holm")
    )
    return _text(share_cell(value, low, high, signed=True)) + ("*" if not missing(p) and p < LEVEL else "")
