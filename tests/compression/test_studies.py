"""The studies of compressions: every command of their heads composes, for each model that they name."""

import re
import shlex
from itertools import product

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from test_compress import METHODS

from composed import composed
from videopool.config.build import build_pooling
from videopool.paths import shipped
from videopool.planning.cost import cost_of
from videopool.points.point import Point
from videopool.points.setting import StatedSetting
from videopool.pooling import checked, map_signature
from videopool.pooling.contract import random_context
from videopool.training.point import TrainingPoint

STUDIES = ("compression", "allocators", "selectors")
SIDES = {"mini": 12, "llava_next_vicuna_7b": 24, "llava_onevision_7b": 27}


def head(name):
    return (shipped("experiments") / f"{name}.yaml").read_text().partition("defaults:")[0]


def choices(words):
    """The elements of a sweep of overrides, by key."""
    parsed = OverridesParser.create().parse_overrides(words)
    return {
        "+" * override.is_add() + override.key_or_group: list(override.sweep_string_iterator())
        if override.is_sweep_override()
        else [override.get_value_element_as_str()]
        for override in parsed
    }


def swept(name):
    """The study's own choices."""
    params = OmegaConf.load(shipped("experiments") / f"{name}.yaml").hydra.sweeper.params
    return choices([f"{key}={value}" for key, value in params.items()])


def test_every_method_and_control_is_planned_at_its_budget(hydra_conf):
    study = swept("compression")
    assert {*study["pooling"], "dycoke"} == {*METHODS, "even", "random", "fastvid_mean", "dycoke"} - {"fastvid"}
    assert [float(share) for share in study["pooling.share"]] == [0.5, 0.25, 0.1, 0.05]
    models = {model: hydra_conf("experiment=compression", f"model={model}").model for model in SIDES}
    for place, pooling in enumerate(study["pooling"]):  # each at one of the budgets and numbers of frames
        share, frames = study["pooling.share"][place % 4], study["frames.num"][place // 4 % 2]
        words = [f"pooling={pooling}", f"pooling.share={share}", f"frames.num={frames}"]
        config = hydra_conf("experiment=compression", *words)
        for model, side in SIDES.items():
            config.model = models[model]
            size = int(frames) * side**2
            assert StatedSetting(config).pooled == (round if pooling == "vcast" else int)(float(share) * size)
    for model, side in SIDES.items():
        config = hydra_conf("job=plan", "experiment=compression", f"model={model}", "pooling=evs")
        assert cost_of(config)["visual_tokens"] == StatedSetting(config).shape.separators + 16 * side**2 // 4


def test_the_commands_of_controls_meet_the_budgets(hydra_conf):
    """Fewer frames and strides leave as many tokens, within the tolerance of equal budgets, as some share does."""
    lines = re.findall(r"^# +videopool -m (.*)$", head("compression"), re.MULTILINE)
    commands = [choices(shlex.split(line)) for line in lines]
    assert commands[0] == {"experiment": ["compression"]}
    found = set()
    for command in commands[1:]:
        command = {**(swept("compression") if "experiment" in command else {}), **command}
        for words in product(*([f"{key}={value}" for value in values] for key, values in command.items())):
            point = StatedSetting(hydra_conf(*words))
            found.add((point.pooling.label.split()[0], point.frames, point.pooled))
            assert point.config.study == "compression"
            assert point.config.baseline == "even"
    few = {tokens for name, _, tokens in found if name == "fewer"}
    for frames, share in product((16, 32), (0.5, 0.25, 0.1, 0.05)):
        budget = int(share * frames * 144)
        assert budget in few, (frames, share)
    assert {(name, tokens) for name, _, tokens in found if name in ("dycoke", "blind")} == {
        ("blind", 0), *(("dycoke", int(share * frames * 144)) for share in (0.5, 0.25) for frames in (16, 32))
    }  # fmt: skip


@pytest.mark.parametrize("name", ["allocators", "selectors"])
def test_parts_are_swept_under_names_of_their_own(hydra_conf, name):
    study = swept(name)
    (part,) = [key for key in study if key.startswith("pooling.") and key != "pooling.share"]
    labels = []
    for value in study[part]:
        config = hydra_conf(f"experiment={name}", f"++{part}={value}", "pooling.share=0.25")
        point = StatedSetting(config)
        assert point.pooled == 576
        labels.append(point.pooling.label)
    assert len(set(labels)) == len(labels)
    assert f"{config.baseline} 0.25" in labels
    models = set(re.findall(r"model=(\w+)", head(name)))
    assert models <= SIDES.keys()
    for model, value in product(models, study[part]):
        StatedSetting(hydra_conf(f"experiment={name}", f"model={model}", f"++{part}={value}"))


def clip_like(seed, frames=16, side=12, dim=16):
    """A grid in which patches change slowly, and once at a cut."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(frames, side, side, dim, generator=generator, dtype=torch.float64)
    grid, pace = [drawn[0]], torch.rand(side, side, 1, generator=generator, dtype=torch.float64) ** 2
    for t in range(1, frames):
        grid.append(drawn[t] if t == 5 + seed else (1 - pace) * grid[-1] + pace * drawn[t])
    return torch.stack(grid)[None] + drawn.mean(dim=(0, 1, 2)) * 20


@pytest.mark.parametrize("study", STUDIES)
def test_parts_that_pass_for_one_choose_alike(study):
    """A point is said to be identical to another only where every clip is pooled alike."""
    key, given = next((key, given) for key, given in swept(study).items() if key not in ("pooling.share", "frames.num"))
    found = {}
    for value in given:
        config = composed(
            f"experiment={study}", f"{'' if key == 'pooling' else '++'}{key}={value}", "pooling.share=0.25"
        )
        pooling = build_pooling(config)
        found.setdefault(str(map_signature(pooling, 16, 12, 12)), []).append(pooling)
    assert len(found) > len(given) - 3
    for same in found.values():
        assert len({(pooling.needs, pooling.saliency, pooling.block) for pooling in same}) == 1
        for seed in range(3):
            grid = clip_like(seed)
            contexts = (random_context(pooling.needs, *grid.shape[1:]) for pooling in same)
            pooled = [checked(pooling, grid, context) for pooling, context in zip(same, contexts, strict=True)]
            assert all(torch.equal(each, pooled[0]) for each in pooled), [pooling.label for pooling in same]


def test_outliers_are_tamed_dropped_or_kept_alone_under_every_pooling(hydra_conf):
    study = swept("outliers_causal")
    poolings = ("none", "adaptive Tx7x7", "adaptive 4x7x7")
    before = ["clip norm q0.5", "rescale norm mean", "drop outliers 3 neighbours", "drop all but outliers 3 neighbours"]
    before.append("drop random as outliers seed 0 3 neighbours")
    found = []
    for steps in study["pooling.steps"]:
        point = StatedSetting(hydra_conf("experiment=outliers_causal", f"pooling.steps={steps}", "frames.num=8"))
        assert point.config.pooling.stage == "encoder"
        found.append(point.pooling.label)
    assert found == [f"{word}{pooling}" for pooling in poolings for word in ["", *(f"{one} + " for one in before)]]
    assert point.config.baseline in found


def test_registers_are_swept_with_selectors(hydra_conf, data_dir):
    study = swept("selectors_registers")
    words = [f"++pooling.selector={study['pooling.selector'][0]}", f"model.tower={study['model.tower'][1]}"]
    small = ["experiment=selectors_registers", f"data_dir={data_dir}", "benchmark.clips=60", "benchmark.per_task=8"]
    point = Point(hydra_conf(*small, *words))
    assert point.identity()["tower"]["register"] == "test_time"
    assert len(point.identity()["tower"]["neurons"]) == 4
    assert Point(hydra_conf(*small, words[0])).identity()["tower"] is None
    labels = [
        StatedSetting(hydra_conf("experiment=selectors_registers", f"++pooling.selector={one}")).pooling.label
        for one in study["pooling.selector"]
    ]
    assert len(set(labels)) == 6
    assert labels[1].startswith(point.config.baseline)


def test_norms_are_trained_with_pooling_and_without(hydra_conf):
    study = swept("norms_training")
    found = [TrainingPoint(hydra_conf("experiment=norms_training", f"pooling={one}")) for one in study["pooling"]]
    assert [one.pooling.label for one in found] == ["none", "adaptive Tx6x6"]
    assert {one.config.training.steps for one in found} == {300}
