"""The families of LLaVA models, by transformers' model type."""

from typing import Any, ClassVar

from hydra.utils import get_class

from videopool.errors import in_code
from videopool.models.backbone import Backbone
from videopool.models.errors import ModelError
from videopool.models.others import InternVL, SmolVLM
from videopool.models.qwen import Qwen3VL, Qwen25VL
from videopool.models.texts import FrameTexts, Stamps


class Llava(Backbone):
    """LLaVA-1.5 (arXiv 2310.03744), and other models saved as transformers' Llava."""

    model_type = "llava"
    architecture = "LlavaForConditionalGeneration"


class LlavaNext(Backbone):
    """LLaVA-NeXT v1.6 read as PLLaVA reads it: one view of each frame, no tiles, no newline tokens."""

    model_type = "llava_next"
    architecture = "LlavaNextForConditionalGeneration"
    newline = "image_newline"


class LlavaOnevision(Backbone):
    """LLaVA-OneVision (arXiv 2408.03326): a SigLIP tower without CLS; one newline token ends a clip's tokens."""

    model_type = "llava_onevision"
    architecture = "LlavaOnevisionForConditionalGeneration"
    newline = "image_newline"
    separators = 1


class LlavaVideo(LlavaOnevision):
    """LLaVA-Video (arXiv 2410.02713): OneVision's parts; a newline token ends each row of a frame's patches.

    Between the clip and the question, a sentence says when its frames were taken.
    """

    model_type = "llava_video"
    separators = 0
    row_newlines = True

    def frame_texts(self, stamps: Stamps) -> FrameTexts:
        """Without a blank before "Please", as released."""
        times = ",".join(f"{time:.2f}s" for time in stamps.times)
        return FrameTexts(
            tail=f"The video lasts for {stamps.duration:.2f} seconds, and {len(stamps.times)} frames are uniformly "
            f"sampled from it. These frames are located at {times}.Please answer the following questions related to "
            "this video."
        )


class VideoLlava(Backbone):
    """Video-LLaVA (arXiv 2311.10122): aligned towers for images and for videos before one projector."""

    model_type = "video_llava"
    architecture = "VideoLlavaForConditionalGeneration"
    towers: ClassVar = {"video": "video_tower", "image": "image_tower"}


FAMILIES: dict[str, type[Backbone]] = {
    one.model_type: one
    for one in (Llava, LlavaNext, LlavaOnevision, LlavaVideo, VideoLlava, InternVL, SmolVLM, Qwen25VL, Qwen3VL)
}


def kind_of(config: Any) -> str:
    """The key in FAMILIES of a transformers configuration.

    LLaVA-Video has OneVision's class, and says of its newlines where they stand. Raises ModelError for another place.
    """
    newlines = getattr(config, "mm_newline_position", None)
    if config.model_type != LlavaOnevision.model_type or newlines in (None, "one_token"):
        return str(config.model_type)
    if newlines != "grid":
        raise ModelError(f"mm_newline_position={newlines}: choose one of grid, one_token")
    return LlavaVideo.model_type


def family_of(model_type: str, target: str | None = None) -> type[Backbone]:
    """The family of a model type; target is the dotted name of a user's class (`model._target_`).

    Raises ModelError if there is no such family, or the class reads another model type.
    """
    if target is None:
        if model_type not in FAMILIES:
            raise ModelError(f"model type {model_type!r} is not supported; supported: {', '.join(FAMILIES)}")
        return FAMILIES[model_type]
    try:
        family: type = get_class(target)
    except Exception as error:  # whatever the user's module raises
        raise ModelError(f"model._target_={target}: {in_code(target, error)}") from error
    if not issubclass(family, Backbone):
        raise ModelError(f"model._target_={target}: not a videopool.models.Backbone")
    if family.model_type != model_type:
        raise ModelError(f"model._target_={target}: reads {family.model_type!r}, and the model type is {model_type!r}")
    return family
