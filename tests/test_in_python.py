"""videopool.evaluate and videopool.sweep: what the command does, in this process, with Python's values and errors."""

import json
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

import videopool
from videopool.command import CommandFailed, _value
from videopool.errors import UserError
from videopool.paths import shipped


@pytest.fixture
def places(tmp_path, data_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = {"benchmark.clips": 60, "benchmark.per_task": 8, "benchmark.limit": 1}
    return {"results_dir": tmp_path / "results", "data_dir": data_dir, "logger": "none", "job.workers": 0, **small}


def test_they_are_what_the_package_offers():
    assert dir(videopool) == ["__version__", "evaluate", "sweep"]
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        _ = videopool.evalute


@pytest.mark.parametrize(
    "value",
    [3, -1, 0.5, True, None, "none", "plain", "a b", "vidé os/中文", "it's", "x,y", "[a]", "5", "1e3", "true", "",
     "a=b:c", [8, 6, 6], [None, 6, 6], ["a b", "c,d"], {"a": 1, "b": "x y", "c": [1, 2]}, "nan", "100%", "~/x",
     "\\d", "(x)"],
)  # fmt: skip
def test_values_arrive_as_they_are(value):
    (override,) = OverridesParser.create().parse_overrides([f"key={_value(value)}"])
    found = override.value()
    assert json.dumps(found, default=str) == json.dumps(value)


def test_a_point_is_that_of_the_command(places, videopool_command, tmp_path):
    with initialize_config_dir(str(shipped("conf")), version_base="1.3"):  # the caller's own
        argv = sys.argv
        row = videopool.evaluate(
            "pooling=adaptive", study="s", **{"pooling.shape": [2, 6, 6], "frames.num": 2}, **places
        )
        assert sys.argv is argv
        assert compose("config").frames.num == 16
    GlobalHydra.instance().clear()
    assert (row.visual_tokens, row.frames, row.status) == (72, 2, "complete")
    assert videopool_command("pooling=adaptive", "pooling.shape=[2,6,6]", "frames.num=2", "study=s").count("kept") == 1
    assert row.folder == str(next((tmp_path / "results" / "s").glob("*/metrics.json")).parent)


@pytest.fixture
def videopool_command(places, forked, tmp_path):
    words = [f"{key}={value}" for key, value in places.items()]
    return lambda *more: forked.run([*words, *more], tmp_path).stdout


def test_a_sweep_is_a_table(places, tmp_path):
    table = videopool.sweep(pooling=["none", "average"], study="s", **{"frames.num": [1, 2]}, **places)
    assert list(zip(table.pooling, table.frames, strict=True)) == [
        ("none", 1), ("none", 2), ("average time", 1), ("average time", 2),
    ]  # fmt: skip
    assert (tmp_path / "results" / "s" / "report.html").is_file()
    again = videopool.sweep(pooling="average", study="s", **{"frames.num": [2]}, **places)
    assert len(again) == 4


def test_refusals_are_errors_of_one_line(places, capsys):
    for words, settings, told in (
        (["poolng=adaptive"], {}, "did you mean pooling"),
        ([], {"frames.num": 0}, "frames.num must be a positive integer, got 0"),
        ([], {"pooling.shap": [1, 2, 3]}, "shap"),
        (["job=plan"], {}, "job=plan"),
        (["pooling=none,average"], {}, "pooling"),
    ):
        with pytest.raises(UserError) as error:
            videopool.evaluate(*words, **settings, **places)
        assert told in str(error.value)
        assert len(str(error.value).splitlines()) == 1
    with pytest.raises(UserError, match="sweep\\(\\) runs in this process"):
        videopool.sweep("hydra/launcher=joblib", **places)
    with pytest.raises(CommandFailed, match="1 of 2 points are not complete"):
        videopool.sweep(study="half", **{"frames.num": [0, 1]}, **places)
    assert "Traceback" not in capsys.readouterr().err
