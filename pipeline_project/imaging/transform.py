"""The transform from an RGB image to the model's pixels. Normalisation is part of the model's graph, so pixels stay uint8."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def to_pixels(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Resize to `size` x `size` with an antialiased bilinear filter.

    Args:
        image: RGB, upright.
        size: side of the square result, pixels.

    Returns:
        (size, size, 3) uint8, 0-255, RGB.
    """
    resized = image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=None)
    return np.asarray(resized, dtype=np.uint8)
