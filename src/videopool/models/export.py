"""Export of trained weights: PLLaVA's folder, and peft's with the projector in it.

The first has the names of PLLaVA's wrapped model (arXiv 2404.16994, tasks/train), whose loader takes one
model.safetensors; peft's PeftModel.from_pretrained opens the second on the base model.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from videopool.models.checkpoint import ABOUT, ADAPTER

PEFT = "peft"  # folder within the other
NOT_THE_WEIGHTS = ("transformers_version", "_name_or_path")  # release that wrote the base, and its path
_LANGUAGE = re.compile(r"^(?:model\.)?language_model\.")
_PROJECTOR = re.compile(r"^(?:model\.)?(?=multi_modal_projector\.)")


@dataclass(frozen=True)
class Trained:
    """The origin of trained weights."""

    source: str  # of the base model
    probe: list[float]  # of its weights, see probe()
    config: Mapping[str, Any]  # its transformers configuration
    pooling: Mapping[str, Any]  # in training: label, stage and settings
    frames: Mapping[str, Any]  # settings of the sampler
    recipe: str  # hash of all that determined the training but the seed
    lora: Mapping[str, Any] = field(default_factory=dict)  # rank, alpha, dropout, targets; empty without LoRA
    reference: Mapping[str, Any] = field(default_factory=dict)  # further keys of PLLaVA's config, e.g. pooling_shape
    facts: Mapping[str, Any] = field(default_factory=dict)  # clips, images, examples, steps and operations, for tables


def export(folder: Path, weights: Mapping[str, Tensor], trained: Trained) -> None:
    """Write trained weights, by transformers' names, to a PLLaVA folder and, with LoRA, a peft folder below it.

    Equal weights make equal files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file({_pllava_name(name): weight for name, weight in weights.items()}, folder / "model.safetensors")
    config = {name: value for name, value in trained.config.items() if name not in NOT_THE_WEIGHTS}
    _write(folder / "config.json", {**config, **trained.reference})
    about = {
        "base": {"source": trained.source, "probe": trained.probe},
        "trained_pooling": dict(trained.pooling),
        "trained_frames": dict(trained.frames),
        "recipe": trained.recipe,
        "training": dict(trained.facts),
        "lora_alpha": trained.lora.get("alpha"),
    }
    _write(folder / ABOUT, about)
    if trained.lora:
        _export_peft(folder / PEFT, weights, trained)
        _write(folder / PEFT / ABOUT, about)


def _pllava_name(name: str) -> str:
    return _PROJECTOR.sub("", _LANGUAGE.sub("language_model.base_model.model.model.", name))


def _export_peft(folder: Path, weights: Mapping[str, Tensor], trained: Trained) -> None:
    from peft import LoraConfig

    folder.mkdir(exist_ok=True)
    LoraConfig(
        base_model_name_or_path=trained.source,
        r=trained.lora["rank"],
        lora_alpha=trained.lora["alpha"],
        lora_dropout=trained.lora["dropout"],
        target_modules=rf".*language_model\.layers\.\d+\.self_attn\.({'|'.join(trained.lora['targets'])})",
        modules_to_save=["multi_modal_projector"],
        inference_mode=True,
    ).save_pretrained(str(folder))
    named = {f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": weight for name, weight in weights.items()}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True, default=str), encoding="utf-8")
