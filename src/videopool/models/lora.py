"""LoRA on a model: new matrices for training, and those of checkpoints, with what else these change.

LoRA (arXiv 2106.09685) adds alpha / rank * B A to a frozen weight; before training A is random and B zero. So alpha 0
leaves the base language model and the *trained* projector; the untouched base is the model without the checkpoint.
Settings of peft are computed as peft computes them; see peft_settings().
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from videopool.models.backbone import Backbone
from videopool.models.checkpoint import ADAPTER, BIAS, MAGNITUDES, TOWERS, AdapterCheckpoint, canonical, check
from videopool.models.errors import ModelError, is_number
from videopool.models.source import forget_weights

WRAPPED = "_fsdp_wrapped_module."  # part of names after FSDP has wrapped modules
SETTINGS = ("rank", "alpha", "dropout", "targets")


def make_trainable(backbone: Backbone, lora: Mapping[str, Any] | None) -> None:
    """Unfreeze the projector and new LoRA matrices on the language model, in float32; freeze the rest.

    `lora` holds rank, alpha (the scale), dropout (of LoRA's input, in training) and targets (some of
    backbone.attention); None for no LoRA. Raises ModelError for another target, or numbers out of range.
    """
    backbone.model.requires_grad_(False)
    if lora is not None:
        check_new_lora(lora, backbone.attention)
        _add_new_lora(backbone, lora)
    backbone.projector.float().requires_grad_(True)  # after LoRA, which freezes all other weights


def check_new_lora(lora: Any, attention: Sequence[str]) -> None:
    """Raises ModelError as make_trainable(), for a model whose attention layers have these names."""
    if not isinstance(lora, Mapping) or set(lora) != set(SETTINGS):
        raise ModelError(f"training.lora={lora!r}: give {', '.join(SETTINGS)} and nothing else, or null for no LoRA")
    rank, alpha, dropout, targets = (lora[name] for name in SETTINGS)
    several = isinstance(targets, Sequence) and not isinstance(targets, str)
    fitting = several and targets and all(name in attention for name in targets)
    for name, right, wanted in (
        ("targets", fitting, f"a list of some of {', '.join(attention)}"),
        ("rank", isinstance(rank, int) and is_number(rank) and rank >= 1, "a positive whole number"),
        ("alpha", is_number(alpha) and alpha > 0, "a number above 0"),
        ("dropout", is_number(dropout) and 0 <= dropout < 1, "a number of at least 0 and below 1"),
    ):
        if not right:
            raise ModelError(f"training.lora.{name}={lora[name]!r}: give {wanted}")


def _add_new_lora(backbone: Backbone, lora: Mapping[str, Any]) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    rank, alpha, dropout, targets = (lora[name] for name in SETTINGS)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=rf".*{backbone.language_name}\.layers\.\d+\.self_attn\.({'|'.join(targets)})",
    )
    try:
        inject_adapter_in_model(config, backbone.model, ADAPTER)
    except ValueError as error:  # nothing in the model has such a name
        raise ModelError(f"training.lora.targets={list(targets)}: {backbone.name} has none of them") from error
    for name, parameter in backbone.model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)


def trainable(backbone: Backbone) -> dict[str, nn.Parameter]:
    """The trained parameters by name, in a fixed order."""
    named = backbone.model.named_parameters()
    return dict(sorted((name.replace(WRAPPED, ""), weight) for name, weight in named if weight.requires_grad))


def training_mode(backbone: Backbone) -> None:
    """Put the language model and the projector into training mode, but not the tower."""
    backbone.eval()
    backbone.language_model.train()
    backbone.projector.train()


def checkpoint_gradients(backbone: Backbone) -> None:
    """Gradient checkpointing: keep only the inputs of the language model's layers, and recompute the rest backward."""
    model = backbone.language_model
    # The newer name, where it exists.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


@torch.no_grad()
def restore(backbone: Backbone, weights: dict[str, Tensor]) -> None:
    """Set the trained parameters. Raises ModelError if names or sizes differ."""
    own = trainable(backbone)
    if own.keys() != weights.keys():
        odd = sorted(own.keys() ^ weights.keys())
        raise ModelError(f"the saved weights are of another model: {odd[0]} and {len(odd) - 1} more")
    for name, parameter in own.items():
        if parameter.shape != weights[name].shape:
            raise ModelError(f"the saved weights are of another model: {name} has size {list(weights[name].shape)}")
        parameter.copy_(weights[name])


def kept_weights(backbone: Backbone) -> dict[str, Tensor]:
    """Copies of the trained parameters on the CPU, by name."""
    return {name: weight.detach().cpu().clone() for name, weight in trainable(backbone).items()}


def attach(backbone: Backbone, checkpoint: AdapterCheckpoint, alpha: float | None = None) -> None:
    """Put a checkpoint onto its base, for good; only alpha and the projector's share can change afterwards.

    LoRA is scaled by alpha; None stands for the trained one, or 0 where the checkpoint states none. Raises ModelError
    if the checkpoint belongs to another base, or is incomplete.
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
        own_projector = f"{backbone.projector_name}."  # which may lie in the tower
        reached = [name for name in (*checkpoint.plain, *checkpoint.lora) if not name.startswith(own_projector)]
        if any(name.startswith(tuple(TOWERS)) for name in reached):
            backbone.identity = f"{backbone.identity}+{checkpoint.identity}"  # its features change too
        if checkpoint.lora:
            _add_lora(backbone, checkpoint, own)
    forget_weights()
    _scale(backbone, (checkpoint.alpha or 0.0) if alpha is None else alpha)


def _add_lora(backbone: Backbone, checkpoint: AdapterCheckpoint, own: dict[str, str]) -> None:
    """Put LoRA on modules; `own` holds the base's names of weights by canonical name."""
    from peft import LoraConfig, inject_adapter_in_model

    peft, ranks = checkpoint.peft, checkpoint.ranks
    paths = {module: own[f"{module}.weight"].removesuffix(".weight") for module in checkpoint.lora}
    if peft is not None and peft.alpha_pattern:
        parts = {path: peft.alpha_of(checkpoint.key(module)) for module, path in paths.items()}
        backbone.alpha_parts = {path: alpha / peft.lora_alpha for path, alpha in parts.items()}
    config = LoraConfig(
        r=max(ranks.values()),
        rank_pattern={re.escape(path): ranks[module] for module, path in paths.items()},
        use_rslora=peft is not None and peft.use_rslora,
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
    if checkpoint.peft is not None or (len(names) == 2 and not torch.equal(*map(checkpoint.tensor, names))):
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)


def _projector(backbone: Backbone) -> dict[str, Tensor]:
    """The projector's weights without LoRA."""
    weights = backbone.projector.state_dict()
    return {name.replace("base_layer.", ""): weight for name, weight in weights.items() if "lora_" not in name}


def set_projector(backbone: Backbone, share: float) -> None:
    """Interpolate each weight of the projector between the base's (0) and the checkpoint's (1); nothing is reloaded.

    Raises ModelError if there is no projector to interpolate, or share is no finite number.
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
    Raises ModelError if there is no LoRA to scale, alpha is no number of at least 0, or it is 0 for DoRA, whose trained
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
