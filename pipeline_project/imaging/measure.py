"""Numeric features of an image's pixels: for drift, profiling and the feature store. The server computes the same ones."""

import numpy as np
from numpy.typing import NDArray

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
    rgb = pixels.astype(np.float32) / 255
    grey = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    means = rgb.mean(axis=(0, 1))
    laplacian = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    gradient = np.hypot(np.diff(grey, axis=0)[:, :-1], np.diff(grey, axis=1)[:-1, :])
    counts = np.bincount((grey * 63.999).astype(np.intp).ravel(), minlength=64)
    shares = counts[counts > 0] / grey.size
    edge = max(1, grey.shape[0] // 12)
    border = np.concatenate([grey[:edge].ravel(), grey[-edge:].ravel(), grey[:, :edge].ravel(), grey[:, -edge:].ravel()])
    quarter = grey.shape[0] // 4
    centre = grey[quarter:-quarter, quarter:-quarter]
    values = (
        grey.mean(),
        grey.std(),
        *means,
        (rgb.max(axis=2) - rgb.min(axis=2)).mean(),
        np.abs(laplacian).mean(),
        (gradient > 0.1).mean(),
        -(shares * np.log2(shares)).sum(),
        border.mean(),
        centre.std(),
        np.log2(aspect),
    )
    return {name: round(float(value), 6) for name, value in zip(FEATURE_NAMES, values, strict=True)}
