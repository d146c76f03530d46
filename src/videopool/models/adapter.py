"""Put checkpoints onto a base model, and scale what they change.

LoRA is scaled by alpha / rank, so alpha 0 leaves the base language model and the *trained* projector; the untouched
base is the model without the checkpoint. Settings of peft are computed as peft computes them; see peft_settings().
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from videopool.models import weight_files
from videopool.models.backbone import Backbone
from videopool.models.checkpoint import ADAPTER, BUFFERS, CONFIG, KEY, AdapterCheckpoint, Part, Size, canonical
from videopool.models.errors import ModelError, is_number, listed
from videopool.models.peft_settings import PeftSettings

_LAYER = re.compile(r"llm\.layers\.\d+\.(.*)")
PROBED, TOLERANCE = 64, 0.02  # numbers in a probe; relative tolerance: bfloat16 keeps 2 to 3 digits


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


def attach(backbone: Backbone, checkpoint: AdapterCheckpoint, alpha: float | None = None) -> None:
    """Put a checkpoint onto its base, for good; only alpha and the projector's share can change afterwards.

    Args:
        backbone: the base; changed in place.
        checkpoint: LoRA and projector, or more.
        alpha: scale of LoRA; None for the trained one, or 0 where the checkpoint states none.

    Raises:
        ModelError: the checkpoint belongs to another base, or is incomplete.
    """
    own = {canonical(name): name for name in backbone.model.state_dict()}
    _check(backbone, checkpoint, own)
    _untie(backbone, checkpoint)
    weights = backbone.model.state_dict()
    with torch.no_grad():
        if any(name.startswith(f"{backbone.projector_name}.") for name in checkpoint.plain):
            backbone.base_projector = {name: weight.cpu().clone() for name, weight in _projector(backbone).items()}
        for name in checkpoint.plain:
            weights[own[name]].copy_(checkpoint.tensor(name))
        if backbone.base_projector is not None:
            backbone.tuned_projector = {name: weight.cpu().clone() for name, weight in _projector(backbone).items()}
        if any("_tower." in name for name in [*checkpoint.plain, *checkpoint.lora]):
            backbone.identity = f"{backbone.identity}+{checkpoint.identity}"  # its features change too
        if checkpoint.lora:
            _add_lora(backbone, checkpoint, {module: _module(own[f"{module}.weight"]) for module in checkpoint.lora})
    weight_files.forget()
    _scale(backbone, (checkpoint.alpha or 0.0) if alpha is None else alpha)


def _add_lora(backbone: Backbone, checkpoint: AdapterCheckpoint, paths: dict[str, str]) -> None:
    """Put LoRA on modules, given by their paths in the model."""
    from peft import LoraConfig, inject_adapter_in_model

    peft, ranks = checkpoint.peft, checkpoint.ranks
    if peft is not None and peft.alpha_pattern:
        backbone.alpha_parts = {
            path: peft.alpha_of(checkpoint.key(module)) / peft.alpha for module, path in paths.items()
        }
    config = LoraConfig(
        r=max(ranks.values()),
        rank_pattern={re.escape(path): ranks[module] for module, path in paths.items()},
        use_rslora=peft is not None and peft.rslora,
        use_dora=checkpoint.has(Part.MAGNITUDES),
        lora_bias=checkpoint.has(Part.BIAS),
        target_modules=sorted(paths.values()),
        lora_dropout=0.0,
        init_lora_weights=False,
    )
    inject_adapter_in_model(config, backbone.model, ADAPTER)
    for module, path in paths.items():
        layer: Any = backbone.model.get_submodule(path)
        base = layer.base_layer.weight
        for part in checkpoint.lora[module]:
            name, _, kind = part.partition(".")
            own = getattr(layer, name)[ADAPTER].to(base.device, base.dtype)
            getattr(own, kind or "weight").copy_(checkpoint.tensor(f"{module}.{part}"))
    backbone.model.eval().requires_grad_(False)


def _untie(backbone: Backbone, checkpoint: AdapterCheckpoint) -> None:
    """Give the output layer its own matrix if the checkpoint trained it apart from the word embeddings."""
    head, words = backbone.model.lm_head, backbone.model.get_input_embeddings()
    names = [name for name in ("llm.embed_tokens.weight", "llm.lm_head.weight") if name in checkpoint.plain]
    if head.weight is not words.weight or not names:
        return
    # Peft trains a copy of the one that it is told to save, and leaves the other unchanged.
    if checkpoint.peft is not None or (
        len(names) == 2 and not torch.equal(*(checkpoint.tensor(name) for name in names))
    ):
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)


def _projector(backbone: Backbone) -> dict[str, Tensor]:
    """The projector's weights without LoRA."""
    weights = backbone.projector.state_dict()
    return {name.replace("base_layer.", ""): weight for name, weight in weights.items() if "lora_" not in name}


def set_projector(backbone: Backbone, share: float) -> None:
    """Interpolate each weight of the projector between the base's (0) and the checkpoint's (1); nothing is reloaded.

    Raises:
        ModelError: there is no projector to interpolate, or share is no finite number.
    """
    if not is_number(share):
        raise ModelError(f"lora.projector={share!r}: give a number, 0 for the base's projector, 1 for the checkpoint's")
    if backbone.base_projector is None or backbone.tuned_projector is None:
        raise ModelError(f"lora.projector={share:g}: the checkpoint has no projector")
    with torch.no_grad():
        for name, weight in _projector(backbone).items():
            base, tuned = backbone.base_projector[name], backbone.tuned_projector[name]
            # Both ends are bit-exact.
            weight.copy_(base if share == 0 else tuned if share == 1 else base + share * (tuned - base))


def _check(backbone: Backbone, checkpoint: AdapterCheckpoint, own: dict[str, str]) -> None:
    """Raises ModelError unless each weight has a place of its size, and no part is incomplete.

    Args:
        own: names of the base's weights by canonical name.
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
        rank = parts[Part.A][0] if Part.A in parts else parts.get(Part.B, (0,))[-1]
        for part, size in parts.items():
            fitting: dict[str, Size] = {Part.A: (max(rank, 1), base[1]), Part.B: (base[0], rank)} if base else {}
            wanted.append((f"{module}.{part}", size, fitting.get(part, base and base[:1]), base))
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
    needed = [Part.A, Part.B, *(part for part in (Part.BIAS, Part.MAGNITUDES) if checkpoint.has(part))]
    missing = [f"{module}.{part}" for module in sorted(checkpoint.lora) for part in needed
               if part not in checkpoint.lora[module]]  # fmt: skip
    missing += _missing(backbone, checkpoint, own) if peft is None else _missing_of_peft(checkpoint, peft, own)
    if missing:
        raise ModelError(f"{where}: the checkpoint is incomplete: missing keys: {listed(missing)}")


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _check_settings(checkpoint: AdapterCheckpoint, peft: PeftSettings) -> None:
    """Raises ModelError where an adapter_config.json contradicts the weights beside it."""
    where = f"{KEY}={checkpoint.source}: {CONFIG}"
    for setting, part, on in (("use_dora", Part.MAGNITUDES, peft.dora), ("lora_bias", Part.BIAS, peft.lora_bias)):
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
        missing += [f"{modules[path]}.{Part.A}" for path in sorted(asked - present)]
    whole = {_module(name) for name in checkpoint.plain if not name.endswith(".bias")}
    for name, path in own.items():
        saved = _module(name) in whole or any(f"{end}." in path for end in peft.saved)
        if saved and name not in checkpoint.plain and not BUFFERS.search(name):
            missing.append(name)
    return missing


def _missing(backbone: Backbone, checkpoint: AdapterCheckpoint, own: dict[str, str]) -> list[str]:
    """Weights that complete a checkpoint: LoRA in every layer, and each part whole or not at all."""
    kinds = {match.group(1) for match in map(_LAYER.match, checkpoint.lora) if match}
    modules = {f"llm.layers.{layer}.{kind}" for kind in kinds for layer in range(backbone.shape.layers)}
    parts = {name.split(".")[0] for name in checkpoint.plain}
    weights = {name for name in own if name.split(".")[0] in parts and not BUFFERS.search(name)}
    if "llm.embed_tokens.weight" in checkpoint.plain:
        weights.discard("llm.lm_head.weight")  # it may be tied
    lora = [f"{module}.{Part.A}" for module in sorted(modules - checkpoint.lora.keys())]
    return lora + sorted(weights - checkpoint.plain.keys())


def lora_scales(module: nn.Module) -> dict[str, float]:
    """The factor of each LoRA product below a module, by the layer's name; no weight contains it."""
    scalings = ((name, getattr(layer, "scaling", None)) for name, layer in module.named_modules())
    return {name: float(scaling[ADAPTER]) for name, scaling in scalings if isinstance(scaling, dict)}


def set_alpha(backbone: Backbone, alpha: float) -> None:
    """Scale LoRA by alpha / rank, or as its settings define; 0 switches it off. Nothing is reloaded.

    Where modules have their own alphas, all change in proportion. Biases and modules that were trained whole stay.

    Raises:
        ModelError: there is no LoRA to scale, alpha is no number of at least 0, or it is 0 for DoRA, whose trained
            magnitudes would stay.
    """
    if not is_number(alpha) or alpha < 0:
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


def _lora_layers(backbone: Backbone) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in backbone.model.named_modules() if isinstance(module, LoraLayer)}


def _scale(backbone: Backbone, alpha: float) -> None:
    for name, layer in _lora_layers(backbone).items():
        rank = layer.r[ADAPTER]
        divisor = math.sqrt(rank) if layer.use_rslora[ADAPTER] else rank
        layer.scaling[ADAPTER] = alpha * backbone.alpha_parts.get(name, 1.0) / divisor
