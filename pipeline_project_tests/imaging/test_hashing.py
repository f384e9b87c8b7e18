"""The perceptual hash: close to the reference implementation, and near for pictures that look the same."""

import io
from pathlib import Path

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline_project.imaging import DecodeLimits, decode_image, perceptual_hash, to_pixels
from pipeline_project.sample import PRODUCTS, product_photo

CLOTHING = Path(__file__).parents[3] / "shared" / "data" / "clothing"
LIMITS = DecodeLimits(frozenset({"JPEG"}), 10**7, 10**8, 16)


def drawn(count: int, size: int) -> list[NDArray[np.uint8]]:
    rng, labels = np.random.default_rng(7), sorted(PRODUCTS)
    return [to_pixels(decode_image(product_photo(labels[i % len(labels)], rng), LIMITS, size).pixels, size) for i in range(count)]


def distance(one: str, two: str) -> int:
    return (int(one, 16) ^ int(two, 16)).bit_count()


@pytest.mark.parametrize("size", [16, 32, 48, 100, 224, 260])
def test_near_imagehash_on_drawn_photos(size: int) -> None:
    apart = [distance(perceptual_hash(pixels), str(imagehash.phash(Image.fromarray(pixels)))) for pixels in drawn(25, size)]
    assert max(apart) <= 10
    assert np.mean(apart) <= 2


@pytest.mark.skipif(not CLOTHING.is_dir(), reason="needs the photographs of ../shared/data/clothing")
def test_near_imagehash_on_real_photos() -> None:
    photographs = sorted(CLOTHING.rglob("*.jpg"))[::45]
    assert photographs
    apart = []
    for path in photographs:
        pixels = to_pixels(decode_image(path.read_bytes(), LIMITS, 224).pixels, 224)
        apart.append(distance(perceptual_hash(pixels), str(imagehash.phash(Image.fromarray(pixels)))))
    assert max(apart) <= 8
    assert np.mean(apart) <= 1


@settings(max_examples=50, deadline=None)
@given(size=st.integers(16, 90), seed=st.integers(0, 2**32))
def test_sixteen_digits_whatever_the_picture(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, rng.integers(1, 257), (size, size, 3), dtype=np.uint8)
    found = perceptual_hash(pixels)
    assert len(found) == 16
    assert 0 <= int(found, 16) < 2**64
    assert found == perceptual_hash(pixels.copy())
    assert int(found, 16).bit_count() <= 32, "at most half of the frequencies lie above their median"


@pytest.mark.parametrize("level", [1, 77, 128, 255])
def test_one_colour_has_only_the_lowest_frequency(level: int) -> None:
    assert perceptual_hash(np.full((48, 48, 3), level, np.uint8)) == "8000000000000000"


def test_photos_that_look_the_same_are_near_and_others_far() -> None:
    near, hashes = [], []
    for pixels in drawn(30, 224):
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((190, 190), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=70)
        again = to_pixels(decode_image(buffer.getvalue(), LIMITS, 224).pixels, 224)
        hashes.append(perceptual_hash(pixels))
        near.append(distance(hashes[-1], perceptual_hash(again)))
    apart = [distance(one, two) for i, one in enumerate(hashes) for two in hashes[:i]]
    assert max(near) <= 8
    assert np.median(apart) > 18
