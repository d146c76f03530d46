# %% [markdown]
# # Do high-norm tokens matter on a real tower?
# PLLaVA says that a few visual tokens of high norm dominate, and that pooling helps because it smooths them. Others
# call such tokens removable, or useful, or choose by saliency, which may be the same thing. Here one instrument holds
# poolings, norms, saliency and causal tests together, on [models of parts](../docs/models.md#a-model-of-parts) with a
# real tower. The tables of the finished studies are kept in `real_tower/`, so nothing is run; `commands` are run first,
# for a model of yours. What this shows, and how each study was run: [the real tower](../docs/results/real_tower.md).

# %% tags=["parameters"]
results_dir = "real_tower"  # of the studies below; paths are relative to analysis/
data_dir = "../data"
commands = []  # to run first, each a list of words: studies of other models, with another results_dir
words = "above 3 medians"  # the rule for outliers

# %%
from pathlib import Path

from IPython.display import Markdown

from videopool.command import run_each
from videopool.figures import differences
from videopool.figures.norms import fate_bars
from videopool.measuring.table import fates
from videopool.reports import markdown_tables, read_spreadsheet

# %matplotlib inline

# %% jupyter={"outputs_hidden": true}
run_each(commands, f"results_dir={results_dir}", f"data_dir={data_dir}")

# %% [markdown]
# ## Does it help to tame or to drop them?
# Interventions before the projector, each minus none under the same pooling at equal frames. If outliers do harm, marks
# lie right of zero where they are tamed or dropped, and more so without pooling. If they carry information, dropping
# them costs more than dropping as many random tokens, and they alone say something.

# %%
unpooled = read_spreadsheet(Path(results_dir) / "unpooled" / "sweep.csv")
Markdown(markdown_tables(unpooled, "without pooling"))

# %% figure="unpooled"
unpooled = unpooled.assign(tower=unpooled.model + ", " + unpooled.frames.astype(str) + " frames")
differences(unpooled, "pooling", "tower", title="minus none, without pooling")

# %%
by_frame = read_spreadsheet(Path(results_dir) / "by_frame" / "sweep.csv")
Markdown(markdown_tables(by_frame, "7 x 7 of each frame"))

# %% figure="by_frame"
by_frame = by_frame.assign(tower=by_frame.model + ", " + by_frame.frames.astype(str) + " frames")
differences(by_frame, "pooling", "tower", title="minus none, under 7 x 7 of each frame")

# %% [markdown]
# ## Does saliency choose information, or outliers?
# At equal tokens, each selector minus a random choice, on towers as they are and on one with a register that takes its
# outliers.

# %%
chosen = read_spreadsheet(Path(results_dir) / "selectors" / "sweep.csv")
Markdown(markdown_tables(chosen, "selectors"))

# %% figure="selectors"
chosen = chosen.assign(tower=chosen.model + ", " + chosen.frames.astype(str) + " frames")
differences(chosen, "pooling", "tower", title="minus a random choice, by tower")

# %% [markdown]
# ## Which layers have them, and what do poolings do with them?

# %%
norms = read_spreadsheet(Path(results_dir) / "norms" / "norms.csv")
norms = norms.set_index(["stage", "model", "pooling"])
norms.filter(regex="^max_over_median$|(median|z|massive|phi|gap)\\.share$|low_texture$").sort_index()

# %% figure="overlap"
overlaps = read_spreadsheet(Path(results_dir) / "norms" / "norms_overlap.csv")
fate_bars(fates(overlaps), words)
