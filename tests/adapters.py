"""LoRA adapters made on the spot, as peft saves them."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlavaForConditionalGeneration

from videopool.models.source import locate

TARGETS = {"tower": r".*vision_tower.*\.(q_proj|v_proj)", "projector": r".*multi_modal_projector\.linear_1"}


def adapter_in_tower(folder, targets):
    """A peft adapter of the mini model with LoRA on what a pattern names, all of it strong enough to see."""
    model = LlavaForConditionalGeneration.from_pretrained(locate("videopool:shapes/mini_llava"))
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=32, target_modules=targets, init_lora_weights=False))
    adapted.save_pretrained(folder)
    return folder
