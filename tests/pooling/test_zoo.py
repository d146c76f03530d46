"""The zoo: every operator at one budget, on both grids, and the study names them all."""

import pytest
from omegaconf import OmegaConf

from videopool.config.build import build
from videopool.paths import shipped

ZOO = sorted(path.stem for path in shipped("conf").joinpath("pooling", "zoo").glob("*.yaml"))
FRAMES = 16
MORE = ("dual_mean", "thumbnail_sampling")  # cannot do with so few: a token a frame more


@pytest.mark.parametrize(("budget", "side"), [("one_image_12", 12), ("one_image_24", 24)])
@pytest.mark.parametrize("name", ZOO)
def test_tokens_of_one_image(hydra_conf, name, budget, side):
    config = hydra_conf("experiment=zoo", f"budget={budget}", f"pooling=zoo/{name}")
    assert config.frames.num == FRAMES
    pooling = build(config, "pooling", without=("stage",))
    frames = 1 if pooling.tiles else FRAMES
    assert pooling.num_tokens(frames, side, side) == side**2 + FRAMES * (name in MORE)


def test_the_study_has_all_of_them():
    study = OmegaConf.load(shipped("experiments") / "zoo.yaml")
    swept = "".join(study.hydra.sweeper.params.pooling.split()).split(",")
    assert sorted(swept) == sorted(["none", *(f"zoo/{name}" for name in ZOO)])


def test_without_a_budget_it_is_said_what_is_missing(videopool):
    done = videopool("pooling=zoo/adaptive", check=1)
    assert "budget" in done.stderr
    assert "Traceback" not in done.stderr
