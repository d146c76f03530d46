"""The import direction, and that every configuration builds what it says."""

import ast
import graphlib
import re
from functools import cache
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from videopool.config.build import build
from videopool.jobs.run import JOBS, job_of
from videopool.paths import PUBLISHED, shipped
from videopool.pooling import Pooling
from videopool.video import Sampler

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "videopool"
# The rooms, from the top down, and what each imports from. Nothing is listed that nobody uses.
ROOMS: dict[str, set[str]] = {
    "harness": {"command", "app", "evaluation", "points", "config", "reading", "models", "benchmarks",
        "results", "files", "runtime", "errors"},
    "command": {"app", "evaluation", "results", "commandline", "errors"},
    "app": {"jobs", "inference", "runtime", "commandline", "paths"},
    "jobs": {"speed", "evaluation", "training", "tracking", "film", "planning", "measuring", "reports", "points",
        "inference", "config", "shapes", "models", "features", "benchmarks", "results", "norms", "training_data",
        "pooling", "video", "figures", "files", "notes", "runtime", "commandline", "errors"},
    "speed": {"evaluation", "training", "planning", "points", "inference", "config", "reading", "models", "features",
        "benchmarks", "results", "pooling", "video", "runtime", "errors"},
    "evaluation": {"tracking", "points", "inference", "config", "reading", "models", "features", "judges", "benchmarks",
        "results", "pooling", "video", "chat", "notes", "runtime"},
    "training": {"tracking", "points", "inference", "config", "reading", "models", "features", "results", "norms",
        "training_data", "pooling", "video", "files", "notes", "runtime", "errors"},
    "tracking": {"reports", "config", "results", "norms", "files", "notes", "errors"},
    "film": {"measuring", "points", "inference", "config", "models", "features", "benchmarks", "norms", "pooling",
        "video", "figures", "errors"},
    "planning": {"reports", "points", "inference", "config", "models", "benchmarks", "results", "pooling", "files",
        "runtime", "errors"},
    "measuring": {"reports", "points", "inference", "config", "reading", "models", "features", "benchmarks", "results",
        "norms", "pooling", "figures", "files", "notes", "runtime"},
    "reports": {"config", "results", "video", "figures", "files", "runtime", "paths", "errors"},
    "points": {"inference", "config", "reading", "models", "features", "judges", "benchmarks", "results", "pooling",
        "video", "chat", "notes", "runtime", "errors"},
    "inference": {"config", "reading", "models", "features", "benchmarks", "results", "pooling", "video", "locks",
        "notes", "runtime", "errors"},
    "config": {"pooling", "paths", "errors"},
    "shapes": {"benchmarks", "training_data", "files", "locks", "runtime"},
    "reading": {"models", "pooling", "notes", "errors"},
    "models": {"pooling", "video", "files", "notes", "errors"},
    "features": {"video", "files", "locks", "errors"},
    "judges": {"benchmarks", "chat"},
    "benchmarks": {"video", "files", "notes", "errors"},
    "results": {"files", "locks", "errors"},
    "norms": {"pooling", "files", "errors"},
    "training_data": {"errors"},
    "compression": {"pooling"},
    "pooling": {"errors"},
    "video": {"notes", "errors"},
    "chat": {"errors"},
    "figures": {"files", "errors"},
    "files": {"locks"},
    "locks": {"notes"},
    "commandline": {"runtime", "paths", "errors"},
    "notes": {"runtime"},
    "runtime": set(),
    "paths": set(),
    "errors": set(),
}  # fmt: skip
WAYS = {"evaluation", "training", "measuring", "planning"}  # none imports another
# What is done in one place, and where that is.
ONLY_IN = {
    r"\bos\.(replace|rename|fsync)\(|\.rename\([^=()]+(\(.*\))?\)$": {"files.py"},
    r"\bfcntl\.|\bmkstemp\(|NamedTemporaryFile\(": {"locks.py"},
    r"\bConsole\(|^from rich\.progress": {"runtime/terminal.py"},
    # Lines about the work, and how it ended; the streams themselves.
    r"\bsys\.stderr\b": {"runtime/log.py", "runtime/terminal.py"},
}
LONGEST, LONGEST_JOB = 350, 120  # lines
LONG: set[str] = set()  # files that may be longer, by name


@cache
def imported_files() -> dict[str, set[str]]:
    """What each source file imports of others, at its top, inside functions and for types alone."""
    files = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found: dict[str, set[str]] = {}
    for path in files.values():
        names = []
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names += [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: a relative import"
                inner = [f"{node.module}.{a.name}" for a in node.names]
                names += [name if name in files else str(node.module) for name in inner]
        others = {files[name] for name in names if name in files and name != "videopool"} - {path}
        found[str(path.relative_to(SOURCE))] = {str(other.relative_to(SOURCE)) for other in others}
    return found


def room(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def test_rooms_import_what_stands_below_them():
    used: dict[str, set[str]] = {name: set() for name in ROOMS}
    for file, others in imported_files().items():
        if room(file) not in ("__init__", "__main__"):
            used[room(file)] |= {room(other) for other in others} - {room(file)}
    assert used == ROOMS
    order = list(ROOMS)
    for name, below in ROOMS.items():
        assert all(order.index(name) < order.index(other) for other in below), name
        assert "jobs" not in below or name == "app"
        assert name not in WAYS or not below & WAYS


def test_no_files_import_each_other_in_a_circle():
    graphlib.TopologicalSorter(imported_files()).prepare()  # raises CycleError, which names them


def test_files_are_short():
    long = set()
    for path in SOURCE.rglob("*.py"):
        most = LONGEST_JOB if path.parent.name == "jobs" else LONGEST
        if len(path.read_text().splitlines()) > most:
            long.add(str(path.relative_to(SOURCE)))
    assert long == LONG


def test_no_room_is_more_than_a_tenth_of_the_source():
    lines: dict[str, int] = {}
    for path in SOURCE.rglob("*.py"):
        name = room(str(path.relative_to(SOURCE)))
        lines[name] = lines.get(name, 0) + len(path.read_text().splitlines())
    assert max(lines.values()) <= sum(lines.values()) / 10, max(lines, key=lines.__getitem__)


def foreign_names(tree: ast.Module) -> set[str]:
    """What a file calls what it imports, but for two modules that are made to be set."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    return {(a.asname or a.name).split(".")[0] for node in nodes for a in node.names} - {"sys", "logging"}


def test_nobody_changes_what_it_imports():
    """Hydra apart, in one file; see its head."""
    changing, private = set(), set()
    for path in SOURCE.rglob("*.py"):
        tree, name = ast.parse(path.read_text()), str(path.relative_to(SOURCE))
        imported = foreign_names(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("setattr", "delattr"):
                owners = [node.args[0]]
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, (ast.Store, ast.Del)):
                owners = [node.value]
            else:
                continue
            if any(isinstance(owner, ast.Name) and owner.id in imported for owner in owners):
                changing.add(name)
        private |= {name} if "hydra._internal" in path.read_text() else set()
    assert changing == private == {"commandline/composing.py"}


def test_every_job_is_a_module_and_a_configuration():
    modules = {path.stem for path in (SOURCE / "jobs").glob("*.py")} - {"__init__", "run", "multirun"}
    assert modules == set(JOBS) == {path.stem for path in (shipped("conf") / "job").glob("*.yaml")}
    for name in JOBS:
        assert callable(job_of(name).run)


@pytest.mark.parametrize("pattern", ONLY_IN)
def test_what_has_one_place_is_done_there(pattern):
    found = {path for path in SOURCE.rglob("*.py") if re.search(pattern, path.read_text(), re.MULTILINE)}
    assert {str(path.relative_to(SOURCE)) for path in found} == ONLY_IN[pattern]


def test_nothing_uses_the_embedded_world_but_its_recipe():
    users = {file for file, others in imported_files().items() for other in others if room(other) == "shapes"}
    assert {file for file in users if room(file) != "shapes"} == {"jobs/pretrain.py"}


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


GROUPS = ("prompt", "features", "logger", "model", "benchmark", "trainer", "judge")
# One choice of each group at once, as long as there are such; a job's alone, which may drop groups.
TOGETHER = [dict(zip(GROUPS, row, strict=True)) for row in zip_longest(*map(configured, GROUPS))]
TOGETHER = [{group: name for group, name in row.items() if name} for row in TOGETHER]


@pytest.mark.parametrize(
    "choices", [*({"job": name} for name in configured("job")), *TOGETHER], ids=lambda row: "-".join(row.values())
)
def test_every_choice_composes(hydra_conf, choices):
    config = hydra_conf(*(f"{group}={name}" for group, name in choices.items()))
    assert all(config[group] for group in choices)
    for group in ("prompt", "features"):
        if choices.get(group, "chat_template") != "chat_template":  # which needs a model that has one
            assert build(config, group, without=("frames_at_once",)) is not None


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
