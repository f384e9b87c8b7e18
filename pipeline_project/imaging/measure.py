"""Numeric features of an image's pixels: for drift, profiling and the feature store. The server computes the same ones.

Sums are of integers, and divided once at the end: every machine gives the same six digits.
"""

import math

import numpy as np
from numpy.typing import NDArray

from pipeline_project.imaging.opencv import cv2

FEATURE_NAMES: tuple[str, ...] = (
    "brightness",
    "contrast",
    "red",
    "green",
    "blue",
    "saturation",
    "sharpness",
    "edge_density",
    "entropy",
    "border_brightness",
    "centre_contrast",
    "aspect",
)

_LEVELS = np.arange(256, dtype=np.int64)
_BINS = [int(level / 255 * 63.999) for level in range(256)]  # of the entropy's histogram
_BIN_STARTS = np.searchsorted(_BINS, np.arange(64))
_WEAK = 650  # squared grey levels a gradient may have and still count as weak: (0.1 x 255)^2 is 650.25
_STRONG_WITH = np.array([math.isqrt(max(0, _WEAK - level**2)) + 1 if level**2 <= _WEAK else 0 for level in range(256)], np.uint8)
"""the smallest difference downwards that makes a gradient strong, given the one across"""


def measure(pixels: NDArray[np.uint8], aspect: float) -> dict[str, float]:
    """Features of one image.

    Args:
        pixels: (S, S, 3) uint8, as `to_pixels` makes them.
        aspect: width over height of the upright original.

    Returns:
        {name: value} for every name of `FEATURE_NAMES`: brightness, contrast (standard deviation), the channel means, saturation,
        border_brightness and centre_contrast in 0-1; edge_density (share of strong gradients) in 0-1; sharpness (mean
        absolute Laplacian) in 0-4; entropy of the grey histogram in bits, 0-6; aspect as log2, 0 for a square.
    """
    count = pixels.shape[0] * pixels.shape[1]
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    histogram = cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    total, squares = int(histogram @ _LEVELS), int(histogram @ _LEVELS**2)
    red, green, blue = cv2.split(pixels)
    spread = cv2.subtract(cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue))
    laplacian = cv2.Laplacian(grey, cv2.CV_16S, ksize=1)[1:-1, 1:-1]
    edge, quarter = max(1, grey.shape[0] // 12), grey.shape[0] // 4
    border = [grey[:edge], grey[-edge:], grey[:, :edge], grey[:, -edge:]]
    centre = grey[quarter:-quarter, quarter:-quarter]
    values = (
        total / (255 * count),
        _deviation(count, total, squares),
        *(channel / (255 * count) for channel in cv2.sumElems(pixels)[:3]),
        cv2.sumElems(spread)[0] / (255 * count),
        cv2.norm(laplacian, cv2.NORM_L1) / (255 * laplacian.size),
        _strong_gradients(grey),
        _entropy(np.add.reduceat(histogram, _BIN_STARTS).tolist(), count),
        sum(cv2.sumElems(part)[0] for part in border) / (255 * sum(part.size for part in border)),
        _deviation(centre.size, int(cv2.sumElems(centre)[0]), int(cv2.norm(centre, cv2.NORM_L2SQR))),
        math.log2(aspect),
    )
    return {name: round(float(value), 6) for name, value in zip(FEATURE_NAMES, values, strict=True)}


def _deviation(count: int, total: int, squares: int) -> float:
    """Standard deviation of grey levels from their sums, 0-1."""
    return math.sqrt(count * squares - total * total) / (255 * count)


def _strong_gradients(grey: NDArray[np.uint8]) -> float:
    """Share of pixels that differ from their right and lower neighbours by more than a tenth of the range, as a distance in the plane."""
    corner = grey[:-1, :-1]
    across, down = cv2.absdiff(grey[:-1, 1:], corner), cv2.absdiff(grey[1:, :-1], corner)
    return cv2.countNonZero(cv2.compare(down, cv2.LUT(across, _STRONG_WITH), cv2.CMP_GE)) / corner.size


def _entropy(histogram: list[int], count: int) -> float:
    """Shannon entropy in bits."""
    return math.log2(count) - sum(number * math.log2(number) for number in histogram if number) / count
