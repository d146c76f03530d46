"""What fine-tuning changes of a model: its projector, and LoRA on the attention of its language model.

LoRA (arXiv 2106.09685) adds alpha / rank * B A to a frozen weight; A starts at random and B at zero.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from videopool.models.backbone import Backbone
from videopool.models.checkpoint import ADAPTER
from videopool.models.errors import ModelError

WRAPPED = "_fsdp_wrapped_module."  # in names, where FSDP has put modules into its own
SETTINGS = ("rank", "alpha", "dropout", "targets")


def make_trainable(backbone: Backbone, lora: Mapping[str, Any] | None) -> None:
    """Let the projector be trained, and new LoRA matrices on the language model, in float32; nothing else.

    Args:
        backbone: changed in place.
        lora: rank, alpha (the scale), dropout (of what LoRA reads, in training) and targets (projections of attention,
            some of backbone.attention); None for none.

    Raises:
        ModelError: a target that is no such projection, or numbers out of range.
    """
    backbone.model.requires_grad_(False)
    if lora is not None:
        if not isinstance(lora, Mapping) or set(lora) != set(SETTINGS):
            raise ModelError(
                f"training.lora={lora!r}: give {', '.join(SETTINGS)} and nothing else, or null for no LoRA"
            )
        _add_lora(backbone, lora["rank"], lora["alpha"], lora["dropout"], lora["targets"])
    backbone.projector.float().requires_grad_(True)  # behind the other, which freezes all that is not its own


def _add_lora(backbone: Backbone, rank: int, alpha: float, dropout: float, targets: Sequence[str]) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    listed = isinstance(targets, Sequence) and not isinstance(targets, str)
    if not listed or not targets or any(name not in backbone.attention for name in targets):
        raise ModelError(f"training.lora.targets={targets!r}: give a list of some of {', '.join(backbone.attention)}")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ModelError(f"training.lora.rank={rank!r}: give a positive whole number")
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not alpha > 0:
        raise ModelError(f"training.lora.alpha={alpha!r}: give a number above 0")
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ModelError(f"training.lora.dropout={dropout!r}: give a number in 0..1, 1 left out")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a fraction will do
        lora_dropout=dropout,
        target_modules=rf".*{backbone.language_name}\.layers\.\d+\.self_attn\.({'|'.join(targets)})",
    )
    try:
        inject_adapter_in_model(config, backbone.model, ADAPTER)
    except ValueError as error:  # nothing in the model has such a name
        raise ModelError(f"training.lora.targets={list(targets)}: {backbone.name} has none of them") from error
    for name, parameter in backbone.model.named_parameters():
        if "lora_" in name:
            if f"{backbone.language_name}." not in name or "self_attn." not in name:
                raise ModelError(f"LoRA was put on {name}, which is no attention of the language model")
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)


def trainable(backbone: Backbone) -> dict[str, nn.Parameter]:
    """Parameters that are trained, by name, in a fixed order."""
    named = ((name.replace(WRAPPED, ""), one) for name, one in backbone.model.named_parameters() if one.requires_grad)
    return dict(sorted(named, key=lambda pair: pair[0]))


def training_mode(backbone: Backbone) -> None:
    """Language model and projector as in training; the tower as always."""
    backbone.eval()
    backbone.language_model.train()
    backbone.projector.train()


def checkpoint_gradients(backbone: Backbone) -> None:
    """Keep the inputs of each layer of the language model only, and compute the rest again going backward."""
    model = backbone.language_model
    # The newer name where there is one.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


@torch.no_grad()
def restore(backbone: Backbone, weights: dict[str, Tensor]) -> None:
    """Set the trained parameters. Raises ModelError if the names or sizes are others."""
    own = trainable(backbone)
    if own.keys() != weights.keys():
        odd = sorted(own.keys() ^ weights.keys())
        raise ModelError(f"the kept weights are of another model: {odd[0]} and {len(odd) - 1} more")
    for name, parameter in own.items():
        if parameter.shape != weights[name].shape:
            raise ModelError(f"the kept weights are of another model: {name} has size {list(weights[name].shape)}")
        parameter.copy_(weights[name])


def kept_weights(backbone: Backbone) -> dict[str, Tensor]:
    """Copies of the trained parameters on the CPU, by name."""
    return {name: one.detach().cpu().clone() for name, one in trainable(backbone).items()}
