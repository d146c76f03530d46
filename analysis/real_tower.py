# %% [markdown]
# # Do high-norm tokens matter on a real tower?
# PLLaVA says that a few visual tokens of high norm dominate, and that pooling helps because it smooths them. Others
# call such tokens removable, or useful, or choose by saliency, which may be the same thing. Here one instrument holds
# poolings, norms, saliency and causal tests together, on a model of parts with a real tower, which
# [two commands](../docs/models.md#a-model-of-parts) make in `results/read`. The bundled toy model makes no such tokens
# (`overrides=["model=mini"]`). What this shows: [the real tower](../docs/results/real_tower.md).

# %% tags=["parameters"]
experiment = "outliers_causal"  # a file of experiments/
study = "outliers_causal"  # a folder of results_dir
results_dir = "../results"  # paths are relative to analysis/
data_dir = "../data"
overrides = ["model=local", "model.source=../results/read/model", "model.name=real", "model.dtype=bfloat16"]  # of all
more = ["prompt=plain", "features=disk", "logger=none", "benchmark.clips=150", "benchmark.per_task=50"]  # of all, too
causal = ["frames.num=8,4"]
selectors = [
    "frames.num=4",
    "model.tower={register:null},{register:test_time,neurons:[[8,1435],[8,2093],[8,2078],[8,2629],[7,2212],[7,1710],"
    "[8,2922],[6,924],[7,3051],[6,2256]]}",  # found on other clips
]
norms = ["benchmark=shapes", "job.clips=30", "frames=nested", "frames.num=4"]
overlaps = ["pooling=even,random,visionzip,vidcom2,vcast,adaptive_Tx6x6"]
place = 0  # index of the point whose scores are shown

# %%
from pathlib import Path

from IPython.display import Markdown

from videopool.command import run
from videopool.figures import differences
from videopool.measuring.figures import point_figures
from videopool.measuring.study import load_study_norms, norms_frame, study_figures
from videopool.reports import markdown_tables
from videopool.results import load_study
from videopool.results.comparison import add_differences

# %matplotlib inline

# %% [markdown]
# Finished points are kept: with finished studies, this takes seconds.

# %% jupyter={"outputs_hidden": true}
paths = [f"results_dir={results_dir}", f"data_dir={data_dir}"]
run("-m", f"experiment={experiment}", f"study={study}", *paths, *overrides, *more, *causal)
run("-m", "experiment=selectors_registers", "study=selectors_registers", *paths, *overrides, *more, *selectors)
stages = ["job.stages=[encoder.*,encoder,projector,pooled]", "job.tower_scores=[received.-2,cls.-2]"]
run("-m", "job=norms", "study=real_tower", "job.overlap=true", *stages, *paths, *norms, *overrides, *more, *overlaps)

# %% [markdown]
# ## Does it help to tame or to drop them?
# Interventions before the projector, each minus none under the same pooling at equal frames. If outliers do harm, marks
# lie right of zero where they are tamed or dropped, and more so without pooling. If they carry information, dropping
# them costs more than dropping as many random tokens, and they alone say something.

# %%
table = load_study(Path(results_dir) / study)
unpooled = add_differences(table[table.pooling.str.endswith("none")], "none")
by_frame = add_differences(table[table.pooling.str.endswith("adaptive Tx7x7")], "adaptive Tx7x7")
by_clip = add_differences(table[table.pooling.str.endswith("adaptive 4x7x7")], "adaptive 4x7x7")
Markdown(markdown_tables(unpooled, "without pooling"))

# %% figure="unpooled"
differences(unpooled, "pooling", "frames", title="minus none, without pooling")

# %%
Markdown(markdown_tables(by_frame, "7 x 7 of each frame"))

# %% figure="by_frame"
differences(by_frame, "pooling", "frames", title="minus none, under 7 x 7 of each frame")

# %%
Markdown(markdown_tables(by_clip, "4 x 7 x 7"))

# %% figure="by_clip"
differences(by_clip, "pooling", "frames", title="minus none, under 4 x 7 x 7")

# %% [markdown]
# ## Does saliency choose information, or outliers?
# At equal tokens, each selector minus a random choice, on the tower as it is and with a register that takes its
# outliers.

# %%
chosen = add_differences(load_study(Path(results_dir) / "selectors_registers"), "Uniform x Saliency random")
Markdown(markdown_tables(chosen, "selectors"))

# %% figure="selectors"
towers = chosen.assign(tower=chosen.model + ", " + chosen.frames.astype(str) + " frames")
differences(towers, "pooling", "tower", title="minus a random choice, by tower")

# %% [markdown]
# ## Where are they born, who sees them, and what do poolings do with them?

# %%
points = load_study_norms(Path(results_dir) / "real_tower")
figures = study_figures(points)
own = point_figures(points[place])
frame = norms_frame(points).set_index(["stage", "pooling"])
frame.filter(regex="^max_over_median$|(median|z|massive|phi|gap)\\.share$|low_texture$").sort_index()

# %% figure="scores"
own["scores"]

# %%
figures.get("births", "no outliers, so none are born")

# %%
figures.get("overlap", "no outliers, so none are kept, merged or dropped")
