"""The model arguments of a harness as a configuration: those of a point that ran, or words of the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from videopool.app import find_own_modules
from videopool.command import composed
from videopool.config.errors import ConfigError
from videopool.results.point import MANIFEST, part_of, read_json

STUDY = "lmms_eval"
SHORT = {"frames": "frames.num", "tokens": "pooling.tokens"}  # for numbers
# What a point says about its answers; the rest of a configuration says where and how fast.
OF_POINT = ("model", "lora", "pooling", "frames", "prompt", "compat", "pruning", "positions", "layout", "seed")
BESIDE = ("results_dir", "study", "data_dir", "features", "trainer", "job", "logger", "force")


def configuration(arguments: Mapping[str, Any]) -> DictConfig:
    """`point=<folder>` of a point that ran, or `model=..., pooling=..., frames=32, tokens=1568` and any other key.

    With a point, only keys of BESIDE may follow. Raises UserError for what the command line would refuse.
    """
    settings = {_key(name, value): value for name, value in arguments.items()}
    point = settings.pop("point", None)
    settings = {"study": STUDY, "logger": "none", **settings}
    if point is None:
        return composed(**settings)
    saved = part_of(read_json(Path(str(point)) / MANIFEST) or {}, "config")
    if any(name not in saved for name in OF_POINT):
        raise ConfigError(f"point={point}: no folder of a point, which has a {MANIFEST}")
    if more := [key for key in settings if key.split(".")[0].split("/")[0] not in BESIDE]:
        raise ConfigError(f"{more[0]}=...: point={point} says this already; leave one of the two out")
    find_own_modules()
    config = composed(**settings)
    for name in OF_POINT:
        OmegaConf.update(config, name, saved[name], merge=False, force_add=True)
    OmegaConf.update(config, "job.reader", part_of(saved, "job").get("reader", config.job.reader))
    OmegaConf.update(config, "trainer.precision", part_of(saved, "trainer").get("precision"), force_add=True)
    return config


def _key(name: str, value: object) -> str:
    return SHORT.get(name, name) if isinstance(value, int) and not isinstance(value, bool) else name
