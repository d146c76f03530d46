"""Checkpoints that go onto a base model (LoRA, a trained projector, or a whole wrapped model), and whether they fit it.

PLLaVA's trainer saves LoRA matrices and the projector under the names of its wrapped model, in one file or in shards,
sometimes with all base weights beside them; peft uses other names. Names are compared without their wrappers, so any
prefix works. The matrices themselves give the rank.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videopool.models import source as model_files
from videopool.models.backbone import Backbone
from videopool.models.errors import ModelError, listed
from videopool.models.families import FAMILIES
from videopool.models.peft_settings import PeftSettings, peft_settings
from videopool.models.source import ADAPTER_CONFIG, identity, locate, read_json

KEY = "lora.checkpoint"
ADAPTER = "default"  # peft's name for the one adapter
ABOUT = "videopool.json"  # beside weights that job=finetune exports: their training data and settings
# Names of whole parts and of towers in the families' models.
_KNOWN = FAMILIES.values()
PARTS = sorted({f"{family.projector_name}." for family in _KNOWN} | {f.newline for f in _KNOWN if f.newline})
# "vision_model." last, which stands within the others in older files.
TOWERS = sorted({f"{name}." for family in _KNOWN for name in family.towers.values()}, key=lambda name: "model" in name)
# Parts of LoRA: two matrices, a bias of the second, and DoRA's magnitudes.
LORA_A, LORA_B, BIAS, MAGNITUDES = "lora_A.weight", "lora_B.weight", "lora_B.bias", "lora_magnitude_vector"
_LORA = re.compile(r"^(.*)\.(lora_[AB]\.weight|lora_B\.bias|lora_magnitude_vector)(?:(?<=vector)\.weight)?$")
_LANGUAGE = re.compile(r"(?:^|\.)((?:embed_tokens|layers\.\d+|lm_head)\..*|norm\.weight)$")
_BUFFERS = re.compile(r"(rotary_emb\.inv_freq|position_ids)$")
_LAYER = re.compile(r"llm\.layers\.\d+\.(.*)")
PROBED, TOLERANCE = 64, 0.02  # numbers in a probe; relative tolerance: bfloat16 keeps 2 to 3 digits
# Files of a trainer beside an adapter's weights.
_TRAINERS = re.compile(r"^(training_args|optimizer|scheduler|random_states.*|rng_state.*)\.bin$")

Size = tuple[int, ...]


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
        return {module: parts[LORA_A][0] for module, parts in self.lora.items() if LORA_A in parts}

    def key(self, module: str) -> str:
        """The name of a module with LoRA in the file."""
        match = _LORA.match(self._places[f"{module}.{LORA_A}"][1].replace(f".{ADAPTER}.", "."))
        return match.group(1) if match else module

    def tensor(self, name: str) -> Tensor:
        """One tensor: a weight, or "<module>.<part of LoRA>"."""
        return model_files.tensor_in(*self._places[name])

    def has(self, part: str) -> bool:
        """Whether any module has a part of LoRA."""
        return any(part in parts for parts in self.lora.values())

    def add(self, path: Path, key: str, size: Size) -> None:
        """Add a tensor of a file. Raises ModelError if its canonical name is taken."""
        name = canonical(key)
        if match := _LORA.match(name):
            module, part = match.groups()
            name = f"{module}.{part}"
            self.lora.setdefault(module, {})[part] = size
        elif _BUFFERS.search(name):
            return
        else:
            self.plain[name] = size
        if name in self._places:
            raise ModelError(f"{KEY}={self.source}: {key} and {self._places[name][1]} are the same weight")
        self._places[name] = path, key


def load_adapter(source: str) -> AdapterCheckpoint:
    """Open a checkpoint: a folder or a Hugging Face id. A process opens an unchanged one once.

    Raises ModelError for a missing shard or none, an unreadable file, or settings of peft that are not computed here.
    """
    folder = locate(source, key=KEY).absolute()
    return _open(source, folder, identity(source, key=KEY))


@lru_cache(maxsize=8)
def _open(source: str, folder: Path, content: str) -> AdapterCheckpoint:
    where = f"{KEY}={source}"
    about = read_json(folder / ABOUT) if (folder / ABOUT).is_file() else {}
    stated: dict[str, Any] = {name: about.get(name) for name in ("base", "trained_pooling", "recipe", "training")}
    checkpoint = AdapterCheckpoint(source, content, **stated)
    alpha = about.get("lora_alpha")
    if (folder / ADAPTER_CONFIG).is_file():
        model_files.no_pointers([folder / ADAPTER_CONFIG], where)
        checkpoint.peft = peft_settings(read_json(folder / ADAPTER_CONFIG), where)
        alpha = checkpoint.peft.lora_alpha if alpha is None else alpha
    checkpoint.alpha = None if alpha is None else float(alpha)
    for path in _files(folder, where):
        for key, size in model_files.sizes_in(path, where).items():
            checkpoint.add(path, key, size)
    model_files.forget_weights()
    return checkpoint


def _files(folder: Path, where: str) -> list[Path]:
    """The files with weights. Raises ModelError if there are none, or if some are missing or would be ignored."""
    kinds = ("safetensors", "bin")
    found = sorted(path for kind in kinds for path in folder.glob(f"*.{kind}"))
    if adapter := [path for path in found if path.stem == "adapter_model"]:
        ignored = [path.name for path in found if path not in adapter and not _TRAINERS.match(path.name)]
        if ignored:
            raise ModelError(
                f"{where}: beside {adapter[-1].name} there is {listed(ignored)}, which would not be read; put all "
                "weights into one file, or move files that do not belong to the adapter elsewhere"
            )
        return adapter[-1:]  # rather safetensors than bin
    for stem, kind in itertools.product(("adapter_model", "model", "pytorch_model"), kinds):
        if (index := folder / f"{stem}.{kind}.index.json").is_file():
            return model_files.indexed(index, where)
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        if paths := sorted(folder.glob(pattern)):
            return model_files.all_shards(paths, where)
    raise ModelError(f"{where}: {folder} holds no weights (.safetensors or pytorch_model.bin)")


def probe(backbone: Backbone) -> list[float]:
    """One number of each of up to 64 matrices of the language model; empty where weights are not in memory.

    It is the same for a folder, the hub and other dtypes of one model, up to rounding, and with LoRA added; it differs
    for other weights.
    """
    layers: Any = backbone.language_model.layers
    named = [pair for layer in layers for pair in layer.named_parameters()]
    matrices = [weight for name, weight in named if weight.dim() == 2 and "lora_" not in name]
    if any(weight.is_meta for weight in matrices):
        return []
    if len(matrices) > PROBED:
        matrices = [matrices[i * len(matrices) // PROBED] for i in range(PROBED)]
    return [float(f"{float(weight.detach().flatten()[weight.numel() // 3]):.5g}") for weight in matrices]


def same_base(stated: Sequence[float], own: Sequence[float]) -> bool:
    """Whether two probes are of one model; true where one of them is empty."""
    if not stated or not own:
        return True
    one, other = torch.tensor(stated), torch.tensor(own)
    return len(one) == len(other) and torch.allclose(one, other, rtol=TOLERANCE, atol=1e-3 * float(one.abs().mean()))


def check(backbone: Backbone, checkpoint: AdapterCheckpoint, own: dict[str, str]) -> None:
    """Raises ModelError unless each weight has a place of its size among the base's, and no part is incomplete.

    `own` holds the names of the base's weights by canonical name.
    """
    where, peft = f"{KEY}={checkpoint.source}", checkpoint.peft
    if checkpoint.base is not None and not same_base(checkpoint.base.get("probe", ()), probe(backbone)):
        raise ModelError(
            f"{where}: it was trained on {checkpoint.base.get('source')}, and {backbone.name} has other weights"
        )
    if any(weight.is_meta for weight in backbone.model.parameters()):
        raise ModelError(
            f"{where}: a part of {backbone.name} is not in memory (offloaded); raise model.max_memory, or merge the "
            "checkpoint into the base"
        )
    state = backbone.model.state_dict()
    sizes = {name: tuple(state[path].shape) for name, path in own.items()}
    linear = {name for name, module in backbone.model.named_modules() if isinstance(module, nn.Linear)}
    wanted = [(name, size, sizes.get(name), sizes.get(name)) for name, size in checkpoint.plain.items()]
    for module, parts in checkpoint.lora.items():
        weight = f"{module}.weight"
        base = sizes[weight] if _module(own.get(weight, "")) in linear else None
        rank = parts[LORA_A][0] if LORA_A in parts else parts.get(LORA_B, (0,))[-1]
        matrices: dict[str, Size] = {LORA_A: (max(rank, 1), base[1]), LORA_B: (base[0], rank)} if base else {}
        for part, size in parts.items():
            wanted.append((f"{module}.{part}", size, matrices.get(part, base[:1] if base else None), base))
    for name, size, fitting, base in wanted:
        if fitting is not None and size != fitting:
            raise ModelError(
                f"{where}: {name} has size {list(size)}, but {backbone.name} has {list(base or ())} there; the "
                "checkpoint belongs to another base model"
            )
    if unknown := [name for name, _, fitting, _ in wanted if fitting is None]:
        raise ModelError(f"{where}: {backbone.name} has no place for unexpected keys: {listed(unknown)}")
    if peft is not None:
        _check_settings(checkpoint, peft)
    needed = [LORA_A, LORA_B, *(part for part in (BIAS, MAGNITUDES) if checkpoint.has(part))]
    missing = [f"{module}.{part}" for module in sorted(checkpoint.lora) for part in needed
               if part not in checkpoint.lora[module]]  # fmt: skip
    missing += _missing(backbone, checkpoint, own) if peft is None else _missing_of_peft(checkpoint, peft, own)
    if missing:
        raise ModelError(f"{where}: the checkpoint is incomplete: missing keys: {listed(missing)}")


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _check_settings(checkpoint: AdapterCheckpoint, peft: PeftSettings) -> None:
    """Raises ModelError where an adapter_config.json contradicts the weights beside it."""
    where = f"{KEY}={checkpoint.source}: {ADAPTER_CONFIG}"
    for setting, part, on in (("use_dora", MAGNITUDES, peft.use_dora), ("lora_bias", BIAS, peft.lora_bias)):
        if checkpoint.lora and on != checkpoint.has(part):
            raise ModelError(f"{where} says {setting}={on}, and the weights have {'no' if on else 'a'} {part}")
    keys = {module: checkpoint.key(module) for module in checkpoint.ranks}
    for module, rank in checkpoint.ranks.items():
        if peft.rank_of(keys[module]) != rank:
            raise ModelError(f"{where} says rank {peft.rank_of(keys[module])} of {module}, whose matrices have {rank}")
    if excluded := sorted(set(keys.values()) - peft.targeted(keys.values())):
        raise ModelError(
            f"{where} leaves out (target_modules and the settings beside it) {excluded[0]}, which has matrices"
        )


def _missing_of_peft(checkpoint: AdapterCheckpoint, peft: PeftSettings, own: dict[str, str]) -> list[str]:
    """Weights that an adapter_config.json names and the checkpoint lacks, in the parts that the checkpoint reaches.

    A part is the language model, the tower or the projector: an adapter may have been trained on one alone.
    """
    modules = {_module(path): _module(name) for name, path in own.items() if name.endswith(".weight")}
    reached = {module.split(".")[0] for module in checkpoint.ranks}
    present = {path for path, module in modules.items() if module in checkpoint.ranks}
    missing = []
    # An expression may fit only the names that modules had when the adapter was trained.
    if peft.targeted(present) == present:
        asked = peft.targeted(path for path, module in modules.items() if module.split(".")[0] in reached)
        missing += [f"{modules[path]}.{LORA_A}" for path in sorted(asked - present)]
    whole = {_module(name) for name in checkpoint.plain if not name.endswith(".bias")}
    for name, path in own.items():
        saved = _module(name) in whole or any(f"{end}." in path for end in peft.modules_to_save)
        if saved and name not in checkpoint.plain and not _BUFFERS.search(name):
            missing.append(name)
    return missing


def _missing(backbone: Backbone, checkpoint: AdapterCheckpoint, own: dict[str, str]) -> list[str]:
    """Weights that complete a checkpoint: LoRA in every layer, and each part whole or not at all."""
    kinds = {match.group(1) for match in map(_LAYER.match, checkpoint.lora) if match}
    modules = {f"llm.layers.{layer}.{kind}" for kind in kinds for layer in range(backbone.shape.layers)}
    projector = backbone.projector_name  # which may lie in the tower

    def part(name: str) -> str:
        return projector if name.startswith(f"{projector}.") else name.split(".")[0]

    parts = {part(name) for name in checkpoint.plain}
    weights = {name for name in own if part(name) in parts and not _BUFFERS.search(name)}
    if "llm.embed_tokens.weight" in checkpoint.plain:
        weights.discard("llm.lm_head.weight")  # it may be tied
    lora = [f"{module}.{LORA_A}" for module in sorted(modules - checkpoint.lora.keys())]
    return lora + sorted(weights - checkpoint.plain.keys())
