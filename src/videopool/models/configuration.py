"""A model's configuration, without anything that its weights would need."""

import json
from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from videopool.models.errors import ModelError
from videopool.models.shape import FAMILY_TOWERS
from videopool.models.source import CONFIGURATION, locate

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LISTED_KEYS = 4


def load_config(source: str, revision: str | None = None, rope_factor: float | None = None) -> Any:
    """A model's transformers configuration.

    Args:
        source: folder, Hugging Face id, or "videopool:...".
        revision: commit or branch on the hub.
        rope_factor: stretch the language model's rotary positions by this factor (linear scaling), and its
            context with them.

    Raises:
        ModelError: there is none, or it is of a family that is not supported.
    """
    folder = locate(source, revision, wanted=CONFIGURATION)
    try:
        config = deepcopy(_read_config(folder, (folder / "config.json").stat().st_mtime_ns))
    except Exception as error:  # whatever transformers makes of a broken file
        raise ModelError(f"model.source={source}: no configuration could be read ({first_line(error)})") from error
    if config.model_type not in FAMILY_TOWERS:
        raise ModelError(
            f"model.source={source}: model type {config.model_type!r} is not supported; "
            f"supported: {', '.join(FAMILY_TOWERS)}"
        )
    if rope_factor is not None:
        _stretch(config.text_config, rope_factor)
    return config


@lru_cache(maxsize=8)
def _read_config(folder: Path, _modified: int) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(str(folder))


def _stretch(text: Any, factor: float) -> None:
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or factor < 1:
        raise ModelError(f"model.rope_factor={factor!r}: give a number of at least 1, or null")
    rope = dict(text.rope_parameters)
    if rope.get("rope_type", "default") != "default":
        raise ModelError(f"model.rope_factor={factor}: the model scales its positions already ({rope['rope_type']})")
    text.rope_parameters = {**rope, "rope_type": "linear", "factor": float(factor)}
    text.max_position_embeddings = int(text.max_position_embeddings * factor)


def name_keys(wrong: Mapping[str, list[str]]) -> str:
    """The first few of each kind of wrong keys, and how many more there are."""
    parts = []
    for kind, keys in wrong.items():
        more = f" and {len(keys) - LISTED_KEYS} more" if len(keys) > LISTED_KEYS else ""
        parts.append(f"{kind.replace('_', ' ')}: {', '.join(keys[:LISTED_KEYS])}{more}")
    return "; ".join(parts)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object beside a model's weights. Raises ModelError if it is broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: no JSON object")
    return content


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
