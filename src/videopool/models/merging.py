"""A model as a folder of Hugging Face: LoRA merged into its weights, tokenizer and processor beside them."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from videopool.models.backbone import Backbone
from videopool.models.configuration import RECORD
from videopool.models.errors import ModelError
from videopool.models.loading import silent
from videopool.models.source import locate

# Beside the weights of a model; save_pretrained of model and tokenizer write the other files.
PROCESSOR = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json",
             "chat_template.json", "chat_template.jinja")  # fmt: skip


@torch.no_grad()
def merge(backbone: Backbone) -> int:
    """Add each LoRA product, as it is scaled now, to its weight. Returns the number of layers that had one.

    Raises ModelError for weights that are not in memory, and for a changed tower, which no configuration can say.
    """
    from peft.tuners.lora import LoraLayer

    if backbone.tower_changes:
        raise ModelError("model.tower: no folder of Hugging Face can hold changes of the tower; leave them out")
    if any(weight.is_meta for weight in backbone.model.parameters()):
        raise ModelError(f"a part of {backbone.name} is not in memory (offloaded); raise model.max_memory")
    layers = [(name, module) for name, module in backbone.model.named_modules() if isinstance(module, LoraLayer)]
    for name, layer in layers:
        try:
            layer.merge(safe_merge=True)  # which looks for infinite sums
        except ValueError as error:
            raise ModelError(f"{name}: LoRA and weight have no finite sum in {backbone.dtype}") from error
        parent, _, last = name.rpartition(".")
        setattr(backbone.model.get_submodule(parent), last, layer.get_base_layer())
    return len(layers)


def save_merged(backbone: Backbone, source: str, revision: str | None, record: Mapping[str, Any], folder: Path) -> None:
    """Write a merged model, its tokenizer, and the processor of its base into a folder.

    `record`, plain values, stands in config.json under RECORD: the pooling that the model is meant for, and more.
    """
    model, base = backbone.model, locate(source, revision)
    config: Any = model.config
    setattr(config, RECORD, dict(record))
    if (
        getattr(config, "tie_word_embeddings", False)
        and model.lm_head.weight is not model.get_input_embeddings().weight
    ):
        for part in (config, config.get_text_config()):  # a checkpoint trained the output layer apart
            part.tie_word_embeddings = False
    with silent():
        model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    for name in PROCESSOR:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
