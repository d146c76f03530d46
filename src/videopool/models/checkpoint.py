"""Checkpoints that go onto a base model: LoRA, a trained projector, or a whole wrapped model.

PLLaVA's trainer saves LoRA matrices and the projector under the names of its wrapped model, in one file or in shards,
sometimes with all base weights beside them; peft uses other names. Names are compared without their wrappers, so any
prefix works. The matrices themselves give the rank.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from videopool.models import weight_files
from videopool.models.errors import ModelError, listed
from videopool.models.families import FAMILIES
from videopool.models.peft_settings import PeftSettings, peft_settings
from videopool.models.source import identity, locate, read_json

KEY = "lora.checkpoint"
ADAPTER = "default"  # peft's name for the one adapter
CONFIG = "adapter_config.json"  # peft's
ABOUT = "videopool.json"  # beside weights that job=finetune exports: their training data and settings
# Names of whole parts and of towers in the families' models.
_KNOWN = FAMILIES.values()
PARTS = sorted({f"{family.projector_name}." for family in _KNOWN} | {f.newline for f in _KNOWN if f.newline})
TOWERS = sorted({f"{name}." for family in _KNOWN for name in family.towers.values()})
_LORA = re.compile(r"^(.*)\.(lora_[AB]\.weight|lora_B\.bias|lora_magnitude_vector)(?:(?<=vector)\.weight)?$")
_LANGUAGE = re.compile(r"(?:^|\.)((?:embed_tokens|layers\.\d+|lm_head)\..*|norm\.weight)$")
BUFFERS = re.compile(r"(rotary_emb\.inv_freq|position_ids)$")
# Files of a trainer beside an adapter's weights.
_TRAINERS = re.compile(r"^(training_args|optimizer|scheduler|random_states.*|rng_state.*)\.bin$")

Size = tuple[int, ...]


class Part(StrEnum):
    """Parts of LoRA: two matrices, a bias of the second, and DoRA's magnitudes."""

    A = "lora_A.weight"
    B = "lora_B.weight"
    BIAS = "lora_B.bias"
    MAGNITUDES = "lora_magnitude_vector"


def canonical(name: str) -> str:
    """A weight's name without wrappers: "<tower>...", "multi_modal_projector...", "llm...", else the name itself."""
    plain = name.replace(".base_layer.", ".").replace(".modules_to_save.", ".").replace(f".{ADAPTER}.", ".")
    for part in PARTS:
        if part in plain:
            return plain[plain.rindex(part) :]
    for tower in TOWERS:
        if tower in plain:
            return tower + plain.rsplit(tower, 1)[1].removeprefix("vision_model.")
    match = _LANGUAGE.search(plain)
    return f"llm.{match.group(1)}" if match else plain


@dataclass
class AdapterCheckpoint:
    """The content of a checkpoint, by canonical names; tensors are read from disk one at a time."""

    source: str  # from the configuration
    identity: str  # of its files
    plain: dict[str, Size] = field(default_factory=dict)  # sizes of weights outside LoRA
    lora: dict[str, dict[str, Size]] = field(default_factory=dict)  # sizes of LoRA's parts by module and part
    peft: PeftSettings | None = None  # from its adapter_config.json
    # From ABOUT, where there is one:
    alpha: float | None = None  # in training; also from adapter_config.json
    trained_pooling: dict[str, Any] | None = None  # settings and stage
    base: dict[str, Any] | None = None  # source and probe of the base model
    recipe: str | None = None  # hash of all that determined the training but the seed
    training: dict[str, Any] | None = None  # clips, images, examples, steps and operations
    _places: dict[str, tuple[Path, str]] = field(default_factory=dict)  # file and key of each tensor

    @property
    def ranks(self) -> dict[str, int]:
        """Rank of LoRA by module."""
        return {module: parts[Part.A][0] for module, parts in self.lora.items() if Part.A in parts}

    def key(self, module: str) -> str:
        """The name of a module with LoRA in the file."""
        match = _LORA.match(self._places[f"{module}.{Part.A}"][1].replace(f".{ADAPTER}.", "."))
        return match.group(1) if match else module

    def tensor(self, name: str) -> Tensor:
        """One tensor: a weight, or "<module>.<part of LoRA>"."""
        return weight_files.tensor(*self._places[name])

    def has(self, part: str) -> bool:
        """Whether any module has a part of LoRA."""
        return any(part in parts for parts in self.lora.values())

    def add(self, path: Path, key: str, size: Size) -> None:
        """Add a tensor of a file. Raises ModelError if its canonical name is taken."""
        name = canonical(key)
        match = _LORA.match(name)
        if match:
            module, part = match.groups()
            name = f"{module}.{part}"
            self.lora.setdefault(module, {})[part] = size
        elif BUFFERS.search(name):
            return
        else:
            self.plain[name] = size
        if name in self._places:
            raise ModelError(f"{KEY}={self.source}: {key} and {self._places[name][1]} are the same weight")
        self._places[name] = path, key


def load_adapter(source: str, revision: str | None = None) -> AdapterCheckpoint:
    """Open a checkpoint: a folder or a Hugging Face id. A process opens an unchanged one once.

    Raises:
        ModelError: no weights, a missing shard, an unreadable file, or settings of peft that are not computed here.
    """
    folder = locate(source, revision, KEY).absolute()
    return _open(source, folder, identity(source, revision, KEY))


@lru_cache(maxsize=8)
def _open(source: str, folder: Path, content: str) -> AdapterCheckpoint:
    where = f"{KEY}={source}"
    checkpoint = AdapterCheckpoint(source, content)
    if (folder / CONFIG).is_file():
        weight_files.no_pointers([folder / CONFIG], where)
        checkpoint.peft = peft_settings(read_json(folder / CONFIG), where)
        checkpoint.alpha = checkpoint.peft.alpha
    if (folder / ABOUT).is_file():
        about = read_json(folder / ABOUT)
        for name in ("base", "trained_pooling", "recipe", "training"):
            setattr(checkpoint, name, about.get(name))
        if about.get("lora_alpha") is not None:
            checkpoint.alpha = float(about["lora_alpha"])
    for path in _files(folder, where):
        for key, size in weight_files.shapes(path, where).items():
            checkpoint.add(path, key, size)
    weight_files.forget()
    return checkpoint


def _files(folder: Path, where: str) -> list[Path]:
    """The files with weights. Raises ModelError if there are none, or if some are missing or would be ignored."""
    alone = any((folder / f"adapter_model.{kind}").is_file() for kind in ("safetensors", "bin"))
    stems = ("adapter_model", "model", "pytorch_model")
    for name in (f"{stem}.{kind}.index.json" for stem in stems for kind in ("safetensors", "bin")):
        if not alone and (folder / name).is_file():
            return weight_files.indexed(folder / name, where)
    for pattern in ("adapter_model.safetensors", "adapter_model.bin", "*.safetensors", "pytorch_model*.bin"):
        if paths := sorted(folder.glob(pattern)):
            read = {path.stem for path in paths}
            others = sorted(path for kind in ("safetensors", "bin") for path in folder.glob(f"*.{kind}"))
            ignored = [path.name for path in others if path.stem not in read and not _TRAINERS.match(path.name)]
            if ignored and pattern.startswith("adapter_model"):
                raise ModelError(
                    f"{where}: beside {paths[0].name} there is {listed(ignored)}, which would not be read; put all "
                    "weights into one file, or move files that do not belong to the adapter elsewhere"
                )
            return weight_files.all_shards(paths, where)
    raise ModelError(f"{where}: {folder} holds no weights (.safetensors or pytorch_model.bin)")
