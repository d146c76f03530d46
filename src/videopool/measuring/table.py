"""Norms as a data frame, and in the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from videopool.norms import SavedNorms, load_norms
from videopool.norms.outliers import GAP, PHI, ROBUST_Z, TIMES_MEDIAN
from videopool.norms.overlap import EVERY, FATES
from videopool.reports.cells import Column, column, missing, number_cell, plain_cell, text_table
from videopool.runtime.tables import Cell, Heading, TextTable, show_table
from videopool.runtime.terminal import console


def norms_frame(points: Sequence[SavedNorms]) -> pd.DataFrame:
    """A row per point and stage; numbers of norms.json, with names joined by "."."""
    rows = []
    for point in points:
        about = {k: v for k, v in point.numbers["about"].items() if k not in ("stages", "rules", "stage")}
        head = {"point": point.folder.name, **about, "pooling_stage": point.numbers["about"]["stage"]}
        rows += [{**head, "stage": stage, **numbers} for stage, numbers in point.numbers["stages"].items()]
    return pd.json_normalize(rows)


def attention_frame(points: Sequence[SavedNorms]) -> pd.DataFrame:
    """A row per point and layer or score of attention; numbers of norms.json, with names joined by "."."""
    rows = []
    for point in points:
        layers = {f"attention.{layer}": own for layer, own in point.numbers["attention"].items()}
        for name, numbers in {**layers, **point.numbers.get("scores", {})}.items():
            rows.append({"point": point.folder.name, "attention": name, **numbers})
    return pd.json_normalize(rows)


def overlap_frame(points: Sequence[SavedNorms]) -> pd.DataFrame:
    """A row per point and task, "" for all clips: what its pooling does with outliers."""
    rows = []
    for point in points:
        head = {"point": point.folder.name, "pooling": point.numbers["about"]["pooling"]}
        rows += [{**head, "task": task, **numbers} for task, numbers in point.numbers.get("overlap", {}).items()]
    return pd.json_normalize(rows)


def fates(frame: pd.DataFrame, rule: str = TIMES_MEDIAN) -> dict[str, dict[str, float]]:
    """What poolings do with a rule's outliers over all clips, by pooling, as fate_bars() draws it.

    frame: of overlap_frame(), or as read from norms_overlap.csv. A pooling whose clips have no outliers is left out.
    """
    head = f"outliers.{rule}."
    rows = frame[frame.task.fillna(EVERY).eq(EVERY) & frame[f"{head}count"].gt(0)].set_index("pooling")
    return rows.filter(like=head).rename(columns=lambda name: name.removeprefix(head)).to_dict("index")


def tell_norms(folder: Path) -> None:
    """Print the numbers of a point, and where its files are."""
    point = load_norms(folder)
    show_norms(norms_frame([point]), f"norms of {folder.name}", point.numbers["about"]["rules"])
    for layer, attention in point.numbers["attention"].items():
        share, correlation = _digits(attention["visual_share"], 100), _digits(attention["spearman"])
        print(f"        attention in layer {layer}: {share} % on visual tokens; Spearman with their norm {correlation}")
    for score, numbers in point.numbers["scores"].items():
        ratio, correlation = _digits(numbers["max_over_median"]), _digits(numbers["spearman"])
        print(f"        {score}: largest patch of a frame over its median {ratio}; Spearman with norm {correlation}")
    for stage, numbers in point.numbers["stages"].items():
        if kinds := numbers.get("vocabulary"):
            told = ", ".join(f"{_digits(kinds[kind], 100)} % {kind}" for kind in ("sink", "dead", "alive"))
            print(f"        in words, {stage}: {told}")
    if neurons := point.numbers["register_neurons"]:
        pairs = ", ".join(f"[{block}, {neuron}]" for block, neuron, _ in neurons)
        print(f"        model.tower.register=test_time 'model.tower.neurons=[{pairs}]'")
    if whole := point.numbers["overlap"].get(EVERY):
        fates = whole["outliers"][TIMES_MEDIAN]
        told = ", ".join(
            f"{_digits(fates[f], 100)} ({_digits(fates[f'{f}_by_chance'], 100)}) % {f}" for f in FATES[::-1]
        )
        print(f"        of high-norm patches, and by chance: {told}")
    gridded = [stage for stage in point.numbers["stages"] if "frame.norm" in point.arrays[stage]]
    if mixed := [stage for stage in gridded if "map.norm" not in point.arrays[stage]]:
        print(f"        no map of {', '.join(mixed)}: grids of clips differ in their size")
    for name, reason in point.numbers["failed"].items():
        print(f"        not measured: {name}: {reason}")
    print(f"        files: {folder}")


def show_norms(frame: pd.DataFrame, title: str, rules: Mapping[str, float]) -> None:
    """Print the table of norms_frame(); if it has a column "label", of the points, a stage's rows are a group."""
    begins = frame.stage != frame.stage.shift()
    labels = [column("point", plain_cell, "label")] * ("label" in frame)
    columns = [column("stage", plain_cell, "stage"), *labels, *_columns(rules)]
    table = text_table(columns, frame.assign(stage=frame.stage.where(begins, "")))
    rows = (replace(row, rule=bool(labels) and first) for row, first in zip(table.rows, begins, strict=True))
    show_table(TextTable(table.headings, tuple(rows)), title)
    for row in frame[(frame.zero > 0) | (frame.not_finite > 0)].to_dict("records"):
        console().print(
            f"        {row['stage']} {row.get('label', '')}".rstrip() + f": {row['zero']} tokens of norm 0, "
            f"{row['not_finite']} with NaN or infinite values, of {row['tokens']}; they enter no other number",
            soft_wrap=True,
            highlight=False,
        )


def _columns(rules: Mapping[str, float]) -> list[Column]:
    high, robust = f"outliers.{TIMES_MEDIAN}", f"outliers.{ROBUST_Z}.share"
    widest = f"gap: of the histogram, at least {rules[GAP]:g} times wide"
    above = f"high-norm: above k={rules[TIMES_MEDIAN]:g} medians of the clip"
    again = "persistence: high-norm tokens that are so in the next frame too"
    next_frame = f"{high}.next_frame", f"{high}.next_frame_by_chance"
    phi = [
        column(Heading("phi outliers, %", rank=9, note=f"phi outliers: phi above {rules[PHI]:g}"), _cell,
               f"outliers.{PHI}.share", scale=100)
    ] * (PHI in rules)  # fmt: skip  # measurements of older versions have none
    alike = "cosine: of neighbouring frames, at equal positions"
    return [
        column(Heading("tokens", rank=5), number_cell, "tokens"),
        column(Heading("median", rank=1), _cell, "quantiles.0.5"),
        column(Heading("max / median", rank=4), _cell, "max_over_median"),
        column(Heading("excess kurtosis", rank=7), _cell, "excess_kurtosis"),
        column(Heading("Gini", rank=6), _cell, "gini"),
        column(Heading("high-norm tokens, %", rank=2, note=above), _cell, f"{high}.share", scale=100),
        column(Heading("robust outliers, %", rank=8, note=f"robust outliers: robust z above {rules[ROBUST_Z]:g}"),
               _cell, robust, scale=100),
        column(Heading("above the gap, %", rank=9, note=widest), _cell, f"{GAP}.share", scale=100),
        *phi,
        column(Heading("persistence, % (by chance)", rank=3, note=again), _cell, *next_frame, scale=100),
        column(Heading("cosine", rank=6, note=alike), _cell, "neighbour_cosine"),
    ]  # fmt: skip


def _cell(value: Any, chance: Any = None, scale: float = 1) -> Cell:
    """A number, with the one by chance behind it."""
    return Cell(_digits(value, scale) + ("" if missing(chance) else f" ({_digits(chance, scale)})"))


def _digits(value: Any, scale: float = 1) -> str:
    return "-" if missing(value) else f"{scale * value:.3g}"
