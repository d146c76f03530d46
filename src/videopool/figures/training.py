"""Training: losses and norms of fine-tuning runs, the learning curve of the mini model."""

from collections import Counter
from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from videopool.figures.style import COLOURS, GUIDE, drawing, look

DASHES = ("-", "--", ":")  # for more recipes than colours
NORMS = "visual_norm_max_over_median"


def training_curves(runs: Mapping[str, pd.DataFrame], alike: Mapping[str, str] | None = None) -> Figure:
    """One colour per recipe: EMA of the loss with the held-out loss, and the largest norm over the median.

    runs: by name the lines of log.jsonl: `step`, and `ema` of each step, `validation_loss` and
    `visual_norm_max_over_median` of each validation. alike: by name of a run its recipe, which other seeds share.
    """
    alike = alike or {name: name for name in runs}
    held = any("validation_loss" in log for log in runs.values())
    norms = any(NORMS in log for log in runs.values())
    count = Counter(alike[name] for name in runs)
    numbers = {label: number for number, label in enumerate(count)}
    labelled: set[str] = set()
    with drawing(10.4 if norms else 6.4, 4.4 + 0.22 * len(count)) as figure:
        panels = figure.subplots(1, 2 if norms else 1, squeeze=False)[0]
        for name, log in runs.items():
            label = alike[name]
            colour, marker = (look(numbers[label])[key] for key in ("color", "marker"))
            dashes = DASHES[numbers[label] // len(COLOURS) % len(DASHES)]
            text = "_seed" if label in labelled else label + (f" ({count[label]} seeds)" if count[label] > 1 else "")
            labelled.add(label)
            steps = log[log.ema.notna()]
            panels[0].plot(steps.step, steps.ema, dashes, color=colour, label=text)
            if "validation_loss" in log:
                seen = log[log.validation_loss.notna()]
                panels[0].plot(seen.step, seen.validation_loss, marker, color=colour, markersize=4, label="_held out")
            if NORMS in log:
                seen = log[log[NORMS].notna()]
                panels[1].plot(seen.step, seen[NORMS], dashes + marker, color=colour, markersize=4)
        panels[0].set_yscale("log")
        panels[0].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panels[0].yaxis.set_minor_locator(NullLocator())
        panels[0].yaxis.set_major_formatter("{x:g}")  # plain numbers, not powers
        panels[0].set_ylabel("loss, nats per token")
        panels[0].set_title("moving mean" + (", and held-out loss (marks)" if held else ""))
        if norms:
            panels[1].set_ylabel("largest norm over median")
            panels[1].set_title("visual tokens of held-out clips")
        for axes in panels:
            axes.set_xlabel("step")
        figure.legend(loc="outside lower center", ncols=1 if max(map(len, count)) > 40 else 2)
    return figure


def learning_curve(checks: pd.DataFrame) -> Figure:
    """Share of right answers on held-out images against steps, one line per task.

    checks: the recipe's log: rows whose stage is "language-check" or "letters-check", with `step`, and `words/<task>`
    and `letters/<task>` as shares in 0..1. The second stage continues the first.
    """
    first, second = (checks[checks.stage == f"{name}-check"] for name in ("language", "letters"))
    end = first.step.max() if len(first) else 0
    checks = pd.concat([first, second.assign(step=second.step + end)])
    with drawing(9.6, 4.6) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, form in zip(panels, ("words", "letters"), strict=True):
            for number, column in enumerate(name for name in checks.columns if name.startswith(f"{form}/")):
                style = "-" if number < len(COLOURS) else "--"
                label = column.removeprefix(f"{form}/").replace("_", " ")
                axes.plot(checks.step, 100 * checks[column], style, color=COLOURS[number % len(COLOURS)], label=label)
            axes.set_title(f"answered in {form}")
            axes.axvline(end, **{**GUIDE, "linestyle": ":"})
            axes.set_xlabel("steps (dotted: last stage begins)")
            axes.set_ylim(0, 101)
        panels[0].set_ylabel("right on held-out images, %")
        panels[1].legend(fontsize=9, loc="lower right")
    return figure
