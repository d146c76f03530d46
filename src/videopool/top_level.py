"""Top-level keys and groups: checked before a job runs."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from videopool.paths import shipped

if TYPE_CHECKING:
    from omegaconf import DictConfig

FOLDERS = ("study", "results_dir", "data_dir")
GROUPS = (
    "features", "pooling", "frames", "job", "benchmark", "prompt", "lora", "model", "compat", "judge", "trainer",
    "logger",
)  # fmt: skip
LARGEST_SEED = 2**63 - 1
NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # control characters; bytes that are no text


def check_top_level(config: "DictConfig") -> None:
    """Refuse impossible values; make text of folder names that look like numbers, as in study=7.

    Raises:
        ValueError: in one line, with the key.
    """
    for group in GROUPS:
        if not hasattr(config.get(group), "keys"):
            choices = sorted(path.stem for path in (shipped("conf") / group).glob("*.yaml"))
            raise ValueError(f"{group}={_as_typed(config.get(group))}: choose one of {', '.join(choices)}")
    for key in FOLDERS:
        value = config.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = config[key] = str(value)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{key}={_as_typed(value)}: give the name of a folder")
        if NOT_IN_NAMES.search(value):
            raise ValueError(f"{key}={value!r}: no folder can have this name")
    study = config.study
    if "/" in study or study.strip() in (".", ".."):
        raise ValueError(
            f"study={study}: a study is one folder below results_dir; give a name without '/' "
            "(results_dir=... chooses where)"
        )
    seed, force = config.get("seed"), config.get("force")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"seed={_as_typed(seed)}: give a whole number of at least 0")
    if not isinstance(force, bool):
        raise ValueError(f"force={_as_typed(force)}: say true or false")


def _as_typed(value: object) -> str:
    """A value as on the command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_choices(overrides: Iterable[str], options: Callable[[str], Sequence[str]]) -> None:
    """Refuse a value where a group's choice belongs, as in frames=8.

    Args:
        options: choices of a group; empty for other keys.

    Raises:
        ValueError: in one line, with a suggestion.
    """
    for word in overrides:
        group, _, value = word.partition("=")
        group = group.lstrip("+~")
        if _no_name(value) and (names := [name for name in options(group) if not name.startswith("_")]):
            key = _number_of(group) if value != "null" else None
            meant = f"; for a number in it say {group}.{key}={value}" if key else ""
            raise ValueError(f"{word}: {group} is chosen by name, one of {', '.join(names)}{meant}")


def _no_name(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text.lower() in ("true", "false", "null") or text.startswith("{")
    return True


def _number_of(group: str) -> str | None:
    """The first integer key in the group's default choice."""
    from omegaconf import OmegaConf

    conf = shipped("conf")
    defaults: Any = OmegaConf.to_container(OmegaConf.load(conf / "config.yaml").defaults)
    choice = next((entry[group] for entry in defaults if isinstance(entry, dict) and entry.get(group)), None)
    if choice is None:
        return None
    settings: Any = OmegaConf.to_container(OmegaConf.load(conf / group / f"{choice}.yaml"))
    return next((str(key) for key, value in settings.items() if type(value) is int), None)


def quoted(word: str) -> str:
    """An override with quotes around its non-ASCII values, which Hydra's grammar requires.

    Values with quotes, brackets or braces of their own stay unchanged.
    """
    key, equals, value = word.partition("=")
    if not equals or value.isascii() or re.search(r"""['"\[\](){}]""", value):
        return word
    return key + equals + ",".join(part if part.isascii() else f"'{part}'" for part in value.split(","))
