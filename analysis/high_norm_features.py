# %% [markdown]
# # High-norm features
# Large vision transformers write a few patch tokens of very high norm, at patches with little to show (Darcet et al.,
# arXiv 2309.16588). PLLaVA takes such tokens for the reason that unpooled video fails. Does this tower make them, does
# the projector, where do they lie, and what does a pooling leave of them? Measures and stages:
# [norms](../docs/norms.md).

# %% tags=["parameters"]
experiment = "high_norm_features"  # a file of experiments/
study = "high_norm_features"  # a folder of results_dir
place = -1  # which point's maps and attention are shown, in the order of the points' names
results_dir = "../results"  # paths are relative to analysis/
data_dir = "../data"
overrides = []  # more words for the command: ["model=llava_1.5_7b", "job.clips=100"]

# %%
from pathlib import Path

from videopool.command import run
from videopool.measuring.figures import point_figures
from videopool.measuring.study import load_study_norms, norms_frame, study_figures

# %matplotlib inline

# %% [markdown]
# Finished points are kept: where the study is there, this takes seconds.

# %% jupyter={"outputs_hidden": true}
paths = [f"results_dir={results_dir}", f"data_dir={data_dir}"]
run("-m", f"experiment={experiment}", f"study={study}", *paths, *overrides)

# %%
points = load_study_norms(Path(results_dir) / study)
figures = study_figures(points)
table = norms_frame(points).set_index(["stage", "pooling", "frames"])
table.filter(regex="^max_over_median$|outliers.*share$|gap.share$|gini$").sort_index()

# %% [markdown]
# ## Is there a second hump?
# Tokens of high norm as large towers have them stand apart, far right of all others.

# %% figure="histogram"
figures["histogram"]

# %% [markdown]
# ## Where are they?
# Of one point (before the pooling, all points of a study have the same). A pattern that does not depend on what clips
# show comes from the tower. `border`, `centre` and `low_texture` are shares of the outliers there; the areas are shares
# of all tokens, which is what chance would give. NaN: there are no outliers.

# %%
shown = points[place]
point = point_figures(shown)
shown.folder.name

# %%
point["map"]

# %%
table.filter(regex="border|centre|low_texture|texture_spearman").xs(shown.numbers["about"]["pooling"], level="pooling")

# %% [markdown]
# ## Do they stay?
# Cosine of tokens at equal positions in frames further and further apart: what a mean over time merges.

# %%
figures["redundancy"]

# %% [markdown]
# ## Are they looked at?
# What the last position of the prompt gives a token, by its norm; 1 is an equal share.

# %% figure="attention"
point["attention"]
