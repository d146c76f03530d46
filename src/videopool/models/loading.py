"""Load a complete model, or say in one line why it does not load."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils import logging as transformers_logging

from videopool.errors import one_line
from videopool.models.backbone import Backbone
from videopool.models.configuration import ATTENTIONS, DTYPES, FrameSize, load_config
from videopool.models.errors import ModelError, listed
from videopool.models.families import family_of, kind_of
from videopool.models.original import KEYS, is_original, with_places
from videopool.models.shape import model_shape
from videopool.models.sizes import ModelShape
from videopool.models.source import check_weights, identity, locate, read_json
from videopool.models.tower_changes import tower_changes
from videopool.video import Proportional

VIEW_SETTINGS = ("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor",
                 "do_normalize", "image_mean", "image_std", "do_convert_rgb")  # fmt: skip
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
# In transformers' order of precedence; the first counts only if it holds a video processor.
VIDEO_FILES = ("processor_config.json", "video_preprocessor_config.json", "preprocessor_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


def _read(
    cls: Any, kind: str, source: str, revision: str | None, key: str, names: Sequence[str], **options: Any
) -> Any:
    """A processor of transformers, from a folder with one of some files. Raises ModelError if that fails."""
    folder = locate(source, revision, key)
    if not any((folder / name).is_file() for name in names):
        raise ModelError(
            f"{key}={source}: {folder} has no {kind} ({' or '.join(names)}); copy it from the model that this "
            "one derives from"
        )
    try:
        return cls.from_pretrained(str(folder), **options)
    except Exception as error:
        raise ModelError(f"{key}={source}: no {kind} could be read ({one_line(error)})") from error


def load_tokenizer(source: str, revision: str | None = None, key: str = "model.source") -> Any:
    """A model's tokenizer. Raises ModelError, which names the configuration key, if there is none."""
    tokenizer = _read(AutoTokenizer, "tokenizer", source, revision, key, TOKENIZER_FILES)
    return with_places(tokenizer) if _original(source, revision, key) else tokenizer


def _original(source: str, revision: str | None, key: str) -> bool:
    file = locate(source, revision, key) / "config.json"
    return file.is_file() and is_original(read_json(file))


def load_image_processor(
    source: str, revision: str | None = None, image_size: int | None = None, key: str = "model.source"
) -> Any:
    """The processor that makes one view of a frame, by Pillow's arithmetic, independent of other installed libraries.

    A family's own processor may cut images into tiles; here a frame is one view of the same size and normalisation.
    Raises ModelError if there is none, or its views are not image_size pixels wide and high.
    """
    if _original(source, revision, key):  # SigLIP's
        side, half = int(image_size or 0), [0.5, 0.5, 0.5]
        square = {"height": side, "width": side}
        return CLIPImageProcessorPil(size=square, do_center_crop=False, resample=3, image_mean=half, image_std=half)
    saved = _read(
        AutoImageProcessor, "image processor", source, revision, key, PROCESSOR_FILES, backend="pil"
    ).to_dict()
    settings: dict[str, Any] = {"do_center_crop": False}
    settings |= {name: saved[name] for name in VIEW_SETTINGS if saved.get(name) is not None}
    if "longest_edge" in settings["size"] and "max_image_size" in saved:  # SmolVLM squares a view to it
        side = saved["max_image_size"]["longest_edge"]
        settings["size"] = {"height": side, "width": side}
    if "min_pixels" in saved or ("shortest_edge" in settings["size"] and not settings["do_center_crop"]):  # any size
        settings["size"] = {"height": image_size, "width": image_size}
    size = settings["crop_size" if settings["do_center_crop"] else "size"]
    height, width = (int(size.get(side, 0)) for side in ("height", "width"))
    if image_size is not None and (height, width) != (image_size, image_size):
        raise ModelError(
            f"{key}={source}: its image processor makes views of {height} x {width} pixels, its tower takes "
            f"{image_size} x {image_size}; mend preprocessor_config.json"
        )
    return CLIPImageProcessorPil(**settings)


def proportional(
    image_processor: Any, source: str, revision: str | None, shape: ModelShape, frame_size: Any, whole: bool
) -> Proportional:
    """An image processor whose views keep their clip's proportions, within limits of pixels.

    frame_size: [least, most] of a frame, or "clip" for those of the model's own video processor; these count all frames
    of a clip if `whole`. Raises ModelError if its files state none, or a cap that depends on more.
    """
    unit = shape.patch * shape.merge
    if not isinstance(frame_size, str):
        return Proportional(image_processor, unit, *frame_size)
    folder = locate(source, revision)
    stated = [read_json(folder / name) for name in VIDEO_FILES if (folder / name).is_file()]
    own = next((one["video_processor"] for one in stated if "video_processor" in one), None)
    own = own or next((one for one in stated if "size" in one or "max_pixels" in one), {})
    size = own.get("size") or {}
    least = own.get("min_pixels") or size.get("shortest_edge")
    most = own.get("max_pixels") or size.get("longest_edge")
    if not least or not most or own.get("cap_pixels_per_frame"):
        problem = "caps pixels per frame" if least and most else "states no numbers of pixels"
        raise ModelError(
            f"model.frame_size={frame_size}: the video processor of {folder} {problem}; say "
            "model.frame_size=[least,most] pixels of a frame"
        )
    return Proportional(image_processor, unit, int(least), int(most), whole)


@contextmanager
def silent() -> Iterator[None]:
    """No lines and bars of transformers, which tells of weights what our errors say."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()


def check_attention(dtype: str, attention: str, device: str = "cpu") -> None:
    """Raises ModelError if a device cannot compute attention in a dtype, before any weights are loaded."""
    if dtype not in DTYPES:
        raise ModelError(f"model.dtype={dtype}: choose one of {', '.join(DTYPES)}")
    if attention not in ATTENTIONS:
        raise ModelError(
            f"model.attention={attention}: choose one of {', '.join(ATTENTIONS)} "
            "(sdpa uses flash attention's kernels where the device has them)"
        )
    try:
        probe = torch.ones(1, 1, 2, 8, dtype=DTYPES[dtype], device=device)
        torch.nn.functional.scaled_dot_product_attention(probe, probe, probe)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"model.dtype={dtype}: attention on {device} does not work in it ({one_line(error)}); "
            "take model.dtype=float32"
        ) from error


def load_backbone(
    source: str,
    name: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    attention: str = "sdpa",
    revision: str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    max_memory: Mapping[Any, str] | None = None,
    rope_factor: float | None = None,
    target: str | None = None,
    tower: Mapping[str, Any] | None = None,
    frame_size: FrameSize = None,
) -> Backbone:
    """Load a model from a folder, from this package ("videopool:..."), or by its Hugging Face id.

    Args:
        source: folder, "videopool:..." or Hugging Face id.
        name: for tables; None for the last part of source.
        dtype: "float32", "bfloat16" or "float16".
        device: "cpu", "cuda", "cuda:1" ...; ignored with a device_map.
        attention: transformers' attention implementation, "sdpa" or "eager".
        revision: commit or branch on the hub.
        device_map: spread the weights over devices: "auto", "balanced", or module name to device, for accelerate.
        max_memory: limit by device, for device_map="auto", as in {0: "20GiB", "cpu": "60GiB"}.
        rope_factor: linear scaling of rotary positions, as in SlowFast-LLaVA.
        target: the user's class for the family, as in family_of().
        tower: changes of the vision towers, as in TowerChanges.
        frame_size: side of views in pixels, of a tower that takes any; None for the family's; "clip" or [least, most]
            pixels for views with the proportions of their clip, see proportional().

    Raises ModelError if the model does not load completely, or has no such tower.
    """
    changes = tower_changes({"tower": tower})
    check_attention(dtype, attention, "cpu" if device_map else device)
    config = load_config(source, revision, rope_factor, target, frame_size)
    shape = model_shape(config, target)
    changes.check(shape, name or source)
    folder = locate(source, revision)
    check_weights(folder, f"model.source={source}")
    tokenizer = load_tokenizer(source, revision)
    image_processor = load_image_processor(source, revision, shape.image_size)
    family, placed = family_of(kind_of(config), target), device_map is not None
    if shape.by_clip:
        image_processor = proportional(image_processor, source, revision, shape, frame_size, family.whole_clip)
    names = {"key_mapping": KEYS} if _original(source, revision, "model.source") else {}
    placement = {"device_map": device_map, "max_memory": dict(max_memory) if max_memory else None} if placed else {}
    try:
        with silent():
            model, report = family.transformers_class().from_pretrained(
                str(folder),
                config=config,
                dtype=DTYPES[dtype],
                attn_implementation=attention,
                output_loading_info=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # all are told below
                **placement,
                **names,
            )
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"model.source={source}: {one_line(error)}") from error
    if sizes := sorted((name, tuple(found), tuple(own)) for name, found, own in report["mismatched_keys"]):
        named = [f"{name} is {list(found)} and not {list(own)}" for name, found, own in sizes]
        raise ModelError(f"model.source={source}: weights have other sizes than config.json: {listed(named)}")
    if wrong := [kind for kind in ("missing_keys", "unexpected_keys") if report[kind]]:
        keys = "; ".join(f"{kind.replace('_', ' ')}: {listed(sorted(report[kind]))}" for kind in wrong)
        raise ModelError(f"model.source={source}: the weights do not fit the configuration: {keys}")
    name = name or Path(source.removeprefix("videopool:")).name
    backbone = family(model, tokenizer, image_processor, shape, name, identity(source, revision, target=target), placed)
    for medium in dict.fromkeys(family.towers.values()) if changes.identity else ():
        changes.apply(getattr(backbone.parts, medium), shape)
    backbone.tower_changes = changes.identity
    return backbone if placed else backbone.to(device)
