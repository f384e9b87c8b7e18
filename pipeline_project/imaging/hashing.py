"""The perceptual hash: 64 bits that stay nearly the same when a picture is scaled, re-encoded or slightly retouched."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline_project.imaging.opencv import cv2

_SIDE = 32  # of the grey picture whose frequencies are looked at
_LOW = 8  # lowest frequencies kept an axis: 8 x 8 = 64 bits
_LOBES = 3
_FIXED = 22  # bits behind the point of Pillow's resampling weights
_COSINE_BITS = 17  # so that a sum of two products stays below 2^53: float64 holds every integer here


def perceptual_hash(pixels: NDArray[np.uint8]) -> str:
    """The DCT hash (pHash): grey, 32 x 32 (Lanczos), two-dimensional DCT; a bit for each of the 8 x 8 lowest frequencies, above the median?

    The same bits as `imagehash.phash` of the same pixels, three times as fast. All arithmetic is of integers, so no bit depends on the
    machine. Source: Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010.

    Args:
        pixels: (S, S, 3) uint8 as `to_pixels` makes them, S at least 16.

    Returns:
        16 hexadecimal digits, the lowest frequency first.
    """
    side = len(pixels)
    layers = cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA)  # Pillow's own layout, so that it need not copy
    grey = np.asarray(Image.frombuffer("RGBX", (side, side), layers, "raw", "RGBX", 0, 1).convert("L"), dtype=np.float64)
    weights = _lanczos(side)
    small = _rounded(_product(weights, _rounded(_product(grey, weights.T))))
    low = _COSINES @ small @ _COSINES.T
    below, above = np.sort(low, axis=None)[31:33]
    return np.packbits(2 * low > below + above).tobytes().hex()


def _product(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrix product, eight rows at a time: too little for BLAS to wake its threads, which would take longer than the work."""
    rows = len(left)
    return left @ right if rows % 8 else (left.reshape(rows // 8, 8, -1) @ right).reshape(rows, -1)


def _rounded(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fixed-point sums to grey levels, as Pillow rounds them between and after its two passes."""
    return np.clip(np.floor((sums + (1 << (_FIXED - 1))) / (1 << _FIXED)), 0, 255)


@lru_cache(maxsize=8)
def _lanczos(side: int) -> NDArray[np.float64]:
    """(32, side): Pillow's weights of its Lanczos filter, integers of 22 bits. Source: Pillow, src/libImaging/Resample.c."""
    scale = side / _SIDE
    stretch = max(scale, 1.0)
    weights = np.zeros((_SIDE, side))
    for row in range(_SIDE):
        centre = (row + 0.5) * scale
        first, last = max(int(centre - _LOBES * stretch + 0.5), 0), min(int(centre + _LOBES * stretch + 0.5), side)
        x = (np.arange(first, last) - centre + 0.5) / stretch
        taps = np.where(np.abs(x) < _LOBES, np.sinc(x) * np.sinc(x / _LOBES), 0.0)
        weights[row, first:last] = taps / taps.sum()
    fixed: NDArray[np.float64] = np.trunc(weights * (1 << _FIXED) + np.copysign(0.5, weights))
    return fixed


def _cosines() -> NDArray[np.float64]:
    """(8, 32): the lowest rows of the DCT-II, as integers."""
    rows, columns = np.mgrid[:_LOW, :_SIDE]
    cosines: NDArray[np.float64] = np.rint(np.cos(np.pi * rows * (2 * columns + 1) / (2 * _SIDE)) * (1 << _COSINE_BITS))
    return cosines


_COSINES = _cosines()
