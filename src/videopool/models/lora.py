"""The part of a model that fine-tuning trains: its projector, and LoRA on the attention of its language model.

LoRA (arXiv 2106.09685) adds alpha / rank * B A to a frozen weight; A starts at random and B at zero.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from videopool.models.backbone import Backbone
from videopool.models.checkpoint import ADAPTER
from videopool.models.errors import ModelError, is_number

WRAPPED = "_fsdp_wrapped_module."  # part of names after FSDP has wrapped modules
SETTINGS = ("rank", "alpha", "dropout", "targets")


def make_trainable(backbone: Backbone, lora: Mapping[str, Any] | None) -> None:
    """Unfreeze the projector and new LoRA matrices on the language model, in float32; freeze the rest.

    Args:
        lora: rank, alpha (the scale), dropout (of LoRA's input, in training) and targets (some of backbone.attention);
            None for no LoRA.

    Raises:
        ModelError: a target outside backbone.attention, or numbers out of range.
    """
    backbone.model.requires_grad_(False)
    if lora is not None:
        if not isinstance(lora, Mapping) or set(lora) != set(SETTINGS):
            raise ModelError(
                f"training.lora={lora!r}: give {', '.join(SETTINGS)} and nothing else, or null for no LoRA"
            )
        _add_lora(backbone, lora["rank"], lora["alpha"], lora["dropout"], lora["targets"])
    backbone.projector.float().requires_grad_(True)  # after LoRA, which freezes all other weights


def _add_lora(backbone: Backbone, rank: int, alpha: float, dropout: float, targets: Sequence[str]) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    several = isinstance(targets, Sequence) and not isinstance(targets, str)
    if not several or not targets or any(name not in backbone.attention for name in targets):
        raise ModelError(f"training.lora.targets={targets!r}: give a list of some of {', '.join(backbone.attention)}")
    if not isinstance(rank, int) or not is_number(rank) or rank < 1:
        raise ModelError(f"training.lora.rank={rank!r}: give a positive whole number")
    if not is_number(alpha) or alpha <= 0:
        raise ModelError(f"training.lora.alpha={alpha!r}: give a number above 0")
    if not is_number(dropout) or not 0 <= dropout < 1:
        raise ModelError(f"training.lora.dropout={dropout!r}: give a number of at least 0 and below 1")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a fraction works
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
