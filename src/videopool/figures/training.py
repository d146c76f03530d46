"""How fine-tuning runs went: losses and the norms of visual tokens, step by step."""

from collections.abc import Mapping

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from videopool.figures.style import COLOURS, MARKERS, STYLE

NORMS = "visual_norm_max_over_median"


def training_curves(runs: Mapping[str, pd.DataFrame]) -> Figure:
    """A colour a run: the moving mean of the loss with the held-out loss, and how far the largest norm stands out.

    Args:
        runs: by name the lines of log.jsonl: `step`, and `ema` of each step, `validation_loss` and
            `visual_norm_max_over_median` where the held-out examples were looked at.
    """
    held = any("validation_loss" in log for log in runs.values())
    norms = any(NORMS in log for log in runs.values())
    with matplotlib.rc_context({**STYLE, "figure.figsize": (6.4 if not norms else 10.4, 4.4 + 0.22 * len(runs))}):
        figure = Figure()
        panels = figure.subplots(1, 2 if norms else 1, squeeze=False)[0]
        for number, (name, log) in enumerate(runs.items()):
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            steps = log[log.ema.notna()]
            panels[0].plot(steps.step, steps.ema, color=colour, label=name)
            if "validation_loss" in log:
                seen = log[log.validation_loss.notna()]
                panels[0].plot(seen.step, seen.validation_loss, marker, color=colour, markersize=4, label="_held out")
            if NORMS in log:
                seen = log[log[NORMS].notna()]
                panels[1].plot(seen.step, seen[NORMS], "-" + marker, color=colour, markersize=4)
        panels[0].set_yscale("log")
        panels[0].set_ylabel("loss, nats a token")
        panels[0].set_title("moving mean" + (", and held-out loss (marks)" if held else ""))
        if norms:
            panels[1].set_ylabel("largest norm over median")
            panels[1].set_title("visual tokens of held-out clips")
        for axes in panels:
            axes.set_xlabel("step")
        figure.legend(loc="outside lower center", ncols=1 if max(map(len, runs)) > 40 else 2)
    return figure
