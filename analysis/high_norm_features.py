# %% [markdown]
# # High-norm features
# Large vision transformers produce a few patch tokens of very high norm, at patches with little content (Darcet et al.,
# arXiv 2309.16588). PLLaVA blames such tokens for the failure of unpooled video. Does this tower make them, does the
# projector, where are they, and what does a pooling do to them? Measures and stages: [norms](../docs/norms.md).

# %% tags=["parameters"]
experiment = "high_norm_features"  # a file of experiments/
study = "high_norm_features"  # a folder of results_dir
place = -1  # index of the point whose maps and attention are shown, points sorted by name
results_dir = "../results"  # paths are relative to analysis/
data_dir = "../data"
overrides = []  # more overrides: ["model=llava_1.5_7b", "job.clips=100"]

# %%
from pathlib import Path

from videopool.command import run
from videopool.measuring.figures import point_figures
from videopool.measuring.study import load_study_norms, norms_frame, study_figures

# %matplotlib inline

# %% [markdown]
# Finished points are kept: with a finished study, this takes seconds.

# %% jupyter={"outputs_hidden": true}
paths = [f"results_dir={results_dir}", f"data_dir={data_dir}"]
run("-m", f"experiment={experiment}", f"study={study}", *paths, *overrides)

# %%
points = load_study_norms(Path(results_dir) / study)
figures = study_figures(points)
table = norms_frame(points).set_index(["stage", "pooling", "frames"])
table.filter(regex="^max_over_median$|(median|z|massive|phi|gap)\\.share$|^gini$").sort_index()

# %% [markdown]
# ## Is there a second hump?
# High-norm tokens of large towers form a separate group, far to the right of all others.

# %% figure="histogram"
figures["histogram"]

# %% [markdown]
# ## Where are they?
# For one point (before the pooling all points of a study agree). A pattern that does not depend on the clips' content
# comes from the tower. `border`, `centre` and `low_texture` are shares of the outliers there; the areas are shares of
# all tokens, as expected by chance. NaN: no outliers.

# %%
shown = points[place]
point = point_figures(shown)
shown.folder.name

# %%
point["map"]

# %%
table.filter(regex="_area$|(median|z)\\.(border|centre|low_texture)$|texture_spearman").xs(
    shown.numbers["about"]["pooling"], level="pooling"
)

# %% [markdown]
# ## Do they stay?
# Cosine of tokens at equal positions, against the distance of the frames: a mean over time merges such tokens.

# %%
figures["redundancy"]

# %% [markdown]
# ## Do they get attention?
# Attention from the last position of the prompt to a token, against its norm; 1 is an equal share.

# %% figure="attention"
point["attention"]
