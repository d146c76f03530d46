"""Frames as parts of a chat message."""

import base64
import io

import numpy as np
from PIL import Image

FORMATS = {"jpeg": "JPEG", "png": "PNG"}


def image_part(frame: np.ndarray, format: str, quality: int, max_side: int) -> dict[str, object]:
    """A frame, uint8 [height, width, 3], as a data URL.

    Args:
        format: "jpeg" or "png".
        quality: of JPEG, 1..100.
        max_side: in pixels; a larger frame is scaled down (Lanczos), keeping its proportions.
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
