"""A study's table for the terminal."""

import pandas as pd
from rich.table import Table

from videopool.reports.cells import Cell, column, difference_column, missing, percent_text, share_cell
from videopool.reports.columns import COMPLETE, VIEWS, number, other_groups, setting_words, varied
from videopool.runtime.terminal import console, plain

LEVEL = 0.05  # of a marked difference


def show(table: pd.DataFrame, title: str) -> None:
    """Print a study's table."""
    console().print(rich_table(table, title))


def rich_table(table: pd.DataFrame, title: str) -> Table:
    """A study's table for the terminal."""
    judges = table.judge.nunique(dropna=False) > 1
    alphas = ["lora_alpha"] if table.model.nunique() > 1 else []  # part of the models' names
    settings = [name for name in varied(table) if name not in ("judge", *alphas)]
    words = ["answer_words"] if table.answer_words.notna().any() else []
    columns = [
        *map(number, ("frames", "visual_tokens")),
        column("score % [95 %]", share_cell, "score", "ci_low", "ci_high"),
        column("chance %", share_cell, "chance"),
        *(column(f"{g} tasks % (chance)", _with_chance, f"score_{g}", f"chance_{g}") for g in other_groups(table)),
        *map(number, ("n", "n_failed", *words, "prefill_gflops", "seconds_per_sample", "shared_seconds")),
    ]
    views = [view for view in VIEWS if table[f"{view}difference"].notna().any()]
    columns += [difference_column(f"minus baseline{VIEWS[view]}", f"{view}difference") for view in views]
    out = Table(title=plain(title, "table.title"))
    for heading in ("pooling", *(heading.text for heading, _ in columns), "status"):
        out.add_column(plain(heading), justify="left" if heading == "pooling" else "right")
    for row in table.to_dict("records"):
        name = ", ".join([str(row["pooling"]), *setting_words(row, settings)])
        if judges:
            name += " (no judge)" if missing(row["judge"]) else f" ({row['judge']})"
        name += "" if missing(row["same_map_as"]) else " (=)"
        values = [cell(row) for _, cell in columns]
        stars = [""] * (len(columns) - len(views)) + [_star(row[f"{view}p_holm"]) for view in views]
        cells = [f"{cell.text} {cell.interval}".strip() + star for cell, star in zip(values, stars, strict=True)]
        done = "ok" if missing(row["mixed"]) else "ok, mixed"
        status = plain(done) if row["status"] == COMPLETE else plain(row["status"], "red")
        out.add_row(*map(plain, (name, *cells)), status)
    out.caption = (
        "score: tasks of the headline; intervals clustered by clip, none of fewer than 10; (=): same map as an earlier "
        "point; *: p < 0.05 after Holm's correction; shared: reading clips and the vision tower, for later points too"
        + ("; mixed: attempts at the point differ (run.json)" if table.mixed.notna().any() else "")
    )
    return out


def _with_chance(score: float | None, chance: float | None) -> Cell:
    return Cell(f"{percent_text(score)} ({percent_text(chance)})")


def _star(p: float | None) -> str:
    return "*" if not missing(p) and p is not None and p < LEVEL else ""
