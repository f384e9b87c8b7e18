"""The one transform: exact size and type, the same pixels every time, antialiased, aspect not kept on purpose."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline_project.contracts import Resample
from pipeline_project.digests import sha256_bytes
from pipeline_project.imaging import to_pixels
from pipeline_project_tests.imaging.files import smooth

RESAMPLES: list[Resample] = ["supersampled", "bilinear"]


def noise(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def area_average(rgb: NDArray[np.uint8], size: int) -> NDArray[np.float64]:
    """Exact: the integral of the picture over every target pixel."""

    def weights(side: int) -> NDArray[np.float64]:
        edges = np.arange(size + 1) * side / size
        places = np.arange(side)
        overlap = np.minimum(edges[1:, None], places + 1) - np.maximum(edges[:-1, None], places)
        return np.clip(overlap, 0, None) * size / side

    rows = np.tensordot(weights(rgb.shape[0]), rgb.astype(float), 1)
    return np.tensordot(weights(rgb.shape[1]), rows, (1, 1)).transpose(1, 0, 2)


@settings(max_examples=50, deadline=None)
@given(
    width=st.integers(1, 120),
    height=st.integers(1, 120),
    size=st.sampled_from([16, 48, 64]),
    resample=st.sampled_from(RESAMPLES),
)
def test_shape_type_and_range(width: int, height: int, size: int, resample: Resample) -> None:
    source = noise(width, height)
    result = to_pixels(source, size, resample)
    assert result.shape == (size, size, 3)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert np.array_equal(result, to_pixels(source.copy(), size, resample))
    assert (result.min(axis=(0, 1)) >= source.min(axis=(0, 1))).all()
    assert (result.max(axis=(0, 1)) <= source.max(axis=(0, 1))).all()


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 900), height=st.integers(1, 900), size=st.sampled_from([16, 33, 64]), colour=st.tuples(*[st.integers(0, 255)] * 3)
)
def test_one_colour_stays_that_colour(width: int, height: int, size: int, colour: tuple[int, int, int]) -> None:
    assert (to_pixels(np.full((height, width, 3), colour, np.uint8), size) == np.array(colour)).all()


@pytest.mark.parametrize("resample", RESAMPLES)
def test_image_of_the_right_size_is_untouched(resample: Resample) -> None:
    assert np.array_equal(to_pixels(noise(48, 48), 48, resample), noise(48, 48))


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 8, 16])
def test_whole_factors_are_exact_averages(factor: int) -> None:
    source = noise(16 * factor, 16 * factor)
    expected = source.reshape(16, factor, 16, factor, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(to_pixels(source, 16) - expected).max() <= (0.51 if factor <= 8 else 1.1)


@pytest.mark.parametrize(("width", "height"), [(434, 505), (300, 640), (1200, 500), (3000, 257), (230, 2900), (5000, 400)])
def test_close_to_exact_area_averaging(width: int, height: int) -> None:
    source = np.asarray(smooth(width, height))
    textured = (source.astype(int) + noise(width, height).astype(int) // 8).clip(0, 255).astype(np.uint8)
    difference = np.abs(to_pixels(textured, 224) - area_average(textured, 224))
    assert difference.mean() < 1.5
    assert np.abs(to_pixels(source, 224) - area_average(source, 224)).mean() < 0.6


def test_pillows_filter_is_kept_for_old_packages() -> None:
    source = noise(200, 130)
    assert np.array_equal(
        to_pixels(source, 48, "bilinear"), np.asarray(Image.fromarray(source).resize((48, 48), Image.Resampling.BILINEAR))
    )


def test_the_pixels_are_the_same_on_every_machine() -> None:
    """Digests taken on x86-64 with AVX-512. Integer arithmetic leaves no choice, so they hold anywhere, and without such instructions."""
    sizes = [(434, 505, 224), (200, 150, 48), (1000, 37, 64)]
    digests = ["0676b43dabe4cd55", "c6c4db3e68d3b781", "40de4b2f7f478bc1"]

    def taken() -> list[str]:
        return [sha256_bytes(to_pixels(noise(width, height), size).tobytes())[:16] for width, height, size in sizes]

    assert taken() == digests
    cv2.setUseOptimized(False)
    try:
        assert taken() == digests
    finally:
        cv2.setUseOptimized(True)


def test_channels_keep_their_order() -> None:
    for resample in RESAMPLES:
        assert to_pixels(np.full((40, 90, 3), (200, 100, 50), np.uint8), 32, resample)[7, 9].tolist() == [200, 100, 50]


def test_the_whole_image_counts() -> None:
    halves = np.zeros((40, 200, 3), np.uint8)
    halves[:, 100:] = 255
    result = to_pixels(halves, 32)
    assert result[:, :15].max() == 0
    assert result[:, 17:].min() == 255


@pytest.mark.parametrize("side", [256, 1024, 4096])
def test_shrinking_averages_instead_of_picking(side: int) -> None:
    stripes = np.zeros((64, side, 3), np.uint8)
    stripes[:, ::2] = 255
    result = to_pixels(stripes, 16).astype(int)
    assert abs(result.mean() - 127.5) < 3
    assert result.std() < 12


def fixed_point_bilinear(rgb: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """OpenCV's bilinear filter of 8-bit pictures: weights of 11 bits, a shift by 4 between the two passes, rounding at the end."""

    def weights(targets: int, side: int, *, clamped: bool) -> tuple[NDArray[np.int64], ...]:
        at = ((np.arange(targets) + 0.5) * (side / targets) - 0.5).astype(np.float32)
        first = np.floor(at).astype(int)
        part = at - first.astype(np.float32)
        if clamped:  # beyond the border there is but one pixel to weigh
            part = np.where((first < 0) | (first >= side - 1), np.float32(0), part)
        far = np.rint(part * np.float32(2048)).astype(np.int64)
        near = np.rint((np.float32(1) - part) * np.float32(2048)).astype(np.int64)
        return np.clip(first, 0, side - 1), np.clip(first + 1, 0, side - 1), near, far

    x, right, near, far = weights(width, rgb.shape[1], clamped=True)
    rows = rgb.astype(np.int64)[:, x] * near[None, :, None] + rgb.astype(np.int64)[:, right] * far[None, :, None]
    y, below, near, far = weights(height, rgb.shape[0], clamped=False)
    upper, lower = ((rows[at] >> 4) * weight[:, None, None] >> 16 for at, weight in ((y, near), (below, far)))
    return np.clip((upper + lower + 2) >> 2, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("width", "height"), [(200, 270), (270, 200), (400, 533), (448, 896), (112, 112), (60, 70), (897, 561)])
def test_the_pixels_are_those_of_the_formula(width: int, height: int) -> None:
    source, size = noise(width, height), 112
    samples = [round(side / size) for side in (height, width)]
    sampled = fixed_point_bilinear(source, samples[1] * size, samples[0] * size).astype(np.int64)
    blocks = sampled.reshape(size, samples[0], size, samples[1], 3).sum(axis=(1, 3))
    expected = blocks / (samples[0] * samples[1])
    assert np.abs(to_pixels(source, size) - expected).max() <= 0.5
