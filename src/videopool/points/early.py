"""What a configuration alone can tell is checked here, before clips are rendered or weights are read."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from videopool.benchmarks.benchmark import SCORINGS
from videopool.config.build import Number, Rules, check, check_logger, whole
from videopool.config.errors import ConfigError
from videopool.models.configuration import ATTENTIONS, DTYPES

DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")  # accelerate's
MODEL_RULES: Rules = {
    tuple(DTYPES): ["model.dtype"],
    ATTENTIONS: ["model.attention"],
    Number(1, null=True): ["model.rope_factor"],
}
COUNT = whole(1, null=True)
PACKAGE = __name__.partition(".")[0] + "."


def check_settings(config: DictConfig, rules: Rules) -> None:
    """Raises ConfigError for a wrong value in the groups that all points have; `rules` are checked too."""
    check_logger(config)
    if not isinstance(config.baseline, str) or not config.baseline:
        raise ConfigError(f"baseline={config.baseline!r}: give the name of a pooling or of a point")
    if "root" in config.features and not config.features.root:
        raise ConfigError("features.root: give the name of a folder")
    benchmark = config.benchmark
    if benchmark.get("scoring") is not None:
        rules = {**rules, SCORINGS: ["benchmark.scoring"]}
    shipped = str(benchmark.get("_target_")).startswith(PACKAGE)
    if shipped:
        more = ["benchmark.limit", "benchmark.max_new_tokens"]
        rules = {**rules, COUNT: [*rules.get(COUNT, ()), *more]}
    check(config, rules)
    if shipped:
        groups, headline = benchmark.get("groups"), benchmark.get("headline")
        if groups is not None and not OmegaConf.is_dict(groups):
            raise ConfigError(f"benchmark.groups={groups}: give lists of tasks by name, as in {{causal: [CH, CW]}}")
        if headline is not None and groups is not None and headline not in groups:
            raise ConfigError(f"benchmark.headline={headline!r}: groups are {', '.join(map(str, groups))}")


def check_model(config: DictConfig) -> None:
    """Raises ConfigError for a wrong value in the group `model`, of a model on this machine."""
    check(config, MODEL_RULES)
    device_map, max_memory = config.model.get("device_map"), config.model.get("max_memory")
    if device_map is not None and not OmegaConf.is_dict(device_map) and device_map not in DEVICE_MAPS:
        choices = ", ".join(DEVICE_MAPS)
        raise ConfigError(f"model.device_map={device_map}: choose one of {choices}, null, or give a device by module")
    if max_memory is not None and not OmegaConf.is_dict(max_memory):
        raise ConfigError(f"model.max_memory={max_memory}: give a limit by device, as in {{0: 20GiB, cpu: 60GiB}}")


def check_machine(config: DictConfig, model: Mapping[str, Any]) -> None:
    """Raises ConfigError if the trainer finds no such device or strategy here, ModelError for a dtype that fails."""
    from videopool.inference.predict import check_trainer  # Lightning, which a finished point does not need
    from videopool.models.loading import check_attention

    check_trainer(config)
    check_attention(model["dtype"], model["attention"])
