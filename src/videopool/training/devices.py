"""How a training run is shared out between devices."""

from typing import Any

from omegaconf import DictConfig

from videopool.models import VideoLM
from videopool.models.lora import trainable
from videopool.runtime.ranks import strategy_of
from videopool.training.module import Tuner


def training_strategy(config: DictConfig, tuner: Tuner) -> Any:
    """What Lightning's Trainer takes as its strategy."""
    if config.trainer.strategy == "fsdp":
        return sharded(tuner)
    if int(config.trainer.devices) == 1:
        return config.trainer.strategy
    return strategy_of(config)


def sharded(tuner: VideoLM) -> Any:
    """FSDP over the frozen weights of the language model, layer by layer.

    Tower and trained parameters are left whole: the tower computes as in evaluation, and what is trained keeps
    float32 beside frozen weights in bfloat16. Its gradients are averaged by the Tuner.
    """
    from pytorch_lightning.strategies import FSDPStrategy
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    backbone = tuner.backbone
    layers = {type(layer) for layer in backbone.language_model.layers}
    whole = {id(one): one for kind in ("video", "image") for one in backbone.tower(kind).parameters()}
    whole |= {id(one): one for one in trainable(backbone).values()}
    return FSDPStrategy(auto_wrap_policy=ModuleWrapPolicy(layers), ignored_states=list(whole.values()))
