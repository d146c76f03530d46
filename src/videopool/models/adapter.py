"""Checkpoints that are put onto a base model: LoRA, a trained projector, or a whole wrapped model.

PLLaVA's trainer saves LoRA matrices and the projector under the names that its wrapped model had, in one
file or in shards, some with all base weights beside them; peft saves an adapter under others. Names are
compared by what remains when wrappers are left out, so any prefix will do. The rank is the matrices' own.

With LoRA scaled by alpha / rank, alpha 0 leaves the base language model behind the *trained* projector; the
untouched base is the model without the checkpoint.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from videopool.models.configuration import name_keys, read_json
from videopool.models.errors import ModelError
from videopool.models.probe import probe, same_base
from videopool.models.source import identity, locate

if TYPE_CHECKING:
    from videopool.models.backbone import Backbone

KEY = "lora.checkpoint"
ADAPTER = "default"  # peft's name for the one adapter
ABOUT = "videopool.json"  # beside weights that job=finetune exports: what they were trained on, and how
PROJECTOR = "multi_modal_projector."
_LORA = re.compile(r"^(.*)\.lora_([AB])\.weight$")
_LANGUAGE = re.compile(r"(?:^|\.)((?:embed_tokens|layers\.\d+|lm_head)\..*|norm\.weight)$")
_BUFFERS = re.compile(r"(rotary_emb\.inv_freq|position_ids)$")


def canonical(name: str) -> str:
    """A weight's name without wrappers: "tower...", "multi_modal_projector...", "llm..." or the name as it is."""
    plain = name.replace(".base_layer.", ".").replace(".modules_to_save.", ".").replace(f".{ADAPTER}.", ".")
    for part in (PROJECTOR, "image_newline"):
        if part in plain:
            return plain[plain.rindex(part) :]
    for tower in ("vision_tower.", "video_tower.", "image_tower."):
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
    """

    source: str
    identity: str
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    alpha: float | None = None
    trained_pooling: dict[str, Any] | None = None
    base: dict[str, Any] | None = None
    recipe: str | None = None
    training: dict[str, Any] | None = None
    _places: dict[str, tuple[Path, str]] = field(default_factory=dict)
    _loaded: dict[str, Tensor] = field(default_factory=dict)

    @property
    def ranks(self) -> dict[str, int]:
        """Rank of LoRA by canonical module name."""
        found = {}
        for name, shape in self.shapes.items():
            match = _LORA.match(name)
            if match and match.group(2) == "A":
                found[match.group(1)] = shape[0]
        return found

    @property
    def plain(self) -> list[str]:
        """Canonical names of the weights that are no LoRA matrices."""
        return [name for name in self.shapes if not _LORA.match(name)]

    def tensor(self, name: str) -> Tensor:
        """One tensor by canonical name."""
        if name in self._loaded:
            return self._loaded[name]
        path, key = self._places[name]
        with safe_open(path, "pt") as file:
            return file.get_tensor(key)


def load_adapter(source: str, revision: str | None = None) -> AdapterCheckpoint:
    """Open a checkpoint: a folder or a Hugging Face id.

    Raises:
        ModelError: no weights, a missing shard, or an unreadable file.
    """
    folder = locate(source, revision, KEY)
    checkpoint = AdapterCheckpoint(source, identity(source, revision, KEY))
    if (folder / "adapter_config.json").is_file():
        alpha = read_json(folder / "adapter_config.json").get("lora_alpha")
        checkpoint.alpha = None if alpha is None else float(alpha)
    if (folder / ABOUT).is_file():
        about = read_json(folder / ABOUT)
        checkpoint.base, checkpoint.trained_pooling = about.get("base"), about.get("trained_pooling")
        checkpoint.recipe, checkpoint.training = about.get("recipe"), about.get("training")
        if about.get("lora_alpha") is not None:
            checkpoint.alpha = float(about["lora_alpha"])
    for path in _files(folder, source):
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, "pt") as file:
                    for key in file.keys():  # noqa: SIM118 (not a mapping)
                        _add(checkpoint, key, tuple(file.get_slice(key).get_shape()), (path, key))
            else:
                for key, value in torch.load(path, map_location="cpu", weights_only=True).items():
                    _add(checkpoint, key, tuple(value.shape), (path, key))
                    checkpoint._loaded[canonical(key)] = value
        except (OSError, SafetensorError, RuntimeError, ValueError, AttributeError) as error:
            raise ModelError(f"{KEY}={source}: {path.name} cannot be read ({error})".splitlines()[0]) from error
    return checkpoint


def _add(checkpoint: AdapterCheckpoint, key: str, shape: tuple[int, ...], place: tuple[Path, str]) -> None:
    name = canonical(key)
    if _BUFFERS.search(name):
        return
    if name in checkpoint.shapes:
        raise ModelError(f"{KEY}={checkpoint.source}: {key} and {checkpoint._places[name][1]} are the same weight")
    checkpoint.shapes[name] = shape
    checkpoint._places[name] = place


def _files(folder: Path, source: str) -> list[Path]:
    """The files with weights. Raises ModelError if there are none, or if a shard is missing."""
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (folder / index).is_file():
            shards = sorted({folder / str(name) for name in read_json(folder / index).get("weight_map", {}).values()})
            missing = [path.name for path in shards if path.parent != folder or not path.is_file()]
            if missing:
                raise ModelError(f"{KEY}={source}: shards that {index} names are missing: {', '.join(missing[:4])}")
            return shards
    for pattern in ("adapter_model.safetensors", "*.safetensors", "adapter_model.bin", "pytorch_model*.bin"):
        if found := sorted(folder.glob(pattern)):
            return found
    raise ModelError(f"{KEY}={source}: {folder} holds no weights (.safetensors or pytorch_model.bin)")


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

    own = {canonical(name): name for name in backbone.model.state_dict()}
    shapes = {canonical(name): tuple(value.shape) for name, value in backbone.model.state_dict().items()}
    _check(backbone, checkpoint, shapes)
    weights = dict(backbone.model.named_parameters()) | dict(backbone.model.named_buffers())
    if any(name.startswith(PROJECTOR) for name in checkpoint.plain):
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
        return
    config = LoraConfig(
        r=max(ranks.values()),
        rank_pattern=dict(ranks),
        target_modules=sorted(ranks),
        lora_dropout=0.0,
        init_lora_weights=False,
    )
    inject_adapter_in_model(config, backbone.model, ADAPTER)
    layers = dict(backbone.model.named_modules())
    with torch.no_grad():
        for module in checkpoint.ranks:
            layer: Any = layers[own[f"{module}.weight"].removesuffix(".weight")]
            for side, matrices in (("A", layer.lora_A), ("B", layer.lora_B)):
                base = layer.base_layer.weight
                matrices[ADAPTER].to(base.device, base.dtype)
                matrices[ADAPTER].weight.copy_(checkpoint.tensor(f"{module}.lora_{side}.weight"))
    backbone.model.eval().requires_grad_(False)
    set_alpha(backbone, (checkpoint.alpha or 0.0) if alpha is None else alpha)


def _projector(backbone: "Backbone") -> dict[str, Tensor]:
    return dict(backbone.parts.multi_modal_projector.state_dict())


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


def _check(backbone: "Backbone", checkpoint: AdapterCheckpoint, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises ModelError unless every weight has its place, of the right size, and no part is incomplete."""
    where = f"{KEY}={checkpoint.source}"
    if checkpoint.base is not None and not same_base(checkpoint.base.get("probe", ()), probe(backbone)):
        raise ModelError(
            f"{where}: it was trained on {checkpoint.base.get('source')}, and {backbone.name} has other weights"
        )
    unknown = []
    for name, shape in checkpoint.shapes.items():
        match = _LORA.match(name)
        base = shapes.get(f"{match.group(1)}.weight") if match else shapes.get(name)
        if base is None:
            unknown.append(name)
            continue
        fits = (
            shape == base
            if match is None
            else shape[-1 if match.group(2) == "A" else 0] == (base[1] if match.group(2) == "A" else base[0])
        )
        if not fits:
            raise ModelError(
                f"{where}: {name} has size {list(shape)}, but {backbone.name} has {list(base)} there; "
                "the checkpoint belongs to another base model"
            )
    if unknown:
        raise ModelError(f"{where}: {backbone.name} has no place for {name_keys({'unexpected_keys': unknown})}")
    missing = _missing(checkpoint, shapes)
    if missing:
        raise ModelError(f"{where}: the checkpoint is incomplete: {name_keys({'missing_keys': missing})}")


def _missing(checkpoint: AdapterCheckpoint, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """What should be there beside what is: both LoRA matrices in every layer, and parts whole or not at all."""
    missing = []
    kinds = defaultdict(set)
    for module in {m.group(1) for m in map(_LORA.match, checkpoint.shapes) if m}:
        layer = re.match(r"llm\.layers\.(\d+)\.(.*)", module)
        if layer:
            kinds[layer.group(2)].add(int(layer.group(1)))
        missing += [f"{module}.lora_{s}.weight" for s in "AB" if f"{module}.lora_{s}.weight" not in checkpoint.shapes]
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
    """Scale LoRA by alpha / rank; 0 switches it off. Nothing is reloaded.

    Raises:
        ModelError: there is no LoRA to scale, or alpha is no number.
    """
    from peft.tuners.lora import LoraLayer

    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not alpha >= 0:
        raise ModelError(f"lora.alpha={alpha!r}: give a number of at least 0")
    layers = [module for module in backbone.model.modules() if isinstance(module, LoraLayer)]
    if not layers:
        raise ModelError(f"lora.alpha={alpha:g}: {backbone.name} has no LoRA to scale")
    for layer in layers:
        layer.scaling[ADAPTER] = alpha / layer.r[ADAPTER]
