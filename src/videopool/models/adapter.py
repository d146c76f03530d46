"""Put checkpoints onto a base model, and scale what they change.

LoRA is scaled by alpha / rank, so alpha 0 leaves the base language model and the *trained* projector; the untouched
base is the model without the checkpoint. Settings of peft are computed as peft computes them; see peft_settings().
"""

import math
import re
from typing import Any

import torch
from torch import Tensor, nn

from videopool.models import weight_files
from videopool.models.backbone import Backbone
from videopool.models.checkpoint import ADAPTER, BIAS, MAGNITUDES, AdapterCheckpoint, canonical, check
from videopool.models.errors import ModelError, is_number


def attach(backbone: Backbone, checkpoint: AdapterCheckpoint, alpha: float | None = None) -> None:
    """Put a checkpoint onto its base, for good; only alpha and the projector's share can change afterwards.

    LoRA is scaled by alpha; None stands for the trained one, or 0 where the checkpoint states none.

    Raises:
        ModelError: the checkpoint belongs to another base, or is incomplete.
    """
    own = {canonical(name): name for name in backbone.model.state_dict()}
    check(backbone, checkpoint, own)
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
            _add_lora(
                backbone,
                checkpoint,
                {module: own[f"{module}.weight"].removesuffix(".weight") for module in checkpoint.lora},
            )
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
        use_dora=checkpoint.has(MAGNITUDES),
        lora_bias=checkpoint.has(BIAS),
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
