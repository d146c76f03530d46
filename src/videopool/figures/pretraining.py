"""The learning curve of the mini model."""

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from videopool.figures.style import COLOURS, STYLE


def learning_curve(checks: pd.DataFrame) -> Figure:
    """Share of right answers on held-out images against steps, one line a task.

    Args:
        checks: columns `step`, and `words/<task>` and `letters/<task>` with shares in 0..1.
    """
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
            axes.set_xlabel("steps of the language stage")
            axes.set_ylim(0, 101)
        panels[0].set_ylabel("right on held-out images, %")
        panels[1].legend(fontsize=9, loc="lower right")
    return figure
