"""The learning curve of the mini model."""

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from videopool.figures.style import COLOURS, STYLE


def learning_curve(checks: pd.DataFrame) -> Figure:
    """Share of right answers on held-out images against steps, one line a task.

    Args:
        checks: the recipe's log: rows whose stage is "language-check" or "letters-check", with `step`, and
            `words/<task>` and `letters/<task>` as shares in 0..1. The second stage continues the first.
    """
    first, second = (checks[checks.stage == f"{name}-check"] for name in ("language", "letters"))
    end = first.step.max() if len(first) else 0
    checks = pd.concat([first, second.assign(step=second.step + end)])
    with matplotlib.rc_context({**STYLE, "figure.figsize": (9.6, 4.6)}):
        figure = Figure()
        panels = figure.subplots(1, 2, sharey=True)
        for axes, form in zip(panels, ("words", "letters"), strict=True):
            tasks = [c.removeprefix(f"{form}/") for c in checks.columns if c.startswith(f"{form}/")]
            for number, task in enumerate(tasks):
                style = "-" if number < len(COLOURS) else "--"
                values = 100 * checks[f"{form}/{task}"]
                colour = COLOURS[number % len(COLOURS)]
                axes.plot(checks.step, values, style, color=colour, label=task.replace("_", " "))
            axes.set_title(f"answered in {form}")
            axes.axvline(end, color="grey", linestyle=":", linewidth=1.2)
            axes.set_xlabel("steps (dotted: last stage begins)")
            axes.set_ylim(0, 101)
        panels[0].set_ylabel("right on held-out images, %")
        panels[1].legend(fontsize=9, loc="lower right")
    return figure
