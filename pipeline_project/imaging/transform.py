"""The transform from an RGB image to the model's pixels. Normalisation is part of the model's graph, so pixels stay uint8."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline_project.contracts import Resample
from pipeline_project.imaging.opencv import cv2

MAX_SAMPLES = 8
"""Samples a target pixel and axis, at most."""


def to_pixels(rgb: NDArray[np.uint8], size: int, resample: Resample = "supersampled") -> NDArray[np.uint8]:
    """Resize to `size` x `size`, antialiased; the aspect is not kept.

    Args:
        rgb: (H, W, 3) uint8, upright.
        size: side of the square result, pixels.
        resample: "supersampled": each target pixel is the mean of bilinear samples spread evenly over it, per axis as many as the side is
            times `size`, rounded, from 1 to 8 (beyond, whole blocks are averaged first). On photographs 0.3 grey levels from exact area
            averaging. Integer arithmetic of 11 bits; a test holds OpenCV to the formula. "bilinear": Pillow's
            filter, for packages that were made with it.

    Returns:
        (size, size, 3) uint8, 0-255, RGB.
    """
    if resample == "bilinear":
        return np.asarray(Image.fromarray(rgb).resize((size, size), Image.Resampling.BILINEAR, reducing_gap=None), dtype=np.uint8)
    blocks, samples = zip(*(_sampling(side, size) for side in rgb.shape[:2]), strict=True)
    if max(blocks) > 1:
        rgb = _averaged(rgb, blocks)
    sampled = cv2.resize(rgb, (samples[1] * size, samples[0] * size), interpolation=cv2.INTER_LINEAR)
    return _averaged(np.asarray(sampled, dtype=np.uint8), samples)


def _sampling(side: int, size: int) -> tuple[int, int]:
    """For one axis: pixels to average into one beforehand, and samples a target pixel."""
    block = max(1, side // (MAX_SAMPLES * size))
    return block, min(MAX_SAMPLES, max(1, round(side / block / size)))


def _averaged(image: NDArray[np.uint8], blocks: tuple[int, ...]) -> NDArray[np.uint8]:
    """The mean of every block of pixels; rows and columns left over at the end, fewer than a block, are left out."""
    height, width = (side // block for side, block in zip(image.shape[:2], blocks, strict=True))
    whole = image[: height * blocks[0], : width * blocks[1]]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
