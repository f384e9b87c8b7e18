"""Grad-CAM against finite differences of the served graph's own head."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline_project.packaging.package import Head
from pipeline_project.serving.explanation import explain, logit_gradient, overlay_png


def make_head(seed: int, width: int = 7, hidden: int = 5, classes: int = 3) -> Head:
    random = np.random.default_rng(seed)
    shapes = ((hidden, width), (hidden,), (classes, hidden), (classes,))
    return Head(*(random.normal(size=shape).astype(np.float32) for shape in shapes))


def logits_of(feature_map: np.ndarray, head: Head) -> np.ndarray:
    pooled = feature_map.mean(axis=(1, 2))
    return head.w2 @ np.maximum(head.w1 @ pooled + head.b1, 0) + head.b2


@given(seed=st.integers(0, 10_000), class_index=st.integers(0, 2))
def test_the_gradient_is_that_of_finite_differences(seed: int, class_index: int) -> None:
    head = Head(*(array.astype(np.float64) for array in vars(make_head(seed)).values()))  # type: ignore[arg-type]
    feature_map = np.random.default_rng(seed + 1).random((7, 4, 4))
    step = 1e-7
    base = logits_of(feature_map, head)[class_index]
    by_difference = []
    for channel in range(7):
        moved = feature_map.copy()
        moved[channel, 1, 2] += step
        by_difference.append((logits_of(moved, head)[class_index] - base) / step * 16)  # each place is 1/16 of the pooled mean
    gradient = logit_gradient(feature_map.mean(axis=(1, 2)), head, class_index)
    assert gradient == pytest.approx(np.array(by_difference), abs=1e-4)


def test_the_heat_lies_where_the_evidence_is() -> None:
    head = make_head(1)
    feature_map = np.zeros((7, 6, 6), np.float32)
    class_index, channel = next((c, k) for c in range(3) for k in range(7) if logit_gradient(np.zeros(7, np.float32), head, c)[k] > 0)
    feature_map[channel, 1, 4] = 0.01
    heat = explain(feature_map, head, class_index, 48)
    assert heat.shape == (48, 48)
    assert heat.min() >= 0
    assert heat.max() <= 1
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert 8 <= row < 16
    assert 32 <= column < 40


def test_without_evidence_the_heat_is_zero() -> None:
    assert not explain(np.zeros((7, 6, 6), np.float32), make_head(0), 0, 32).any()


def test_the_overlay_is_a_png_of_the_wanted_side() -> None:
    png = overlay_png(np.full((48, 48, 3), 128, np.uint8), np.linspace(0, 1, 48 * 48, dtype=np.float32).reshape(48, 48), side=200)
    with Image.open(io.BytesIO(png)) as image:
        assert image.size == (200, 200)
        assert image.format == "PNG"
