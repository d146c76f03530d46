"""The import direction, and that every configuration builds what it says."""

import ast
from pathlib import Path

import numpy as np
import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from videopool.jobs.build import build
from videopool.paths import PUBLISHED, shipped
from videopool.pooling import Pooling
from videopool.video import Sampler

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "videopool"
# What each room may import from. `jobs` and `app` stand above all.
ALLOWED = {
    "pooling": set(),
    "video": set(),
    "features": {"video"},
    "models": {"pooling", "video"},
    "benchmarks": {"video"},
    "chat": set(),
    "judges": {"benchmarks", "chat"},
    "training_data": {"video"},
    "results": set(),
    "norms": {"pooling"},
    "figures": set(),
    "reports": {"results", "video"},
    "shapes": {"video", "benchmarks", "training_data"},
    "speed": {"pooling", "models"},
    "jobs": {
        "pooling",
        "video",
        "features",
        "models",
        "benchmarks",
        "chat",
        "judges",
        "training_data",
        "results",
        "norms",
        "figures",
        "reports",
        "shapes",
        "speed",
    },
}


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            parts = name.split(".")
            if parts[0] == "videopool" and len(parts) > 1 and parts[1] in ALLOWED:
                yield parts[1]


@pytest.mark.parametrize("room", list(ALLOWED))
def test_imports_go_downward(room):
    for path in (SOURCE / room).rglob("*.py"):
        extra = set(imported_rooms(path)) - ALLOWED[room] - {room}
        assert not extra, f"{path.relative_to(ROOT)} imports {extra}"


def test_nothing_uses_the_embedded_world_but_its_recipe():
    users = {p.name for p in (SOURCE / "jobs").glob("*.py") if "shapes" in set(imported_rooms(p))}
    assert users == {"pretrain.py"}


def configured(group):
    return sorted(p.stem for p in (shipped("conf") / group).glob("*.yaml"))


@pytest.mark.parametrize("name", configured("pooling"))
def test_every_pooling_builds(hydra_conf, name):
    pooling = build(hydra_conf(f"pooling={name}"), "pooling", without=("stage",))
    assert isinstance(pooling, Pooling)
    assert (pooling.num_tokens(16, 12, 12) == 0) is (name == "blind")


@pytest.mark.parametrize("name", configured("frames"))
def test_every_sampler_builds(hydra_conf, name):
    assert isinstance(build(hydra_conf(f"frames={name}"), "frames"), Sampler)


@pytest.mark.parametrize("group", ["job", "prompt", "features", "logger", "model", "benchmark", "trainer", "judge"])
def test_every_choice_composes(hydra_conf, group):
    for name in configured(group):
        config = hydra_conf(f"{group}={name}")
        assert config[group]
        if group in ("prompt", "features"):
            assert build(config, group) is not None


@pytest.mark.parametrize("name", configured("view"))
def test_a_view_is_frames_and_a_pooling(hydra_conf, name):
    """As its name says: what is left of the frames, and how many there are."""
    pooling, frames = name.rsplit("_f", 1)
    config = hydra_conf(f"view={name}")
    assert config.frames.num == int(frames)
    grid = (config.frames.num, 12, 12)
    tokens = build(config, "pooling", without=("stage",)).num_tokens(*grid)
    sizes = {"none": grid, "average_time": (1, 12, 12)}.get(pooling) or [
        config.frames.num if part == "T" else int(part) for part in pooling.split("x")
    ]
    assert tokens == np.prod(sizes)


@pytest.mark.parametrize("group", ["training", "training_data"])
def test_every_choice_of_training_composes(hydra_conf, group):
    for name in configured(group):
        assert hydra_conf("job=finetune", f"{group}={name}")[group]
    assert set(hydra_conf("job=finetune", "training_data=[shapes,shapes_images]").training_data.sources) == {
        "shapes",
        "shapes_images",
    }


@pytest.mark.parametrize("name", sorted(p.stem for p in shipped("experiments").glob("*.yaml") if p.name != PUBLISHED))
def test_every_study_composes_and_says_what_it_asks(hydra_conf, name):
    assert hydra_conf(f"experiment={name}").study != "default"
    assert hydra_conf("job=plan", f"experiment={name}").job.name == "plan"
    head = (shipped("experiments") / f"{name}.yaml").read_text()
    for word in ("# Question:", "# Cost:", "# Figure:"):
        assert word in head


@pytest.mark.parametrize(
    ("name", "key", "points"),
    [("data_scaling", "training.share", 8), ("joint_images", "job.sources", 3)],
)
def test_studies_of_data_train_as_the_study_of_poolings_does(hydra_conf, name, key, points):
    study = OmegaConf.load(shipped("experiments") / f"{name}.yaml")
    words = [f"{one}={value}" for one, value in study.hydra.sweeper.params.items()]
    swept = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(words), None)[0]
    assert len(swept) == points
    usual = hydra_conf("experiment=finetune_pooling")
    for overrides in swept:
        config = hydra_conf(f"experiment={name}", *overrides)
        assert config.training == {**usual.training, "share": config.training.share}
        assert config.training_data.sources.shapes_events == usual.training_data.sources.shapes_events
        assert config.study == name
        assert set(config.job.sources or config.training_data.sources) <= set(config.training_data.sources)
    assert len({str(OmegaConf.select(hydra_conf(f"experiment={name}", *one), key)) for one in swept}) > 2


def test_the_project_speaks_of_itself_alone():
    for path in [*SOURCE.rglob("*.py"), *ROOT.glob("*.md"), *(ROOT / "conf").rglob("*.yaml")]:
        for line in path.read_text().splitlines():
            assert "/root/" not in line, path
            assert "/work/" not in line, path
