# %% [markdown]
# # Do more frames help?
# Two comparisons, which need not agree. At **equal frames** a pooling is compared with none on the same frames. At
# **equal visual tokens** it is compared with none on fewer frames, so that the language model reads equally many tokens
# (within 5 %). A pooling must win the second comparison to be worth more than dropping frames.

# %% tags=["parameters"]
experiment = "frames"  # a file of experiments/
study = "frames"  # a folder of results_dir
baseline = "none"  # a pooling
results_dir = "../results"  # paths are relative to analysis/
data_dir = "../data"
overrides = []  # more overrides: ["model=llava_1.5_7b", "frames.num=4,16"]

# %%
from pathlib import Path

from IPython.display import Markdown

from videopool.command import run
from videopool.figures import differences, score_against
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
complete = table[table.status == "complete"]
Markdown(markdown_tables(table, study))

# %% [markdown]
# ## Equal frames
# A falling line means that further frames cost more than they contribute.

# %%
score_against(complete, "frames")

# %% figure="iso_frame"
differences(table, "pooling", "frames", title=f"minus {baseline} at equal frames")

# %% [markdown]
# ## Equal visual tokens
# Points at one x cost the language model the same. The second figure leaves out poolings without a baseline point of
# the same budget.

# %%
score_against(complete, "visual_tokens")

# %% figure="iso_token"
differences(table, "pooling", "frames", "iso_token_", title=f"minus {baseline} at equal visual tokens")
