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
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_top_level(config: "DictConfig") -> None:
    """Refuse what no job can use; make text of folders' names that look like numbers, as in study=7.

    Raises:
        ValueError: in one line, naming the key.
    """
    for group in GROUPS:
        if not hasattr(config.get(group), "keys"):
            raise ValueError(f"{group}={_said(config.get(group))}: choose one of {_choices(group)}")
    for key in FOLDERS:
        value = config.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = config[key] = str(value)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{key}={_said(value)}: give the name of a folder")
        if _CONTROL.search(value) or not _writable(value):
            raise ValueError(f"{key}={value!r}: no folder can have this name")
    study = config.study
    if "/" in study or study.strip() in (".", ".."):
        raise ValueError(
            f"study={study}: a study is one folder below results_dir; give a name without '/' "
            "(results_dir=... chooses where)"
        )
    seed, force = config.get("seed"), config.get("force")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"seed={_said(seed)}: give a whole number of at least 0")
    if not isinstance(force, bool):
        raise ValueError(f"force={_said(force)}: say true or false")


def _said(value: object) -> str:
    """A value as the command line has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _writable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are no text
        return False
    return True


def _choices(group: str) -> str:
    return ", ".join(sorted(path.stem for path in (shipped("conf") / group).glob("*.yaml")))


def check_choices(overrides: Iterable[str], options: Callable[[str], Sequence[str]]) -> None:
    """Refuse numbers where the name of one of a group's files belongs, as in frames=8.

    Args:
        options: names of a group's files; none of what is no group.

    Raises:
        ValueError: in one line, with what may have been meant.
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
    """The first whole number among the settings of the group's usual choice."""
    from omegaconf import OmegaConf

    conf = shipped("conf")
    entries: Any = OmegaConf.to_container(OmegaConf.load(conf / "config.yaml").defaults)
    for entry in entries:
        if isinstance(entry, dict) and entry.get(group):
            settings: Any = OmegaConf.to_container(OmegaConf.load(conf / group / f"{entry[group]}.yaml"))
            return next((str(key) for key, value in settings.items() if type(value) is int), None)
    return None


def quoted(word: str) -> str:
    """A word of the command line with quotes around values that are not ASCII, which Hydra takes in quotes alone.

    Values that have quotes, brackets or braces of their own stay as they are.
    """
    key, equals, value = word.partition("=")
    if not equals or value.isascii() or re.search(r"""['"\[\](){}]""", value):
        return word
    return key + equals + ",".join(one if one.isascii() else f"'{one}'" for one in value.split(","))
