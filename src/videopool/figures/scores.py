"""Scores against frames, visual tokens, the scale of LoRA, or what was trained on."""

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from videopool.figures.pareto import pareto_front
from videopool.figures.style import COLOURS, MARKERS, STYLE

AXES = {
    "frames": "frames",
    "visual_tokens": "visual tokens per clip",
    "lora_alpha": "LoRA alpha at test time",
    "training_clips": "training clips",
}
# Axes that a study of them has in place of frames and visual tokens.
OWN_AXES = ("lora_alpha", "training_clips")
# What tells lines apart beside the pooling, where it varies, and how a legend says it.
TOLD = {
    "model": "{}",
    "stage": "before the projector",
    "prompt": "prompt {}",
    "judge": "judge {}",
    "lora_alpha": "alpha {:g}",
    "training_clips": "{:g} training clips",
    "training_images": "{:g} training images",
    "training_steps": "{:g} steps",
}
BEHIND = "projector"  # the stage that is not said
LONG = 22  # letters of a line's name, above which there is no room for three in a row
CLOSE = 0.08  # difference of two scores whose labels would meet
FRONT = "Pareto front"
FRONT_STYLE: dict[str, Any] = {
    "color": "#444444",
    "linewidth": 4,
    "alpha": 0.3,
    "zorder": 1,
    "solid_joinstyle": "miter",
}


def _plain_models(table: pd.DataFrame) -> "pd.Series[str]":
    """Names of models without the scale of LoRA that they say."""
    return table.model.str.replace(r" alpha \S+", "", regex=True)


def title_of(table: pd.DataFrame, group: str | None) -> str:
    """Model, where all points have one, benchmark, and group of tasks."""
    models = set(table.model) if table.model.nunique() == 1 else set(_plain_models(table))
    told = f"{models.pop()} on " if len(models) == 1 else ""
    return f"{told}{table.benchmark.iloc[0]}" + (f", {group} tasks" if group else "")


def line_names(table: pd.DataFrame, axis: str) -> list[str]:
    """What the line of each point is called."""
    # A model's name says its alpha.
    if axis == "lora_alpha":
        table = table.assign(model=_plain_models(table))
    # That a point was not trained at all, its model's name says.
    counted = {name: not name.startswith("train") for name in TOLD if name in table and name != axis}
    varied = [name for name, absent in counted.items() if table[name].nunique(dropna=not absent) > 1]
    said = [name for name in varied if name != "lora_alpha" or "model" not in varied]
    told = {name: TOLD[name] for name in said}
    if axis in OWN_AXES and table.frames.nunique() > 1:
        told = {"frames": "{:g} frames", **told}
    lines = []
    for row in table.to_dict("records"):
        words = [form.format(row[key]) for key, form in told.items() if not pd.isna(row[key]) and row[key] != BEHIND]
        lines.append(", ".join([str(row["pooling"]), *words]))
    if "weights" not in table:
        return lines
    # Checkpoints of other seeds share a line; those of one seed are told apart.
    named = table.assign(line=lines)
    alike = [name for name in ("line", *AXES, "seed") if name in named]
    several = named.groupby(alike, dropna=False).weights.transform("nunique") > 1
    return [
        f"{line}, weights {own}" if two else line for line, own, two in zip(lines, named.weights, several, strict=True)
    ]


def score_against(table: pd.DataFrame, axis: str, group: str | None = None) -> Figure:
    """One line a pooling, and model, stage, prompt, judge where these vary, with 95 % intervals and chance.

    Points that differ in nothing of this, as in their seed, are drawn each, and the line runs through their mean.
    Against visual tokens there is the Pareto front, of the scores drawn or their means: points whose intervals overlap
    may change places on it.

    Args:
        table: complete points of one benchmark, from results.load_study.
        axis: one of AXES.
        group: a group of tasks; None for the headline.
    """
    tail = f"_{group}" if group else ""
    score, low, high, chance = (f"{name}{tail}" for name in ("score", "ci_low", "ci_high", "chance"))
    table = table[table[score].notna()]
    with matplotlib.rc_context(STYLE):
        figure = Figure()
        axes = figure.add_subplot()
        table = table.assign(line=line_names(table, axis))
        names = list(dict.fromkeys(table.line))
        table = table.astype({axis: float})
        # What differs in nothing that is told, as in the seed, is one spot of its line.
        place = [axis, "frames"] if axis == "visual_tokens" else [axis]
        spots = (
            table.astype({score: float}).groupby(["line", *place], dropna=False)[score].mean().mul(100).reset_index()
        )
        numbered = axis == "visual_tokens" and table.frames.nunique() > 1
        drawn: list[tuple[float, float, float]] = []  # axis, score, place of the marker
        for number, name in enumerate(names):
            rows, means = table[table.line == name].sort_values(place), spots[spots.line == name]
            # Points at the same place are set apart a little, so that intervals stay readable.
            shift = 1.0 + min(0.02, 0.12 / len(names)) * (number - (len(names) - 1) / 2)
            drawn += zip(means[axis], means[score], means[axis] * shift, strict=True)
            path = ":" if axis == "visual_tokens" else "-"
            colour = COLOURS[number % len(COLOURS)]
            single = len(rows) == len(means)
            axes.errorbar(
                rows[axis] * shift,
                100 * rows[score].astype(float),
                yerr=[100 * (rows[score] - rows[low]).astype(float), 100 * (rows[high] - rows[score]).astype(float)],
                label=name,
                color=colour,
                marker=MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],  # another one when colours repeat
                linestyle=path if single else "none",
                capsize=2.5,
                elinewidth=1.2,
            )
            if not single:
                axes.plot(means[axis] * shift, means[score], path, color=colour, label="_mean")
            if numbered and means[axis].is_unique and means.frames.notna().all():
                for _, spot in means.iterrows():
                    # Just below a point with as many tokens the number stands on the other side, clear of that one's.
                    above = (spots[score][spots[axis] == spot[axis]].max() - spot[score]) / 100
                    side, offset = ("right", (-5, -10)) if 0 < above < CLOSE else ("left", (4, 4))
                    at = (spot[axis] * shift, spot[score])
                    axes.annotate(f"{int(spot.frames)}", at, offset, textcoords="offset points", fontsize=8, ha=side)
        if axis == "visual_tokens":
            front = [drawn[at] for at in pareto_front([x for x, _, _ in drawn], [y for _, y, _ in drawn])]
            axes.step(
                [*(x for _, _, x in front), max(x for _, _, x in drawn)],
                [*(y for _, y, _ in front), front[-1][1]],
                where="post",
                label=FRONT,
                **FRONT_STYLE,
            )
        if table[chance].notna().all():
            axes.axhline(100 * float(table[chance].mean()), color="grey", linestyle="--", linewidth=1.2, label="chance")
        above = table[axis][table[axis] > 0].astype(float)
        if axis != "lora_alpha" and not above.empty:
            # No visual tokens at all, of a blind model, have their place left of the least that there are.
            scale = ("log", {}) if len(above) == len(table) else ("symlog", {"linthresh": above.min()})
            axes.set_xscale(scale[0], base=2, **scale[1])
        ticks = sorted({float(v) for v in table[axis]})
        axes.set_xticks(ticks if len(ticks) < 8 else ticks[:: len(ticks) // 6])
        axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axes.minorticks_off()
        axes.set_xlabel(AXES[axis] + (" (numbers: frames)" if numbered else ""))
        axes.set_ylabel("score, % (95 % interval)")
        axes.set_title(title_of(table, group))
        widest = max(map(len, names))
        figure.legend(loc="outside lower center", ncols=3 if widest < LONG else 2 if widest < 2 * LONG else 1)
    return figure
