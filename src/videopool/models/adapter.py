"""Checkpoints that are put onto a base model: LoRA, a trained projector, or a whole wrapped model.

PLLaVA's trainer saves LoRA matrices and the projector under the names that its wrapped model had, in one
file or in shards, some with all base weights beside them; peft saves an adapter under others. Names are
compared by what remains when wrappers are left out, so any prefix will do. The rank is the matrices' own.

With LoRA scaled by alpha / rank, alpha 0 leaves the base language model behind the *trained* projector; the
untouched base is the model without the checkpoint. What peft's adapter_config.json says is computed as peft computes
it, or refused: see peft_settings().
"""

import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from videopool.models import weight_files
from videopool.models.configuration import LISTED_KEYS, name_keys, read_json
from videopool.models.errors import ModelError
from videopool.models.families import FAMILIES
from videopool.models.peft_settings import PeftSettings, peft_settings
from videopool.models.probe import probe, same_base
from videopool.models.source import identity, locate

if TYPE_CHECKING:
    from videopool.models.backbone import Backbone

KEY = "lora.checkpoint"
ADAPTER = "default"  # peft's name for the one adapter
CONFIG = "adapter_config.json"  # peft's
ABOUT = "videopool.json"  # beside weights that job=finetune exports: what they were trained on, and how
# Names of whole parts and of towers in the families' models.
PARTS = sorted(
    {f"{one.projector_name}." for one in FAMILIES.values()} | {one.newline for one in FAMILIES.values()} - {""}
)
TOWERS = sorted({f"{name}." for one in FAMILIES.values() for name in one.towers.values()})
# Beside the two matrices, a bias of the second, and DoRA's magnitudes.
_LORA = re.compile(r"^(.*)\.(lora_[AB]\.weight|lora_B\.bias|lora_magnitude_vector)(?:(?<=vector)\.weight)?$")
MATRICES, BIAS, MAGNITUDES = ("lora_A.weight", "lora_B.weight"), "lora_B.bias", "lora_magnitude_vector"
# Beside an adapter's weights, what a trainer leaves.
_TRAINERS = re.compile(r"^(training_args|optimizer|scheduler|random_states.*|rng_state.*)\.bin$")
_LANGUAGE = re.compile(r"(?:^|\.)((?:embed_tokens|layers\.\d+|lm_head)\..*|norm\.weight)$")
_BUFFERS = re.compile(r"(rotary_emb\.inv_freq|position_ids)$")


def canonical(name: str) -> str:
    """A weight's name without wrappers: "tower...", "multi_modal_projector...", "llm..." or the name as it is."""
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
    """What a checkpoint holds; tensors are read from disk one at a time.

    Attributes:
        source: as the user named it.
        identity: what its files are.
        shapes: of its tensors by canonical name.
        alpha: that LoRA was trained with, if the checkpoint says so.
        trained_pooling: settings and stage of the pooling that it was trained under, if it says so.
        base: source and probe of the model that it was trained on, if it says so.
        recipe: hash of all that determined the training but the seed, if it says so.
        training: clips, images, examples, steps and operations of the training, if it says so.
        peft: what its adapter_config.json says, if it has one.
    """

    source: str
    identity: str
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    alpha: float | None = None
    trained_pooling: dict[str, Any] | None = None
    base: dict[str, Any] | None = None
    recipe: str | None = None
    training: dict[str, Any] | None = None
    peft: PeftSettings | None = None
    _places: dict[str, tuple[Path, str]] = field(default_factory=dict)

    @property
    def ranks(self) -> dict[str, int]:
        """Rank of LoRA by canonical module name."""
        found = {}
        for name, shape in self.shapes.items():
            match = _LORA.match(name)
            if match and match.group(2) == MATRICES[0]:
                found[match.group(1)] = shape[0]
        return found

    @property
    def plain(self) -> list[str]:
        """Canonical names of the weights that are no part of LoRA."""
        return [name for name in self.shapes if not _LORA.match(name)]

    def key(self, module: str) -> str:
        """The name that a module with LoRA has in the file, by its canonical name."""
        match = _LORA.match(self._places[f"{module}.{MATRICES[0]}"][1].replace(f".{ADAPTER}.", "."))
        return match.group(1) if match else module

    def tensor(self, name: str) -> Tensor:
        """One tensor by canonical name."""
        return weight_files.tensor(*self._places[name])


def load_adapter(source: str, revision: str | None = None) -> AdapterCheckpoint:
    """Open a checkpoint: a folder or a Hugging Face id. One that has not changed is opened once in a process.

    Raises:
        ModelError: no weights, a missing shard, an unreadable file, or an adapter_config.json with what is not
            computed here.
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
        checkpoint.base, checkpoint.trained_pooling = about.get("base"), about.get("trained_pooling")
        checkpoint.recipe, checkpoint.training = about.get("recipe"), about.get("training")
        if about.get("lora_alpha") is not None:
            checkpoint.alpha = float(about["lora_alpha"])
    for path in _files(folder, where):
        for key, shape in weight_files.shapes(path, where).items():
            _add(checkpoint, key, shape, (path, key))
    weight_files.forget()
    return checkpoint


def _add(checkpoint: AdapterCheckpoint, key: str, shape: tuple[int, ...], place: tuple[Path, str]) -> None:
    name = canonical(key)
    if name.endswith(f"{MAGNITUDES}.weight"):  # as a whole model's state has it
        name = name.removesuffix(".weight")
    if _BUFFERS.search(name):
        return
    if name in checkpoint.shapes:
        raise ModelError(f"{KEY}={checkpoint.source}: {key} and {checkpoint._places[name][1]} are the same weight")
    checkpoint.shapes[name] = shape
    checkpoint._places[name] = place


def _files(folder: Path, where: str) -> list[Path]:
    """The files with weights. Raises ModelError if there are none, a shard is missing, or some would not be read."""
    alone = any((folder / f"adapter_model.{kind}").is_file() for kind in ("safetensors", "bin"))
    stems = ("adapter_model", "model", "pytorch_model")
    for name in (f"{stem}.{kind}.index.json" for stem in stems for kind in ("safetensors", "bin")):
        if not alone and (folder / name).is_file():
            return weight_files.indexed(folder / name, where)
    for pattern in ("adapter_model.safetensors", "adapter_model.bin", "*.safetensors", "pytorch_model*.bin"):
        if found := sorted(folder.glob(pattern)):
            read = {path.stem for path in found}
            named = sorted(path for kind in ("safetensors", "bin") for path in folder.glob(f"*.{kind}"))
            left = [path.name for path in named if path.stem not in read and not _TRAINERS.match(path.name)]
            if left and pattern.startswith("adapter_model"):
                raise ModelError(
                    f"{where}: beside {found[0].name} there is {', '.join(left[:LISTED_KEYS])}, which would not be "
                    "read; put all weights into one file, or move what is none of the adapter elsewhere"
                )
            return weight_files.whole(found, where)
    raise ModelError(f"{where}: {folder} holds no weights (.safetensors or pytorch_model.bin)")


def attach(backbone: "Backbone", checkpoint: AdapterCheckpoint, alpha: float | None = None) -> None:
    """Put a checkpoint onto its base, for good; only alpha can be changed afterwards.

    Args:
        backbone: the base; changed in place.
        checkpoint: LoRA and projector, or more.
        alpha: scale of LoRA; None for the one it was trained with, or 0 where the checkpoint does not say.

    Raises:
        ModelError: the checkpoint is of another base, or incomplete.
    """
    from peft import LoraConfig, inject_adapter_in_model

    state = backbone.model.state_dict()
    own = {canonical(name): name for name in state}
    shapes = {canonical(name): tuple(value.shape) for name, value in state.items()}
    _check(backbone, checkpoint, own, shapes)
    _untie(backbone, checkpoint)
    weights = dict(backbone.model.named_parameters(remove_duplicate=False)) | dict(backbone.model.named_buffers())
    if any(name.startswith(f"{backbone.projector_name}.") for name in checkpoint.plain):
        backbone.base_projector = {name: one.cpu().clone() for name, one in _projector(backbone).items()}
    with torch.no_grad():
        for name in checkpoint.plain:
            weights[own[name]].copy_(checkpoint.tensor(name))
    if backbone.base_projector is not None:
        backbone.tuned_projector = {name: one.cpu().clone() for name, one in _projector(backbone).items()}
    if any("_tower." in name for name in checkpoint.shapes):
        backbone.identity = f"{backbone.identity}+{checkpoint.identity}"  # its features are others now
    ranks = {own[f"{module}.weight"].removesuffix(".weight"): rank for module, rank in checkpoint.ranks.items()}
    if not ranks:
        weight_files.forget()
        return
    told = checkpoint.peft
    if told is not None and told.alpha_pattern:
        backbone.alpha_parts = {
            own[f"{module}.weight"].removesuffix(".weight"): told.alpha_of(checkpoint.key(module)) / told.alpha
            for module in checkpoint.ranks
        }
    config = LoraConfig(
        r=max(ranks.values()),
        rank_pattern={re.escape(name): rank for name, rank in ranks.items()},
        use_rslora=told is not None and told.rslora,
        use_dora=any(name.endswith(f".{MAGNITUDES}") for name in checkpoint.shapes),
        lora_bias=any(name.endswith(f".{BIAS}") for name in checkpoint.shapes),
        target_modules=sorted(ranks),
        lora_dropout=0.0,
        init_lora_weights=False,
    )
    inject_adapter_in_model(config, backbone.model, ADAPTER)
    layers = dict(backbone.model.named_modules())
    with torch.no_grad():
        for module in checkpoint.ranks:
            layer: Any = layers[own[f"{module}.weight"].removesuffix(".weight")]
            base = layer.base_layer.weight
            for side, part in (("A", layer.lora_A), ("B", layer.lora_B)):
                part[ADAPTER].to(base.device, base.dtype)
                for kind, weight in part[ADAPTER].named_parameters():
                    weight.copy_(checkpoint.tensor(f"{module}.lora_{side}.{kind}"))
            if config.use_dora:
                layer.lora_magnitude_vector[ADAPTER].to(base.device, base.dtype)
                layer.lora_magnitude_vector[ADAPTER].weight.copy_(checkpoint.tensor(f"{module}.{MAGNITUDES}"))
    weight_files.forget()
    backbone.model.eval().requires_grad_(False)
    _scale(backbone, (checkpoint.alpha or 0.0) if alpha is None else alpha)


def _untie(backbone: "Backbone", checkpoint: AdapterCheckpoint) -> None:
    """Give the output layer a matrix of its own where a checkpoint has trained it apart from the word embeddings."""
    head, words = backbone.model.lm_head, backbone.model.get_input_embeddings()
    names = [name for name in ("llm.embed_tokens.weight", "llm.lm_head.weight") if name in checkpoint.shapes]
    if head.weight is not words.weight or not names:
        return
    # Peft trains a copy of the one that it is told to save, and leaves the other as it was.
    if checkpoint.peft is not None or (
        len(names) == 2 and not torch.equal(*(checkpoint.tensor(name) for name in names))
    ):
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)


def _projector(backbone: "Backbone") -> dict[str, Tensor]:
    named = backbone.projector.state_dict()
    return {name.replace("base_layer.", ""): weight for name, weight in named.items() if "lora_" not in name}


def set_projector(backbone: "Backbone", share: float) -> None:
    """Put the projector between the base's (0) and the checkpoint's (1), weight by weight; nothing is reloaded.

    Raises:
        ModelError: there is no projector to interpolate, or share is no finite number.
    """
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not abs(share) < float("inf"):
        raise ModelError(f"lora.projector={share!r}: give a number, 0 for the base's projector, 1 for the checkpoint's")
    if backbone.base_projector is None or backbone.tuned_projector is None:
        raise ModelError(f"lora.projector={share:g}: the checkpoint has no projector")
    with torch.no_grad():
        for name, weight in _projector(backbone).items():
            base, tuned = backbone.base_projector[name], backbone.tuned_projector[name]
            # Both ends to the bit.
            weight.copy_(base if share == 0 else tuned if share == 1 else base + share * (tuned - base))


def _check(
    backbone: "Backbone",
    checkpoint: AdapterCheckpoint,
    own: dict[str, str],
    shapes: dict[str, tuple[int, ...]],
) -> None:
    """Raises ModelError unless every weight has its place, of the right size, and no part is incomplete."""
    where = f"{KEY}={checkpoint.source}"
    if checkpoint.base is not None and not same_base(checkpoint.base.get("probe", ()), probe(backbone)):
        raise ModelError(
            f"{where}: it was trained on {checkpoint.base.get('source')}, and {backbone.name} has other weights"
        )
    if any(weight.is_meta for weight in backbone.model.parameters()):
        raise ModelError(
            f"{where}: a part of {backbone.name} is not in memory (offloaded); raise model.max_memory, or merge the "
            "checkpoint into the base"
        )
    unknown = []
    layers = dict(backbone.model.named_modules())
    for name, shape in checkpoint.shapes.items():
        match = _LORA.match(name)
        base = shapes.get(f"{match.group(1)}.weight") if match else shapes.get(name)
        if base is None or (match and not isinstance(layers[_module(own[f"{match.group(1)}.weight"])], nn.Linear)):
            unknown.append(name)
        elif shape != (_wanted(checkpoint, match, base) if match else base):
            raise ModelError(
                f"{where}: {name} has size {list(shape)}, but {backbone.name} has {list(base)} there; "
                "the checkpoint belongs to another base model"
            )
    if unknown:
        raise ModelError(f"{where}: {backbone.name} has no place for {name_keys({'unexpected_keys': unknown})}")
    if checkpoint.peft is not None:
        _check_settings(checkpoint, checkpoint.peft)
    missing = _missing_of_peft(checkpoint, own) if checkpoint.peft is not None else _missing(checkpoint, shapes)
    modules = {match.group(1) for match in map(_LORA.match, checkpoint.shapes) if match}
    kinds = list(MATRICES)
    kinds += [kind for kind in (BIAS, MAGNITUDES) if any(name.endswith(f".{kind}") for name in checkpoint.shapes)]
    wanted = [f"{module}.{kind}" for module in sorted(modules) for kind in kinds]
    missing = [name for name in wanted if name not in checkpoint.shapes] + missing
    if missing:
        raise ModelError(f"{where}: the checkpoint is incomplete: {name_keys({'missing_keys': missing})}")


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _wanted(checkpoint: AdapterCheckpoint, match: re.Match[str], base: tuple[int, ...]) -> tuple[int, ...]:
    """Size of a part of LoRA on a matrix of size `base`; the rank is that of the first matrix, where there is one."""
    module, kind = match.groups()
    rank = checkpoint.ranks.get(module, checkpoint.shapes[match.group(0)][-1])
    if kind == MATRICES[0]:
        return (max(rank, 1), base[1])
    return (base[0], rank) if kind == MATRICES[1] else (base[0],)


def _check_settings(checkpoint: AdapterCheckpoint, told: PeftSettings) -> None:
    """Raises ModelError where an adapter_config.json contradicts the weights beside it."""
    where = f"{KEY}={checkpoint.source}: {CONFIG}"
    for setting, kind, on in (("use_dora", MAGNITUDES, told.dora), ("lora_bias", BIAS, told.lora_bias)):
        if checkpoint.ranks and on != any(name.endswith(f".{kind}") for name in checkpoint.shapes):
            raise ModelError(f"{where} says {setting}={on}, and the weights have {'no' if on else 'a'} {kind}")
    keys = {module: checkpoint.key(module) for module in checkpoint.ranks}
    for module, rank in checkpoint.ranks.items():
        if told.rank_of(keys[module]) != rank:
            raise ModelError(f"{where} says rank {told.rank_of(keys[module])} of {module}, whose matrices have {rank}")
    left = sorted(set(keys.values()) - told.targeted(keys.values()))
    if left:
        raise ModelError(f"{where} leaves out (target_modules and what goes with it) {left[0]}, which has matrices")


def _missing_of_peft(checkpoint: AdapterCheckpoint, own: dict[str, str]) -> list[str]:
    """What should be there beside what is, by an adapter_config.json: all that it names, in the parts that it reaches.

    A part is the language model, the tower or the projector: an adapter may have been trained on one alone.
    """
    told = checkpoint.peft
    assert told is not None
    matrices = {name: path for name, path in own.items() if name.endswith(".weight")}
    parts = {module.split(".")[0] for module in checkpoint.ranks}
    present = {_module(own[f"{module}.weight"]) for module in checkpoint.ranks}
    missing = []
    # An expression may only fit the names that modules had when the adapter was trained.
    if told.targeted(present) == present:
        asked = told.targeted(_module(path) for name, path in matrices.items() if name.split(".")[0] in parts)
        here = {_module(path): _module(name) for name, path in matrices.items()}
        missing += [f"{here[path]}.{MATRICES[0]}" for path in sorted(asked - present) if len(here[path].split(".")) > 1]
    plain = set(checkpoint.plain)
    whole = {_module(name) for name in plain if not name.endswith(".bias")}
    for name, path in own.items():
        saved = any(_saves(path, end) for end in told.saved)
        if (saved or _module(name) in whole) and name not in plain and not _BUFFERS.search(name):
            missing.append(name)
    return missing


def _saves(path: str, end: str) -> bool:
    """Whether modules_to_save has an end of the name of a module that a weight is in."""
    parts = path.split(".")
    return any(".".join(parts[:count]).endswith(end) for count in range(1, len(parts)))


def _missing(checkpoint: AdapterCheckpoint, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """What should be there beside what is: LoRA in every layer, and parts whole or not at all."""
    missing = []
    kinds = defaultdict(set)
    for module in {m.group(1) for m in map(_LORA.match, checkpoint.shapes) if m}:
        layer = re.match(r"llm\.layers\.(\d+)\.(.*)", module)
        if layer:
            kinds[layer.group(2)].add(int(layer.group(1)))
    count = 1 + max((int(m.group(1)) for m in (re.match(r"llm\.layers\.(\d+)\.", n) for n in shapes) if m), default=-1)
    for kind, layers in kinds.items():
        missing += [f"llm.layers.{i}.{kind}.lora_A.weight" for i in range(count) if i not in layers]
    plain = set(checkpoint.plain)
    for part in {name.split(".")[0] for name in plain}:
        tied = {"llm.lm_head.weight"} if "llm.embed_tokens.weight" in plain else set()
        wanted = {name for name in shapes if name.split(".")[0] == part and not _BUFFERS.search(name)}
        missing += sorted(wanted - plain - tied)
    return missing


def lora_scales(module: nn.Module) -> dict[str, float]:
    """What each LoRA product below a module is multiplied with, by the layer's name; no weight says it."""
    found = ((name, getattr(layer, "scaling", None)) for name, layer in module.named_modules())
    return {name: float(scaling[ADAPTER]) for name, scaling in found if isinstance(scaling, dict)}


def set_alpha(backbone: "Backbone", alpha: float) -> None:
    """Scale LoRA by alpha / rank, or as its settings say; 0 switches it off. Nothing is reloaded.

    Where modules have alphas of their own, all change in proportion. Biases and modules that were trained whole stay.

    Raises:
        ModelError: there is no LoRA to scale, alpha is no number, or it is 0 for DoRA, whose trained magnitudes would
            stay.
    """
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 <= alpha < math.inf:
        raise ModelError(f"lora.alpha={alpha!r}: give a number of at least 0")
    layers = _lora_layers(backbone).values()
    if not layers:
        raise ModelError(f"lora.alpha={alpha:g}: {backbone.name} has no LoRA to scale")
    if alpha == 0 and any(layer.use_dora[ADAPTER] for layer in layers):
        raise ModelError(
            f"lora.alpha=0: the checkpoint of {backbone.name} is DoRA, whose magnitudes stay when matrices are off; "
            "give an alpha above 0, or lora=none for the base"
        )
    _scale(backbone, alpha)


def _lora_layers(backbone: "Backbone") -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in backbone.model.named_modules() if isinstance(module, LoraLayer)}


def _scale(backbone: "Backbone", alpha: float) -> None:
    for name, layer in _lora_layers(backbone).items():
        rank = layer.r[ADAPTER]
        divisor = math.sqrt(rank) if layer.use_rslora[ADAPTER] else rank
        layer.scaling[ADAPTER] = alpha * backbone.alpha_parts.get(name, 1.0) / divisor
