"""The one transform: exact size and type, the same pixels every time, antialiased, aspect not kept on purpose."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline_project.imaging import to_pixels


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@settings(max_examples=25, deadline=None)
@given(width=st.integers(1, 120), height=st.integers(1, 120), size=st.sampled_from([16, 48, 64]))
def test_shape_type_and_range(width: int, height: int, size: int) -> None:
    image = noise(width, height)
    result = to_pixels(image, size)
    assert result.shape == (size, size, 3)
    assert result.dtype == np.uint8
    assert np.array_equal(result, to_pixels(image, size))
    source = np.asarray(image)
    assert (result.min(axis=(0, 1)) >= source.min(axis=(0, 1))).all()
    assert (result.max(axis=(0, 1)) <= source.max(axis=(0, 1))).all()


def test_image_of_the_right_size_is_untouched() -> None:
    assert np.array_equal(to_pixels(noise(48, 48), 48), np.asarray(noise(48, 48)))


def test_channels_keep_their_order() -> None:
    assert to_pixels(Image.new("RGB", (90, 40), (200, 100, 50)), 32)[7, 9].tolist() == [200, 100, 50]


def test_the_whole_image_counts() -> None:
    halves = np.zeros((40, 200, 3), np.uint8)
    halves[:, 100:] = 255
    result = to_pixels(Image.fromarray(halves), 32)
    assert result[:, :15].max() == 0
    assert result[:, 17:].min() == 255


def test_shrinking_averages_instead_of_picking() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    result = to_pixels(Image.fromarray(stripes), 16).astype(int)
    assert abs(result.mean() - 127.5) < 3
    assert result.std() < 12
