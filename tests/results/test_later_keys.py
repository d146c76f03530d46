"""A setting added to a YAML, with its default in `results.fingerprint.LATER`, changes the fingerprint of nobody."""

import json
import shutil

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from videopool.evaluation.run import point_of
from videopool.measuring.settings import check, choose_clips, identify
from videopool.paths import shipped
from videopool.results import fingerprint
from videopool.results.comparison import identity_of
from videopool.results.fingerprint import LATER, without_later
from videopool.training import point
from videopool.training.point import TrainingPoint

OWN = """
from videopool.pooling import Average

class Later(Average):
    def __init__(self, axis, power=1):
        super().__init__(axis)
"""
YAML = "_target_: later_pooling.Later\naxis: time\n"
SMALL = ["pooling=later", "benchmark.clips=30", "benchmark.per_task=2", "frames.num=3"]
DATA = ["job=finetune", "training_data=shapes_images"]
DATA += ["training_data.sources.shapes_images.clips=30", "training_data.sources.shapes_images.per_task=2"]


def evaluated(config):
    return point_of(config).identity()


def measured(config):
    job, point = check(config), point_of(config)
    return identify(job, point, choose_clips(point, job["clips"]))


def trained(config):
    return TrainingPoint(config).identity()


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """A copy of the configuration with a pooling of one's own."""
    shutil.copytree(shipped("conf"), tmp_path / "conf")
    (tmp_path / "conf" / "pooling" / "later.yaml").write_text(YAML)
    (tmp_path / "later_pooling.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "conf"


def hashed(conf, identity, data_dir, *words):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        return fingerprint(identity(compose("config", overrides=[*SMALL, *words, f"data_dir={data_dir}"])))


@pytest.mark.parametrize(
    ("identity", "words"), [(evaluated, []), (measured, ["job=norms"]), (trained, DATA)], ids=lambda one: str(one)[:20]
)
def test_a_default_of_a_later_setting_is_not_hashed(conf, data_dir, monkeypatch, identity, words):
    before = hashed(conf, identity, data_dir, *words)
    (conf / "pooling" / "later.yaml").write_text(f"{YAML}power: 1\n")
    assert hashed(conf, identity, data_dir, *words) != before, "a completed YAML alone does change it"
    monkeypatch.setitem(LATER, "later_pooling.Later", {"power": 1})
    assert hashed(conf, identity, data_dir, *words) == before
    assert hashed(conf, identity, data_dir, *words, "pooling.power=2") != before


def test_settings_of_training_have_no_target_but_a_place(conf, data_dir, monkeypatch):
    before = hashed(conf, trained, data_dir, *DATA)
    recipe = conf / "training" / "_base.yaml"
    text = recipe.read_text()
    assert text.count("  rank: 32") == 1
    recipe.write_text(text.replace("  rank: 32", "  rslora: false\n  rank: 32") + "ema: null\n")
    monkeypatch.setitem(LATER, "training", {"ema": None})
    monkeypatch.setitem(LATER, "training.lora", {"rslora": False})
    monkeypatch.setattr(point, "check_new_lora", lambda *_: None)  # which knows no such setting
    assert hashed(conf, trained, data_dir, *DATA) == before
    assert hashed(conf, trained, data_dir, *DATA, "training.ema=0.9") != before
    assert hashed(conf, trained, data_dir, *DATA, "training.lora.rslora=true") != before


def test_later_settings_deep_in_lists_and_values_alike_but_in_kind(monkeypatch):
    monkeypatch.setitem(LATER, "A", {"k": 1})
    steps = [{"_target_": "A", "k": 1, "x": 1}, {"_target_": "A", "k": True}, {"_target_": "B", "k": 1}]
    kept = [{"_target_": "A", "x": 1}, *steps[1:]]
    assert without_later({"pooling": {"steps": steps}}) == {"pooling": {"steps": kept}}


def test_points_from_before_and_after_compare_as_equals(tmp_path, monkeypatch):
    monkeypatch.setitem(LATER, "prompt", {"closing": ""})
    told = {"before": {"user": "U"}, "after": {"user": "U", "closing": ""}, "other": {"user": "U", "closing": "!"}}
    for name, prompt in told.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"identity": {"prompt": prompt}}))
    before, after, other = (identity_of(tmp_path / name) for name in told)
    assert before == after != other
