"""Hydra's private seams: a multirun composes a choice once, reads a file once, is refused before it starts."""

import inspect
import json
import subprocess
import sys
from copy import copy, deepcopy
from dataclasses import dataclass, field
from typing import Any

import hydra
import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from composed import composed
from quick_nodes import nodes_of_omegaconf
from videopool.app import register_experiments
from videopool.commandline.composing import check_configurations, compose_once, parse_once
from videopool.paths import shipped

SWEEP = """
import collections, json, sys
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository

counts = {"points": collections.Counter(), "files": collections.Counter(), "run": []}

def counted(owner, name, kind, key):
    method = getattr(owner, name)
    def call(*parts):
        counts[kind][key(parts)] += 1
        return method(*parts)
    setattr(owner, name, call)

counted(ConfigLoaderImpl, "load_sweep_config", "points", lambda parts: " ".join(parts[2]))
counted(ConfigRepository, "load_config", "files", lambda parts: parts[1])
import hydra
from videopool.commandline.composing import check_configurations, compose_once, parse_once

compose_once()
hydra.main(version_base="1.3", config_path=sys.argv.pop(1), config_name="config")(
    lambda config: counts["run"].append([config.kind.name, config.number])
)()
json.dump(counts, sys.stdout)
"""


def test_a_multirun_composes_each_point_once_and_reads_each_file_once(tmp_path):
    (tmp_path / "kind").mkdir()
    (tmp_path / "config.yaml").write_text("defaults: [kind: a, _self_]\nnumber: 0\n")
    for name in "ab":
        (tmp_path / "kind" / f"{name}.yaml").write_text(f"name: {name}\n")
    words = [str(tmp_path), "-m", "kind=a,b", "number=1,2", "hydra/hydra_logging=disabled"]
    done = subprocess.run([sys.executable, "-c", SWEEP, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["run"] == [["a", 1], ["a", 2], ["b", 1], ["b", 2]]
    assert counts["points"] == dict.fromkeys(
        ["kind=a number=1", "kind=a number=2", "kind=b number=1", "kind=b number=2"], 1
    )
    assert {"config", "kind/a", "kind/b"} <= counts["files"].keys()
    assert set(counts["files"].values()) == {1}


POINTS = (
    ("pooling=average", "frames.num=4"),
    ("frames.num=8", "pooling=average"),
    ("pooling=average", "frames.num=4", "frames.num=5"),
    ("pooling=adaptive", "pooling.shape=[8,6,6]", "seed=3", "frames=interior"),
    ("pooling=adaptive", "pooling.shape=[4,3,3]", "seed=3", "frames=interior"),
    ("study=7", "model.name='a b, c'", "benchmark.limit=null", "job.name=${study}"),
    ("model=llava_1.5_7b", "model.shape={layers: 3}", "features=disk"),
    ("+pooling.extra=1", "pooling.extra=2", "pooling=none"),
    ("pooling=average", "~pooling.axis"),
    ("++frames.num=3", "job=norms", "job.reader=decord"),
    ("hydra.sweep.subdir=here", "frames.num=3"),
    ("experiment=quickstart", "frames.num=3"),
)


def test_points_that_share_a_composition_are_what_hydra_composes():
    """Hydra's own way is the oracle: all keys, Hydra's too, and the types and flags of all nodes."""
    loader = ConfigLoaderImpl(create_config_search_path(str(shipped("conf"))))
    register_experiments(shipped("experiments"))
    with nodes_of_omegaconf():
        master = loader.load_configuration("config", ["hydra.job.name=x"], RunMode.MULTIRUN)
        with open_dict(master):
            master.hydra.overrides.hydra = []
        plain = [loader.load_sweep_config(master, list(words)) for words in POINTS]
    parse_once.__wrapped__()
    compose_once.__wrapped__()
    for words, expected in zip(POINTS, plain, strict=True):
        point = loader.load_sweep_config(master, list(words))
        assert nodes(point) == nodes(expected), words
        assert loader.load_sweep_config(master, list(words)) is point


def test_what_tests_compose_is_what_hydra_composes():
    register_experiments(shipped("experiments"))
    for words in POINTS:
        with nodes_of_omegaconf(), initialize_config_dir(str(shipped("conf")), version_base="1.3"):
            expected = compose("config", overrides=list(words))
        for _ in range(2):
            assert nodes(composed(*words)) == nodes(expected), words


OWN = {
    "config": "defaults: [kind: a, part@_global_: one, part@there: one, size: 'big_${kind}', _self_]\nnumber: 0\n",
    "kind/a": "name: ${number}\n",
    "kind/b": "defaults: [/part@inner: two]\nname: b\n",
    "part/one": "list: [1, {two: 2}]\n",
    "part/two": "# @package _global_\nlist: [3]\n",
    "size/big_a": "value: 1\n",
    "size/big_b": "value: ${number}\n",
}


def test_defaults_that_name_other_choices_and_packages_are_what_hydra_composes(tmp_path):
    """Twice: what a composition writes stays out of the files that the next one takes."""
    for name, text in OWN.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    points = ([], ["kind=b"], ["part@there=two", "list=[9]"], ["kind=b", "number=4", "+part@more=one"])
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        plain = [nodes(compose("config", overrides=words)) for words in points]
        compose_once.__wrapped__()
        for _ in range(2):
            assert [nodes(compose("config", overrides=words)) for words in points] == plain
        assert compose("config", overrides=["kind=b"]).size.value == 0


@dataclass
class Structured:
    kind: RunMode = RunMode.RUN
    size: int | None = 1
    parts: dict[str, Any] = field(default_factory=lambda: {"a": "${size}", "b": MISSING})
    rest: list[int] = field(default_factory=lambda: [1, 2])


def handled() -> list[Any]:
    """What nodes of all kinds become when they are copied, set, merged and flagged; and errors in words."""
    plain = OmegaConf.create(
        {"a": {"b": [1, "???", None, (2.5, "${a.c}")], "c": True, "d": {}}, 1: b"x", "e": None, "f": "", "g": "${h}"}
    )
    typed = OmegaConf.structured(Structured)
    OmegaConf.set_struct(plain, True)
    found: list[Any] = [plain, typed]
    for config in found[:2]:
        config._get_flag("readonly")
        found += [deepcopy(config), copy(config), OmegaConf.merge(config, config), OmegaConf.create(config)]
    other = deepcopy(plain)
    other._get_node("f")._set_flag("readonly", True)
    part = deepcopy(plain.a)
    with open_dict(plain):
        plain.moved, plain.a.d = part, {"new": typed}
        plain.a.b[1] = plain.a
    OmegaConf.set_readonly(plain.a, True)
    free = deepcopy(plain.moved)
    OmegaConf.set_struct(free, False)
    free.more = 1
    merged = OmegaConf.merge({"a": 1}, typed, {"kind": "MULTIRUN"}, {"parts": {"c": [plain]}})
    found += [plain, other, part, free, merged]
    locked = OmegaConf.create({"a": {"b": plain.a}}, flags={"allow_objects": True, "readonly": True})
    found.append(locked)
    for act in (
        lambda: OmegaConf.update(plain, "a.c", 3),
        lambda: setattr(plain, "other", 3),
        lambda: setattr(locked.a, "b", 3),
        lambda: setattr(typed, "size", "many"),
        lambda: OmegaConf.create({"a": object()}),
        lambda: OmegaConf.create({"a": "${"}),
        lambda: OmegaConf.to_container(found[2], throw_on_missing=True),
        lambda: found[2].g,
    ):
        with pytest.raises(OmegaConfBaseException) as error:
            act()
        found.append(str(error.value))
    return [nodes(one) if OmegaConf.is_config(one) else one for one in found]


def test_quick_nodes_are_those_of_omegaconf():
    quick = handled()
    with nodes_of_omegaconf():
        expected = handled()
    assert quick == expected
    assert handled() == expected


def nodes(node, path=""):
    """Type, flags and unresolved value of each node of a configuration, all of what it says of itself."""
    told = {name: value for name, value in vars(node._metadata).items() if name != "resolver_cache"}
    flags = [node._get_flag(name) for name in ("struct", "readonly", "allow_objects", "no_deepcopy_set_nodes")]
    found = {path: (type(node), told, flags, None)}
    if isinstance(node, (DictConfig, ListConfig)) and isinstance(node._value(), (dict, list)):
        keys = range(len(node)) if isinstance(node, ListConfig) else node.keys()
        for key in keys:
            assert node._get_node(key)._get_parent() is node
            found |= nodes(node._get_node(key), f"{path}.{key}")
    else:
        found[path] = (*found[path][:3], node._value())
    return found


def test_a_value_that_hydra_refuses_is_refused():
    loader = ConfigLoaderImpl(create_config_search_path(str(shipped("conf"))))
    master = loader.load_configuration("config", [], RunMode.MULTIRUN)
    parse_once.__wrapped__()
    compose_once.__wrapped__()
    for words in (["frames.nmu=3"], ["pooling=avreage", "frames.num=3"], ["frames.num@there=3"], ["frames.num.x=3"]):
        with pytest.raises((HydraException, OmegaConfBaseException)):
            loader.load_sweep_config(master, words)


SWEPT = ["a=choice(1,2)", "b=[1,{c: d}]", "seed=range(3)", "x.y='a b'", "~z", "+e@f=g", "a=choice(1,2)"]


def test_an_override_that_is_read_again_is_what_it_was():
    plain = OverridesParser.create().parse_overrides(SWEPT)
    parse_once.__wrapped__()
    for _ in range(2):
        for found, expected in zip(OverridesParser.create().parse_overrides(SWEPT), plain, strict=True):
            assert (found, found.input_line, found.config_loader) == (expected, expected.input_line, None)
            if found.is_sweep_override():
                assert list(found.sweep_iterator()) == list(expected.sweep_iterator())
    loader = ConfigLoaderImpl(create_config_search_path(str(shipped("conf"))))
    assert OverridesParser.create(loader).parse_overrides(SWEPT)[0].config_loader is loader
    assert OverridesParser.create().parse_overrides(SWEPT)[0].config_loader is None


def test_a_second_call_changes_nothing(tmp_path):
    """As when the program is called several times in one process."""
    code = """
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from videopool.commandline.composing import check_configurations, compose_once, parse_once

seams = []
for _ in range(2):
    compose_once()
    check_configurations()
    seams.append((ConfigLoaderImpl.load_sweep_config, ConfigLoaderImpl.load_configuration))
assert seams[0] == seams[1]
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_the_seams_take_what_they_took():
    taken = {
        ConfigLoaderImpl._apply_overrides_to_config: ["overrides", "cfg"],
        get_overrides_dirname: ["overrides", "exclude_keys", "item_sep", "kv_sep"],
        ConfigLoaderImpl.load_sweep_config: ["self", "master_config", "sweep_overrides"],
        ConfigRepository.load_config: ["self", "config_path"],
    }
    for seam, names in taken.items():
        assert list(inspect.signature(seam).parameters) == names
    assert list(inspect.signature(ConfigLoaderImpl.load_configuration).parameters)[:3] == [
        "self",
        "config_name",
        "overrides",
    ]
    assert callable(ConfigRepository.get_group_options)


@pytest.mark.parametrize(
    ("words", "spared"),
    [(["-m", "experiment=few", "pooling=none,average"], 1), (["experiment=many"], 0)],
)
def test_hydra_composes_once_to_see_the_mode_and_to_run(tmp_path, monkeypatch, words, spared):
    (tmp_path / "experiment").mkdir()
    for name, mode in (("few", ""), ("many", "hydra: {mode: MULTIRUN}\n")):
        (tmp_path / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{mode}frames: {{num: 3}}\n")
    silent = ["hydra/hydra_logging=disabled", "hydra/job_logging=disabled"]
    monkeypatch.setattr(sys, "argv", ["videopool", "-cd", str(tmp_path), *words, *silent])
    monkeypatch.chdir(tmp_path)
    register_experiments(shipped("experiments"))
    count, method = [], ConfigLoaderImpl._load_configuration_impl
    monkeypatch.setattr(
        ConfigLoaderImpl, "_load_configuration_impl", lambda *parts, **more: count.append(1) or method(*parts, **more)
    )

    def run():
        """How often Hydra composed, and what the points got."""
        count.clear()
        seen = []
        task = hydra.main(version_base="1.3", config_path=str(shipped("conf")), config_name="config")
        task(lambda config: seen.append([OmegaConf.to_yaml(config), OmegaConf.to_yaml(HydraConfig.get())]))()
        return len(count), seen

    plain, expected = run()
    parse_once.__wrapped__()
    check_configurations.__wrapped__()
    fewer, found = run()
    assert found == expected
    assert plain - fewer == spared
    assert len(found) == (2 if "-m" in words else 1)
