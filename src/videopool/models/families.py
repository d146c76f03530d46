"""The families of LLaVA models, by transformers' model type."""

import torch
from torch import Tensor, nn
from transformers import (
    LlavaForConditionalGeneration,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionForConditionalGeneration,
    VideoLlavaForConditionalGeneration,
)

from videopool.models.backbone import Backbone


class Llava(Backbone):
    """LLaVA-1.5 (arXiv 2310.03744), and whatever else is saved as transformers' Llava."""

    architecture: type = LlavaForConditionalGeneration


class LlavaNext(Backbone):
    """LLaVA-NeXT v1.6 read as PLLaVA reads it: one view of each frame, no tiles, no newline tokens."""

    architecture: type = LlavaNextForConditionalGeneration


class LlavaOnevision(Backbone):
    """LLaVA-OneVision (arXiv 2408.03326): a SigLIP tower without CLS; one newline token ends a clip's tokens."""

    architecture: type = LlavaOnevisionForConditionalGeneration

    def finish(self, tokens: Tensor) -> Tensor:
        newline = self.parts.image_newline.to(tokens.device, tokens.dtype).expand(tokens.shape[0], 1, -1)
        return torch.cat([tokens, newline], dim=1)


class VideoLlava(Backbone):
    """Video-LLaVA (arXiv 2311.10122): a tower for images and one for videos, aligned, behind one projector."""

    architecture: type = VideoLlavaForConditionalGeneration

    def tower(self, media: str) -> nn.Module:
        return self.parts.video_tower if media == "video" else self.parts.image_tower


FAMILIES: dict[str, type[Backbone]] = {
    "llava": Llava,
    "llava_next": LlavaNext,
    "llava_onevision": LlavaOnevision,
    "video_llava": VideoLlava,
}
