"""A study's table for papers and pages: table.md and table.tex."""

import pandas as pd

from videopool.reports.cells import Heading, Row, TextTable, number_cell, p_cell, plain_cell, share_cell
from videopool.reports.latex import latex_table
from videopool.reports.markdown import escape, markdown_table
from videopool.reports.points import COMPLETE, SHARED_TIME, TIME, points_table, shared_chance, shared_settings, varied

PUBLISHED = "published figures, other protocols"
SEEDS = "means over seeds; intervals for other seeds and other clips"


def caption(frame: pd.DataFrame, name: str) -> str:
    """What a study's table shows: benchmark, split, how many samples, how its intervals were made."""
    complete = frame[frame.status == COMPLETE]
    settings = shared_settings(frame)
    told = f"{name}{': ' if settings else ''}{settings}."
    counts = sorted({int(n) for n in complete.n.dropna()})
    if counts:
        told += f" n = {counts[0]}{f' to {counts[-1]}' if len(counts) > 1 else ''} scored samples."
    chance = shared_chance(frame)
    told += f" {chance[0].upper()}{chance[1:]}." if chance else ""
    known = " Best score in bold; intervals: 95 %, clustered by clip, none of fewer than 10 clips."
    return told + (known if any(counts) else "")


def published_table(published: pd.DataFrame) -> TextTable:
    """Figures that others have published; not to be compared with a study's to the decimal.

    Args:
        published: columns benchmark, model, value, unit, source, protocol.
    """
    names = ("benchmark", "model", "value", "unit", "source", "protocol")
    rows = [
        Row(tuple(number_cell(row[n], _decimals(row[n])) if n == "value" else plain_cell(row[n]) for n in names))
        for row in published.to_dict("records")
    ]
    return TextTable(tuple(Heading(name, numeric=name == "value") for name in names), tuple(rows))


def seeds_table(seeds: pd.DataFrame) -> TextTable:
    """Configurations that were run under several seeds, from over_seeds; settings that all share are left out."""
    names = varied(seeds)
    headings = [Heading(name.replace("_", " "), numeric=False) for name in ("pooling", *names)]
    headings += [Heading("frames"), Heading("seeds", numeric=False), Heading("score %"), Heading("minus baseline")]
    rows = []
    for row in seeds.to_dict("records"):
        cells = [plain_cell(row[name]) for name in ("pooling", *names)]
        cells += [number_cell(row["frames"], 0), plain_cell(row["seeds"])]
        cells.append(share_cell(row["score"], row["ci_low"], row["ci_high"]))
        cells.append(share_cell(row["difference"], row["difference_low"], row["difference_high"], signed=True))
        rows.append(Row((*cells, p_cell(row["p_holm"]))))
    return TextTable((*headings, Heading("p (Holm)")), tuple(rows))


def _decimals(value: object) -> int:
    """As many as were published, at least one."""
    return max(1, len(str(value).partition(".")[2]))


def markdown_tables(
    frame: pd.DataFrame, name: str, published: pd.DataFrame | None = None, seeds: pd.DataFrame | None = None
) -> str:
    """The content of table.md."""
    points = points_table(frame)
    text = f"{escape(caption(frame, name))}\n\n{markdown_table(_without_time(points))}"
    notes = [(row, cell.note) for row in points.rows for cell in row.cells if cell.note]
    if notes:
        text += "\nNot complete:\n\n" + "".join(f"- {escape(row.point)}: {escape(note)}\n" for row, note in notes)
    if seeds is not None and len(seeds):
        text += f"\n{SEEDS.capitalize()}:\n\n{markdown_table(seeds_table(seeds))}"
    if published is not None and len(published):
        text += f"\n{PUBLISHED.capitalize()}:\n\n{markdown_table(published_table(published))}"
    return text


def latex_tables(
    frame: pd.DataFrame, name: str, published: pd.DataFrame | None = None, seeds: pd.DataFrame | None = None
) -> str:
    """The content of table.tex."""
    text = latex_table(_without_time(points_table(frame)), caption(frame, name), name)
    if seeds is not None and len(seeds):
        text += "\n" + latex_table(seeds_table(seeds), f"{name}: {SEEDS}.", f"{name}-seeds")
    if published is not None and len(published):
        text += "\n" + latex_table(published_table(published), f"{PUBLISHED.capitalize()}.", f"{name}-published")
    return text


def _without_time(table: TextTable) -> TextTable:
    """What does not depend on the machine."""
    kept = [place for place, heading in enumerate(table.headings) if heading.text not in (TIME, SHARED_TIME)]
    rows = (Row(tuple(row.cells[place] for place in kept), row.point, row.status) for row in table.rows)
    return TextTable(tuple(table.headings[place] for place in kept), tuple(rows))
