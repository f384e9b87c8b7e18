"""Measurements: in their declared ranges for any pixels, and telling what their names say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from pipeline_project.imaging import FEATURE_NAMES, measure

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
    assert values["brightness"] == pytest.approx(0.299 + 0.114 * 0.2, abs=1e-4)
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
