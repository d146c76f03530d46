"""How fine-tuning runs went: losses and the norms of visual tokens, step by step."""

from collections import Counter
from collections.abc import Mapping

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from videopool.figures.style import COLOURS, MARKERS, STYLE

DASHES = ("-", "--", ":")  # of more recipes than there are colours
NORMS = "visual_norm_max_over_median"


def training_curves(runs: Mapping[str, pd.DataFrame], alike: Mapping[str, str] | None = None) -> Figure:
    """A colour a recipe: the moving mean of the loss with the held-out loss, and how far the largest norm stands out.

    Args:
        runs: by name the lines of log.jsonl: `step`, and `ema` of each step, `validation_loss` and
            `visual_norm_max_over_median` where the held-out examples were looked at.
        alike: by name of a run what it has in common with others that differ in their seed; None: each is for itself.
    """
    alike = alike or {name: name for name in runs}
    held = any("validation_loss" in log for log in runs.values())
    norms = any(NORMS in log for log in runs.values())
    count = Counter(alike[name] for name in runs)
    looks = {
        label: (COLOURS[n % len(COLOURS)], MARKERS[n % len(MARKERS)], DASHES[n // len(COLOURS) % len(DASHES)])
        for n, label in enumerate(count)
    }
    told: set[str] = set()
    with matplotlib.rc_context({**STYLE, "figure.figsize": (6.4 if not norms else 10.4, 4.4 + 0.22 * len(count))}):
        figure = Figure()
        panels = figure.subplots(1, 2 if norms else 1, squeeze=False)[0]
        for name, log in runs.items():
            label = alike[name]
            colour, marker, dashes = looks[label]
            said = "_seed" if label in told else label + (f" ({count[label]} seeds)" if count[label] > 1 else "")
            steps = log[log.ema.notna()]
            panels[0].plot(steps.step, steps.ema, dashes, color=colour, label=said)
            told.add(label)
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
        panels[0].set_ylabel("loss, nats a token")
        panels[0].set_title("moving mean" + (", and held-out loss (marks)" if held else ""))
        if norms:
            panels[1].set_ylabel("largest norm over median")
            panels[1].set_title("visual tokens of held-out clips")
        for axes in panels:
            axes.set_xlabel("step")
        figure.legend(loc="outside lower center", ncols=1 if max(map(len, count)) > 40 else 2)
    return figure
