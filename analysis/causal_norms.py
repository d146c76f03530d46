# %% [markdown]
# # Does pooling help because it tames tokens of high norm?
# If so, clipping norms without pooling helps as much, and adding outliers hurts until pooling repairs it. Each chain
# intervenes on norms before a pooling. `scale` makes 2 % of the tokens ten times larger, `direction` turns them into
# one direction at their own norm, `both` does both: a language model that normalises its input divides a norm out
# again, but not a direction.

# %% tags=["parameters"]
experiment = "causal_norms"  # a file of experiments/
study = "causal_norms"  # a folder of results_dir
baseline = "none"  # a pooling
results_dir = "../results"  # paths are relative to analysis/
data_dir = "../data"
overrides = []  # more overrides: ["model=llava_1.5_7b", "frames.num=4,16"]

# %%
from pathlib import Path

from IPython.display import Markdown

from videopool.command import run
from videopool.figures import differences
from videopool.reports import markdown_tables
from videopool.results import compared_study

# %matplotlib inline

# %% [markdown]
# Finished points are kept: with a finished study, this takes seconds.

# %% jupyter={"outputs_hidden": true}
paths = [f"results_dir={results_dir}", f"data_dir={data_dir}"]
run("-m", f"experiment={experiment}", f"study={study}", *paths, *overrides)

# %%
table = compared_study(Path(results_dir) / study, baseline)
Markdown(markdown_tables(table, study))

# %% [markdown]
# ## Minus no pooling, at equal frames
# The claim predicts two things: interventions alone gain about as much as pooling alone (marks right of zero), and
# `scale` without pooling loses (marks left of zero).

# %% figure="differences"
differences(table, "pooling", "frames", title=f"minus {baseline} at equal frames")
