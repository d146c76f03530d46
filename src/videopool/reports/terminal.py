"""A study's table for the terminal."""

import pandas as pd
from rich.table import Table

from videopool.reports import other_groups
from videopool.reports.cells import interval_text, missing, number_cell, number_text, percent_text
from videopool.reports.points import SETTINGS, SHARED_TIME, TIME, VIEWS, varied
from videopool.runtime.terminal import console, plain

LEVEL = 0.05  # of a difference that is marked


def show(table: pd.DataFrame, title: str) -> None:
    """Print a study's table."""
    console().print(rich_table(table, title))


def rich_table(table: pd.DataFrame, title: str) -> Table:
    """A study's table for the terminal."""
    groups = other_groups(table)
    out = Table(title=plain(title, "table.title"))
    for name in (
        "pooling",
        "frames",
        "tokens",
        "score % [95 %]",
        "chance %",
        *(f"{g} tasks % (chance)" for g in groups),
    ):
        out.add_column(plain(name), justify="left" if name == "pooling" else "right")
    views = [view for view in VIEWS if table[f"{view}difference"].notna().any()]
    said = bool(table.answer_words.notna().any())
    compared = [f"minus baseline{VIEWS[view]}" for view in views]
    for name in ("n", "failed", *["words"] * said, "GFLOPs", TIME, SHARED_TIME, *compared, "status"):
        out.add_column(name, justify="right")
    # The model's name says its alpha.
    told = [name for name in varied(table) if name not in ("judge", *(["lora_alpha"] * (table.model.nunique() > 1)))]
    for row in table.to_dict("records"):
        settings = [SETTINGS[key].format(row[key]) for key in told if not missing(row[key])]
        name = ", ".join([str(row["pooling"]), *settings])
        if table.judge.nunique(dropna=False) > 1:
            name += " (no judge)" if missing(row["judge"]) else f" ({row['judge']})"
        if not missing(row["same_map_as"]):
            name += " (=)"
        cells = [name, number_text(row["frames"], 0), number_text(row["visual_tokens"], 0)]
        cells += [_with_interval(row["score"], row["ci_low"], row["ci_high"]), percent_text(row["chance"])]
        cells += [f"{percent_text(row[f'score_{g}'])} ({percent_text(row[f'chance_{g}'])})" for g in groups]
        cells += [number_text(row["n"], 0), number_text(row["n_failed"], 0)]
        cells += [number_text(row["answer_words"], 1)] * said + [number_text(row["prefill_gflops"], 2)]
        cells += [number_cell(row["seconds_per_sample"], 1, scale=1000).text, number_text(row["shared_seconds"], 1)]
        for view in views:
            star = "*" if not missing(row[f"{view}p_holm"]) and float(row[f"{view}p_holm"]) < LEVEL else ""
            value, low, high = (row[f"{view}difference{tail}"] for tail in ("", "_low", "_high"))
            cells.append(_with_interval(value, low, high, signed=True) + star)
        done = "ok" if missing(row["mixed"]) else "ok, mixed"
        status = plain(done) if row["status"] == "complete" else plain(row["status"], "red")
        out.add_row(*map(plain, cells), status)
    out.caption = (
        "score: tasks of the headline; intervals clustered by clip, none of fewer than 10; (=): same map as an earlier "
        "point; *: p < 0.05 after Holm's correction; shared: reading clips and the vision tower, for later points too"
        + ("; mixed: attempts at the point differ (run.json)" if table.mixed.notna().any() else "")
    )
    return out


def _with_interval(value: object, low: object, high: object, signed: bool = False) -> str:
    return f"{percent_text(value, signed)} {interval_text(low, high)}".strip()
