# %% [markdown]
# # Does feeding more frames help?
# Two answers, which need not agree: at **equal frames** a pooling is held against none on the same frames; at **equal
# visual tokens**, against none on so few frames that the language model reads as much (within 5 %). The second is what
# a pooling has to win to be worth more than leaving frames out.

# %% tags=["parameters"]
experiment = "frames"  # a file of experiments/
study = "frames"  # a folder of results_dir
baseline = "none"  # a pooling
results_dir = "../results"  # paths are relative to analysis/
data_dir = "../data"
overrides = []  # more words for the command: ["model=llava_1.5_7b", "frames.num=4,16"]

# %%
from pathlib import Path

from IPython.display import Markdown

from videopool.command import run
from videopool.figures import differences, score_against
from videopool.reports import markdown_tables
from videopool.results import compared_study

# %matplotlib inline

# %% [markdown]
# Finished points are kept: where the study is there, this takes seconds.

# %% jupyter={"outputs_hidden": true}
paths = [f"results_dir={results_dir}", f"data_dir={data_dir}"]
run("-m", f"experiment={experiment}", f"study={study}", *paths, *overrides)

# %%
table = compared_study(Path(results_dir) / study, baseline)
complete = table[table.status == "complete"]
Markdown(markdown_tables(table, study))

# %% [markdown]
# ## Equal frames
# A line that falls says that further frames cost more than they tell.

# %%
score_against(complete, "frames")

# %% figure="iso_frame"
differences(table, "pooling", "frames", title=f"minus {baseline} at equal frames")

# %% [markdown]
# ## Equal visual tokens
# Points one above the other cost the language model the same. A pooling that has no point of its budget among the
# baseline's is not in the second figure.

# %%
score_against(complete, "visual_tokens")

# %% figure="iso_token"
differences(table, "pooling", "frames", "iso_token_", title=f"minus {baseline} at equal visual tokens")
