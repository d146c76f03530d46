# %% [markdown]
# # Where do two points differ?
# Two points of one study on the same samples: the paired difference, overall and by task; the number of samples that
# only one of them gets right; and these samples. `job=compare` gives the same on the command line.

# %% tags=["parameters"]
experiment = "quickstart"  # a file of experiments/
study = "quickstart"  # a folder of results_dir
first = "mini-adaptive-Tx6x6-f16"  # points of the study, or the beginnings of their names
second = "mini-none-f16"
intersect = False  # True: compare on the samples that both points scored, if their samples differ
samples = 5  # to show
results_dir = "../results"  # paths are relative to analysis/
data_dir = "../data"
overrides = []  # more overrides: ["benchmark.clips=800"]

# %%
from pathlib import Path

from IPython.display import HTML

from videopool.command import run
from videopool.figures import differences
from videopool.reports import samples_html
from videopool.reports.comparison import find_point
from videopool.results import by_task_table, compare_by_task

# %matplotlib inline

# %% [markdown]
# Finished points are kept: with a finished study, this takes seconds.

# %% jupyter={"outputs_hidden": true}
paths = [f"results_dir={results_dir}", f"data_dir={data_dir}"]
run("-m", f"experiment={experiment}", f"study={study}", *paths, *overrides)

# %% [markdown]
# ## The first minus the second
# Intervals and `p` are clustered by clip; `p_holm` is corrected for the number of tasks. `all` covers the tasks
# that count towards the score. `only_first` and `only_second` count the samples that flip.

# %%
folders = [find_point(Path(results_dir) / study, name) for name in (first, second)]
table = by_task_table(compare_by_task(*folders, intersect))
table.round(4)

# %% figure="by_task"
differences(table, "task", title=f"{first} minus {second}")

# %% [markdown]
# ## Samples on which they differ most
# By score first, then by the probability of the right option. A is the first point, B the second.

# %%
HTML(samples_html(*folders, samples))
