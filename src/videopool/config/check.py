"""Settings held against what each may be."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from omegaconf import DictConfig, OmegaConf

from videopool.config.build import number
from videopool.config.errors import ConfigError


@dataclass(frozen=True)
class Number:
    """A number in low..high; with `whole`, without a fraction; with `null`, or none."""

    low: float
    high: float = float("inf")
    whole: bool = False
    null: bool = False


def whole(low: int, high: float = float("inf"), null: bool = False) -> Number:
    """A whole number in low..high."""
    return Number(low, high, True, null)


Rules: TypeAlias = Mapping[Number | tuple[str, ...] | type[bool], Iterable[str]]


def check(config: DictConfig, rules: Rules) -> None:
    """Hold settings, named by dotted keys, against their rule: a Number, the names to choose from, or bool.

    Raises:
        ConfigError: the first that is wrong, in one line with its key, its value and what is allowed.
    """
    for rule, key in ((rule, key) for rule, keys in rules.items() for key in keys):
        value = OmegaConf.select(config, key)
        if isinstance(rule, Number):
            if value is not None or not rule.null:
                number(config, key, rule.low, rule.high, rule.whole)
        elif not (value in rule if isinstance(rule, tuple) else isinstance(value, rule)):
            allowed = f"choose one of {', '.join(rule)}" if isinstance(rule, tuple) else "say true or false"
            raise ConfigError(f"{key}={value!r}: {allowed}")
