# %% [markdown]
# # Which shape should the pooled grid have?
# Adaptive pooling maps a grid of (frames, height, width) to (T', H', W'). Two studies vary one axis each:
# space at several frame counts, and time at two spatial sizes. Each study's baseline is its largest grid.

# %% tags=["parameters"]
space_study = "pooling_space"  # a folder of results_dir; the experiment is always pooling_space
time_study = "pooling_time"
space_baseline = "adaptive Tx12x12"  # a pooling
time_baseline = "adaptive 16x6x6"
results_dir = "../results"  # paths are relative to analysis/
data_dir = "../data"
overrides = []  # more overrides for both studies: ["model=llava_1.5_7b"]
space_overrides = []  # for the study of space: ["pooling.shape=[null,24,24],[null,12,12]"]
time_overrides = []

# %%
from pathlib import Path

from IPython.display import Markdown

from videopool.command import run
from videopool.figures import differences, score_against, score_by_shape, shape_panels
from videopool.reports import markdown_tables
from videopool.results import add_pooled_shapes, compared_study

# %matplotlib inline

# %% [markdown]
# Finished points are kept: with finished studies, this takes seconds.

# %% jupyter={"outputs_hidden": true}
paths = [f"results_dir={results_dir}", f"data_dir={data_dir}"]
run("-m", "experiment=pooling_space", f"study={space_study}", *paths, *overrides, *space_overrides)
run("-m", "experiment=pooling_time", f"study={time_study}", *paths, *overrides, *time_overrides)

# %% [markdown]
# ## Space

# %%
space = compared_study(Path(results_dir) / space_study, space_baseline)
Markdown(markdown_tables(space, space_study))

# %%
score_against(space[space.status == "complete"], "frames")

# %% figure="space_differences"
differences(space, "pooling", "frames", title=f"minus {space_baseline} at equal frames")

# %% [markdown]
# ## Time
# Tasks that one frame can answer tolerate a mean over time as long as objects do not move. Tasks that need several
# frames are in the table too; at chance they say nothing about pooling.

# %%
time = compared_study(Path(results_dir) / time_study, time_baseline)
Markdown(markdown_tables(time, time_study))

# %% figure="time_by_shape"
complete = time[time.status == "complete"]
score_by_shape(shape_panels(add_pooled_shapes(complete)))

# %%
score_against(complete, "visual_tokens")

# %% figure="time_differences"
differences(time, "pooling", title=f"minus {time_baseline}")
