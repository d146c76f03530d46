"""Rates of a device and of a model's parts on it."""

from typing import Any

import torch

from videopool.models import Backbone, prefill_flops
from videopool.models.cost import tower_flops
from videopool.models.reading import prefill
from videopool.speed.timing import interleaved, medians

MATMUL = 8192


def rates(backbone: Backbone, visual_tokens: int, frames: int, clips: int, rounds: int, side: int = MATMUL) -> dict:
    """Prefill and tower against the device's own matrix product, measured in turns.

    Args:
        visual_tokens: of a clip.
        frames: of a clip, given to the tower at once.
        clips: read at once by the language model.
        side: of the square matrices whose product stands for what the device can do.

    Returns:
        matmul_tflops; prefill_tokens_per_second, prefill_tflops and its share of the former;
        tower_frames_per_second, tower_tflops and share. Operations are counted as models.cost counts them.
    """
    shape, device, dtype = backbone.shape, backbone.device, backbone.dtype
    made: dict[str, Any] = {"device": device, "dtype": dtype}
    square = torch.randn(side, side, **made)
    tokens = torch.randn(clips, visual_tokens, shape.dim, **made)
    pixels = torch.randn(frames, 3, shape.image_size, shape.image_size, **made)
    before = [0] * 32  # a prompt's text before its visual tokens
    with torch.inference_mode():
        works = {
            "matmul": lambda: square @ square,
            "prefill": lambda: prefill(backbone, before, tokens),
            "tower": lambda: backbone.features(pixels),
        }
        spent = medians(interleaved(works, rounds, warm_up=2))
    length = len(before) + visual_tokens
    able = 2 * side**3 / spent["matmul"]
    read = clips * prefill_flops(shape, length) / spent["prefill"]
    seen = tower_flops(shape, frames) / spent["tower"]
    return {
        "matmul_side": side,
        "matmul_tflops": able / 1e12,
        "prefill_clips": clips,
        "prefill_positions": length,
        "prefill_tokens_per_second": clips * length / spent["prefill"],
        "prefill_tflops": read / 1e12,
        "prefill_share_of_matmul": read / able,
        "tower_frames_per_second": frames / spent["tower"],
        "tower_tflops": seen / 1e12,
        "tower_share_of_matmul": seen / able,
    }
