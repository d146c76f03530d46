"""Training: losses and norms of fine-tuning runs, the learning curve of the mini model."""

from collections import Counter
from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from videopool.figures.style import GUIDE, WIDTH, drawing, legend, legend_size, looks

NORMS = "visual_norm_max_over_median"
LEAST = 1.0  # smallest span of the ratio of norms


def training_curves(
    runs: Mapping[str, pd.DataFrame], alike: Mapping[str, str] | None = None, poolings: Mapping[str, str] | None = None
) -> Figure:
    """One look per recipe: EMA of the loss with the held-out loss, and the largest norm over the median.

    runs: by name the lines of log.jsonl. alike: by name of a run its recipe, which other seeds share. poolings: by name
    of a run the label of its pooling, which gives its colour if no other recipe has it.
    """
    alike = alike or {name: name for name in runs}
    norms = any(NORMS in log for log in runs.values())
    count = Counter(alike[name] for name in runs)
    styles = looks(count, {alike[run]: pooling for run, pooling in (poolings or {}).items() if run in alike})
    last = {alike[name]: float(log.ema.dropna().iloc[-1]) for name, log in runs.items()}
    order = sorted(count, key=lambda label: -last[label])  # from top to bottom at the right end
    with drawing(WIDTH, (3.4 if norms else 1.9) + legend_size([*count])[1]) as figure:
        panels = figure.subplots(2 if norms else 1, 1, squeeze=False, sharex=True)[:, 0]
        for name, log in sorted(runs.items(), key=lambda one: order.index(alike[one[0]])):
            style, steps = styles[alike[name]], log.set_index("step")
            losses = steps.ema.dropna()
            bare = {**style, "marker": "none"} if "validation_loss" in log else {**style, "markevery": 0.2}
            panels[0].plot(losses.index, losses, label=alike[name], **{**bare, "linewidth": 0.8})
            if "validation_loss" in log:
                seen = steps.validation_loss.dropna()
                panels[0].plot(seen.index, seen, label="_held out", **{**style, "linestyle": "none"})
            if NORMS in log:
                seen = steps[NORMS].dropna()
                panels[1].plot(seen.index, seen, **style)
        panels[0].set(yscale="log", ylabel="loss, nats per token")
        panels[0].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panels[0].yaxis.set_minor_locator(NullLocator())
        panels[0].yaxis.set_major_formatter("{x:g}")  # plain numbers, not powers
        if norms:
            low, high = panels[1].get_ylim()
            panels[1].set(ylim=(min(low, 1.0), max(high, 1.0 + LEAST)), ylabel="largest norm / median")
        panels[-1].set_xlabel("step")
        panels[-1].locator_params("x", nbins=6, integer=True)
        seeds = {label: f" ({number} seeds)" if number > 1 else "" for label, number in count.items()}
        legend(figure, [Line2D([], [], **styles[label], label=label + seeds[label]) for label in order])
        marks = ", and the held-out loss (marks)" if any("validation_loss" in log for log in runs.values()) else ""
        below = "; below, norms of the visual tokens of held-out clips" if norms else ""
        figure.set_label(f"Moving mean of the training loss{marks}, on a log axis{below}.")
    return figure


def learning_curve(checks: pd.DataFrame) -> Figure:
    """Share of right answers on held-out images against steps, one line per task.

    checks: the recipe's log, of which the second stage continues the first; `words/<task>` are shares in 0..1.
    """
    first, second = (checks[checks.stage == f"{name}-check"] for name in ("language", "letters"))
    end = first.step.max() if len(first) else 0
    checks = pd.concat([first, second.assign(step=second.step + end)])
    tasks = sorted({name.partition("/")[2] for name in checks.columns if name.startswith(("words/", "letters/"))})
    styles, ends = looks(tasks), checks.iloc[-1] if len(checks) else {}
    order = sorted(tasks, key=lambda task: -ends.get(f"letters/{task}", 0.0))  # from top to bottom at the right end
    with drawing(WIDTH, 2.1 + legend_size(tasks or [""])[1]) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, form in zip(panels, ("words", "letters"), strict=True):
            for task in order:
                if (column := f"{form}/{task}") in checks:
                    small = {**styles[task], "linewidth": 0.7, "markersize": 2.5, "markevery": 3}
                    axes.plot(checks.step, 100 * checks[column], label=task, clip_on=False, **small)
            axes.axvline(end, **{**GUIDE, "linestyle": ":"})
            axes.set(title=f"in {form}", xlabel="steps", ylim=(0, 100))
            axes.locator_params("x", nbins=4, integer=True)
        panels[0].set_ylabel("right on held-out images, %")
        legend(figure, [Line2D([], [], **styles[task], label=task.replace("_", " ")) for task in order])
        figure.set_label(
            "Right answers on held-out images by task, in words and in letters; each mark is one check on few images "
            "per task, so single dips are noise. Dotted: the last stage begins."
        )
    return figure
