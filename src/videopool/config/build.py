"""Configuration nodes: read as plain Python, checked, made into objects."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, TypeAlias

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from videopool.config.errors import ConfigError
from videopool.errors import UserError, in_code
from videopool.pooling import Pooling


@dataclass(frozen=True)
class Number:
    """The rule for a number in low..high; `whole`: an integer; `null`: may be missing."""

    low: float
    high: float = inf
    whole: bool = False
    null: bool = False


def whole(low: int, high: float = inf, null: bool = False) -> Number:
    """The rule for an integer in low..high."""
    return Number(low, high, True, null)


Rules: TypeAlias = Mapping[Number | tuple[str, ...] | type[bool], Iterable[str]]


def check(config: DictConfig, rules: Rules) -> None:
    """Check settings, named by dotted keys, against their rule: a Number, the names to choose from, or bool.

    Raises ConfigError for the first wrong one, in one line with key, value and what is allowed.
    """
    for rule, keys in rules.items():
        for key in keys:
            value = OmegaConf.select(config, key)
            if isinstance(rule, Number):
                if value is not None or not rule.null:
                    number(config, key, rule.low, rule.high, rule.whole)
            elif isinstance(rule, tuple):
                if value not in rule:
                    raise ConfigError(f"{key}={value!r}: choose one of {', '.join(rule)}")
            elif not isinstance(value, bool):
                raise ConfigError(f"{key}={value!r}: say true or false")


def check_logger(config: DictConfig) -> None:
    """Raises ConfigError for wrong settings of the group `logger`."""
    check(config, {("wandb", "none"): ["logger.name"]})
    if config.logger.name == "wandb":
        check(config, {("offline", "online"): ["logger.mode"], whole(0): ["logger.predictions"]})
        if not isinstance(config.logger.project, str) or not config.logger.project:
            raise ConfigError(f"logger.project={config.logger.project!r}: give the name of a W&B project")


def is_number(value: object) -> bool:
    """Whether a value is a number, and neither true nor false."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def number(config: DictConfig, key: str, low: float, high: float = inf, whole: bool = False) -> Any:
    """A number from the configuration. Raises ConfigError with the key if it is no number or out of range."""
    value = OmegaConf.select(config, key)
    if not is_number(value) or (whole and isinstance(value, float)) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        limits = f"of at least {low:g}" if high == inf else f"in {low:g}..{high:g}"
        raise ConfigError(f"{key} must be {kind} {limits}, got {value!r}")
    return value


def plain(node: DictConfig) -> dict[str, Any]:
    """A node as plain Python, interpolations resolved. Raises ConfigError for a missing value (`???`)."""
    try:
        content: Any = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key} is not given; say {error.full_key}=...") from error
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    return {str(key): value for key, value in content.items()}


def jsonable(content: Any) -> Any:
    """Configuration nodes as dicts and lists, interpolations resolved; other values unchanged."""
    return OmegaConf.to_container(content, resolve=True) if OmegaConf.is_config(content) else content


def build(config: DictConfig, group: str, without: tuple[str, ...] = (), **more: Any) -> Any:
    """Instantiate a group's `_target_` with the group's other keys and `more`.

    Raises ConfigError, which names the group, for no such class or wrong arguments. A UserError passes through.
    """
    arguments = {key: value for key, value in plain(config[group]).items() if key not in without}
    if "_target_" not in arguments:
        raise ConfigError(f"{group}: there is no _target_ (the class to use)")
    try:
        return instantiate(arguments, _convert_="all", **more)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause from None
            cause = cause.__cause__
        raise ConfigError(f"{group}: {arguments['_target_']}: {in_code(str(arguments['_target_']), error)}") from error


def build_pooling(config: DictConfig, group: str = "pooling") -> Pooling:
    """Instantiate a group's pooling, without its stage. Raises ConfigError as build(), or for any other class."""
    pooling = build(config, group, without=("stage",))
    if not isinstance(pooling, Pooling):
        raise ConfigError(f"{group}: {type(pooling).__name__} is not a videopool.pooling.Pooling")
    return pooling
