"""Frames as a chat request takes them."""

import base64
import io

import numpy as np
from PIL import Image

FORMATS = {"jpeg": "JPEG", "png": "PNG"}


def image_part(frame: np.ndarray, format: str, quality: int, max_side: int) -> dict[str, object]:
    """A frame, uint8 [h, w, 3], as one part of a message: a data URL.

    Args:
        format: "jpeg" or "png".
        quality: of JPEG, 1..100.
        max_side: pixels; a larger frame is made smaller (Lanczos), its proportions kept.
    """
    image = Image.fromarray(frame)
    scale = max_side / max(image.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, FORMATS[format], **({"quality": quality} if format == "jpeg" else {}))
    text = base64.b64encode(file.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/{format};base64,{text}"}}
