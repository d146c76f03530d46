"""From configuration nodes to objects."""

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from videopool.config.errors import ConfigError
from videopool.errors import UserError
from videopool.pooling import Pooling


def plain(node: DictConfig) -> dict[str, Any]:
    """A node as plain Python, interpolations resolved. Raises ConfigError for a value that is not given."""
    try:
        content = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key} is not given; say {error.full_key}=...") from error
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def build(config: DictConfig, group: str, without: tuple[str, ...] = (), **more: Any) -> Any:
    """The object that a group's `_target_` names, made with the group's other keys.

    Raises:
        ConfigError: no such class, or wrong arguments; naming the group. Errors of ours pass through.
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
        reason = error.__cause__ or error
        text = " ".join(str(reason).split())
        if not text or isinstance(reason, KeyError):  # which say nothing by themselves
            text = f"{type(reason).__name__} {text}".strip()
        raise ConfigError(f"{group}: {arguments['_target_']}: {text}") from error


def build_pooling(config: DictConfig, group: str = "pooling") -> Pooling:
    """The pooling of a group, without where it acts. Raises ConfigError as build() does, or if it is none."""
    pooling = build(config, group, without=("stage",))
    if not isinstance(pooling, Pooling):
        raise ConfigError(f"{group}: {type(pooling).__name__} is not a videopool.pooling.Pooling")
    return pooling


def number(config: DictConfig, key: str, low: float, high: float = float("inf"), whole: bool = False) -> Any:
    """A number from the configuration. Raises ConfigError naming the key if it is none or out of range."""
    value = OmegaConf.select(config, key)
    right_kind = isinstance(value, int) or (isinstance(value, float) and not whole)
    if not right_kind or isinstance(value, bool) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        limits = f"of at least {low:g}" if high == float("inf") else f"in {low:g}..{high:g}"
        raise ConfigError(f"{key} must be {kind} {limits}, got {value!r}")
    return value


def jsonable(content: Any) -> Any:
    """Configuration content with lists for sequences, for a manifest."""
    if isinstance(content, (DictConfig, ListConfig)):
        return OmegaConf.to_container(content, resolve=True)
    return content
