"""Measurements: in their declared ranges for any pixels, and telling what their names say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from pipeline_project.imaging import FEATURE_NAMES, DecodeLimits, decode_image, measure, to_pixels
from pipeline_project.sample import PRODUCTS, product_photo

HIGH = dict.fromkeys(FEATURE_NAMES, 1.0) | {"entropy": 6.0, "sharpness": 4.0}


def flat(red: int, green: int, blue: int, size: int = 48) -> NDArray[np.uint8]:
    return np.full((size, size, 3), (red, green, blue), np.uint8)


def checkerboard(size: int = 48) -> NDArray[np.uint8]:
    board = np.indices((size, size)).sum(axis=0) % 2 * 255
    return np.repeat(board[..., None], 3, axis=2).astype(np.uint8)


def within_ranges(values: dict[str, float]) -> None:
    assert tuple(values) == FEATURE_NAMES
    for name, value in values.items():
        assert np.isfinite(value), name
        if name != "aspect":
            assert -1e-6 <= value <= HIGH[name] + 1e-6, name


@settings(max_examples=40, deadline=None)
@given(pixels=st.sampled_from([16, 17, 48]).flatmap(lambda s: arrays(np.uint8, (s, s, 3))), aspect=st.floats(0.01, 100))
def test_any_pixels_are_in_range(pixels: NDArray[np.uint8], aspect: float) -> None:
    values = measure(pixels, aspect)
    within_ranges(values)
    assert values["aspect"] == pytest.approx(np.log2(aspect), abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_in_range(seed: int) -> None:
    within_ranges(measure(np.random.default_rng(seed).integers(0, 256, (48, 48, 3), dtype=np.uint8), 1.0))


@pytest.mark.parametrize("pixels", [flat(0, 0, 0), flat(255, 255, 255), flat(255, 0, 0), checkerboard()])
def test_extremes_are_in_range(pixels: NDArray[np.uint8]) -> None:
    within_ranges(measure(pixels, 1.0))


def test_flat_colour() -> None:
    values = measure(flat(255, 0, 51), 2.0)
    assert (values["red"], values["green"], values["blue"]) == (1, 0, pytest.approx(0.2, abs=1e-5))
    assert values["brightness"] == pytest.approx(0.299 + 0.114 * 0.2, abs=0.5 / 255)
    assert values["border_brightness"] == pytest.approx(values["brightness"], abs=1e-4)
    assert values["saturation"] == 1
    assert [values[name] for name in ("sharpness", "edge_density", "contrast", "centre_contrast", "entropy")] == pytest.approx(
        [0] * 5, abs=1e-5
    )
    assert values["aspect"] == 1


def test_features_tell_images_apart() -> None:
    smooth = np.repeat(np.tile(np.linspace(0, 255, 48).astype(np.uint8), (48, 1))[..., None], 3, axis=2)
    assert measure(checkerboard(), 1)["sharpness"] == pytest.approx(4, abs=1e-3)
    assert measure(smooth, 1)["sharpness"] < 0.02
    assert measure(smooth, 1)["edge_density"] == 0
    assert measure(smooth, 1)["entropy"] > 5
    framed = flat(0, 0, 0)
    framed[12:36, 12:36] = 255
    values = measure(framed, 1)
    assert values["border_brightness"] == 0
    assert values["brightness"] == pytest.approx(0.25, abs=1e-4)
    assert values["saturation"] == 0


def test_upside_down_changes_no_measurement() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    one, two = measure(pixels, 1.5), measure(np.ascontiguousarray(pixels[::-1, ::-1]), 1.5)
    assert one == {name: pytest.approx(value, abs=1e-2) for name, value in two.items()}


# --- against plain NumPy -----------------------------------------------------------------------------------------------------------


def reference(pixels: NDArray[np.uint8], aspect: float) -> dict[str, float]:
    """The same features written plainly, with greys that are not rounded to whole levels."""
    rgb = pixels.astype(np.float64) / 255
    grey = rgb @ np.array([0.299, 0.587, 0.114])
    laplacian = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    gradient = np.hypot(np.diff(grey, axis=0)[:, :-1], np.diff(grey, axis=1)[:-1, :])
    counts = np.bincount((grey * 63.999).astype(np.intp).ravel(), minlength=64)
    shares = counts[counts > 0] / grey.size
    edge, quarter = max(1, grey.shape[0] // 12), grey.shape[0] // 4
    border = np.concatenate([grey[:edge].ravel(), grey[-edge:].ravel(), grey[:, :edge].ravel(), grey[:, -edge:].ravel()])
    values = (
        grey.mean(),
        grey.std(),
        *rgb.mean(axis=(0, 1)),
        (rgb.max(axis=2) - rgb.min(axis=2)).mean(),
        np.abs(laplacian).mean(),
        (gradient > 0.1).mean(),
        -(shares * np.log2(shares)).sum(),
        border.mean(),
        grey[quarter:-quarter, quarter:-quarter].std(),
        np.log2(aspect),
    )
    return {name: float(value) for name, value in zip(FEATURE_NAMES, values, strict=True)}


# Whole grey levels are at most half a level (0.002) from the exact ones. Means and deviations inherit that; the Laplacian has up to
# eight of them; a gradient or a grey at the very edge of its class changes sides, which in pictures few do.
TOLERANCE = dict.fromkeys(FEATURE_NAMES, 0.002) | {
    **dict.fromkeys(("red", "green", "blue", "saturation", "aspect"), 1e-6),
    "sharpness": 8 * 0.5 / 255,
    "edge_density": 0.02,
    "entropy": 0.1,
}


def pictures() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(5)
    photos = [product_photo(label, rng) for label in sorted(PRODUCTS) for _ in range(4)]
    limits = DecodeLimits(frozenset({"JPEG"}), 10**7, 10**7, 16)
    drawn = [to_pixels(decode_image(data, limits, size).pixels, size) for data in photos for size in (48, 224)]
    return [*drawn, *(rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for size in (16, 17, 48, 224))]


def test_measurements_are_those_of_plain_numpy() -> None:
    for pixels in pictures():
        plain = reference(pixels, 1.5)
        for name, value in measure(pixels, 1.5).items():
            assert value == pytest.approx(plain[name], abs=TOLERANCE[name] + 1e-6), name


def test_greys_give_exactly_the_numbers_of_plain_numpy() -> None:
    """Without colour nothing is rounded to grey levels, so only the sixth digit is."""
    for pixels in pictures():
        grey = np.repeat(pixels[..., :1], 3, axis=2)
        plain = reference(grey, 0.5)
        plain_edges = plain.pop("edge_density"), plain.pop("entropy")
        found = measure(grey, 0.5)
        assert {name: found[name] for name in plain} == pytest.approx(plain, abs=2e-6)
        assert (found["edge_density"], found["entropy"]) == pytest.approx(plain_edges, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(pixels=arrays(np.uint8, (24, 24, 3)))
def test_memory_layout_does_not_matter(pixels: NDArray[np.uint8]) -> None:
    wider = np.zeros((24, 40, 3), np.uint8)
    wider[:, 8:32] = pixels
    assert measure(np.ascontiguousarray(wider[:, 8:32]), 1) == measure(pixels, 1)
