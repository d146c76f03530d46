"""Families whose parts differ from LLaVA's: they merge patches, and write a text around each frame."""

from typing import Any, ClassVar

from torch import Tensor

from videopool.models.backbone import Backbone
from videopool.models.texts import FrameTexts, Stamps

UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
         "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


class InternVL(Backbone):
    """InternVL3 and 3.5 (arXiv 2504.10479, 2508.18265): one tile per frame, 2 x 2 patches merged, frames numbered."""

    model_type = "internvl"
    architecture = "InternVLForConditionalGeneration"
    tower_kind = "internvl"
    final_norm = "layernorm"
    projector_norm = True
    clip_words = ("<video>",)
    image_tags = ("<img>", "</img>")
    frame_text = 7  # "</img>", a line break, "Frame", one or two digits, ": ", "<img>"

    @classmethod
    def merged(cls, config: Any) -> int:
        return int(1 / config.downsample_ratio)

    def frame_texts(self, stamps: Stamps) -> FrameTexts:
        count = len(stamps.times)
        before = [f"{line}Frame{number}: <img>" for number, line in enumerate(["", *"\n" * (count - 1)], 1)]
        return FrameTexts("", before, ["</img>"] * count, "", *self.image_tags)


class SmolVLM(Backbone):
    """SmolVLM2 (arXiv 2504.05299): one view per frame, its patches merged, its minute and second before it."""

    model_type = "smolvlm"
    architecture = "SmolVLMForConditionalGeneration"
    towers: ClassVar = {"video": "vision_model", "image": "vision_model"}
    tower_kind = "smolvlm"
    projector_name = "connector"
    language_name = "text_model"
    final_norm = "post_layernorm"
    projector_layers = 1
    projector_bias = False
    clip_words = ("<video>",)
    image_tags = ("<fake_token_around_image><global-img>", "<fake_token_around_image>")
    frame_text = 13  # a tag, a line break, "Frame from 00:00:", two tags

    @classmethod
    def merged(cls, config: Any) -> int:
        return int(config.scale_factor)

    def project(self, grid: Tensor) -> Tensor:
        """The grid's patches are merged already."""
        projection: Any = self.projector.modality_projection
        projected: Tensor = projection(grid).to(self.device)
        return projected

    def frame_texts(self, stamps: Stamps) -> FrameTexts:
        opening, tag = self.image_tags
        hours, seconds = divmod(int(stamps.duration), 3600)
        length = f"{hours}:{seconds // 60:02d}:{seconds % 60:02d}"
        words = number_words(len(stamps.times))
        head = f"You are provided the following series of {words} frames from a {length} [H:MM:SS] video.\n"
        before = [f"\nFrame from {int(time // 60):02d}:{int(time % 60):02d}:{opening}" for time in stamps.times]
        return FrameTexts(head, before, [tag] * len(before), "\n\n", f"\n{opening}", tag)


def number_words(number: int) -> str:
    """A whole number below a million in English words, as in "one hundred and five"."""
    if number < 20:
        return UNITS[number]
    if number < 100:
        return TENS[number // 10 - 2] + (f"-{UNITS[number % 10]}" if number % 10 else "")
    if number < 1000:
        rest = f" and {number_words(number % 100)}" if number % 100 else ""
        return f"{UNITS[number // 100]} hundred{rest}"
    below = number % 1000
    rest = "" if not below else f", {number_words(below)}" if below >= 100 else f" and {number_words(below)}"
    return f"{number_words(number // 1000)} thousand{rest}"
