"""Slices, corruptions, the attack and the deletion test: each must see what is there and not see what is not."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_project.evaluation import explanations, robustness, slices
from pipeline_project.evaluation.performance import rounded, score_predictions
from pipeline_project.settings.tree import ImageSettings


def compare(labels, correct, **changes):
    values = {"min_size": 30, "max_gap": 0.1, "confidence": 0.95} | changes
    return slices.compare_slices(labels, np.asarray(correct, bool), **values)


def test_a_real_gap_is_unfair_and_noise_is_not():
    random = np.random.default_rng(0)
    tier = np.repeat(["a", "b", "c"], 100)
    correct = random.random(300) < np.where(tier == "c", 0.6, 0.95)
    report = compare({"tier": tier, "noise": random.choice(["x", "y"], 300)}, correct)
    assert report["tier"]["unfair"]
    assert (report["tier"]["worst"], report["tier"]["gap"] > 0.2) == ("c", True)
    assert not report["noise"]["unfair"]
    assert sum(e["size"] for e in report["tier"]["slices"].values()) == 300


def test_a_large_gap_of_few_images_is_reported_not_counted():
    report = compare({"tier": ["a"] * 30 + ["b"] * 30}, [True] * 30 + [True] * 26 + [False] * 4)
    assert report["tier"]["gap"] == pytest.approx(4 / 30)
    assert report["tier"]["adjusted_p_value"] > 0.05
    assert not report["tier"]["unfair"]


def test_a_small_gap_of_many_images_is_allowed():
    correct = [True] * 950 + [False] * 50 + [True] * 900 + [False] * 100
    report = compare({"tier": ["a"] * 1000 + ["b"] * 1000}, correct)
    assert report["tier"]["adjusted_p_value"] < 0.001
    assert not report["tier"]["unfair"]


def test_small_slices_are_not_compared():
    report = compare({"tier": ["a"] * 40 + ["b"] * 5}, [True] * 40 + [False] * 5)
    assert report["tier"]["gap"] is None
    assert report["tier"]["slices"]["b"]["value"] == 0
    assert len(slices.slice_rows(report)) == 2


def test_slice_labels_name_missing_values_and_columns():
    attributes = pd.DataFrame({"region": ["north", "", " south "]})
    measurements = pd.DataFrame({"brightness": [0.1, 0.5, 0.9], "aspect": [0.0, 0.0, 0.0], "contrast": [0.0, 0.0, 1.0]})
    labels, missing = slices.slice_labels(attributes, measurements, ["region", "tier"])
    assert labels["region"] == ["north", "(not given)", "south"]
    assert labels["image brightness"] == ["low", "middle", "high"]
    assert labels["image aspect"] == ["all"] * 3
    assert len(set(labels["image contrast"])) == 2
    assert missing == ["tier"]


@pytest.mark.parametrize("name", robustness.CORRUPTIONS)
def test_corruptions_are_mild_repeatable_and_keep_the_shape(name):
    image = np.random.default_rng(0).integers(30, 220, (4, 4, 3)).astype(np.uint8).repeat(12, axis=0).repeat(12, axis=1)
    changed = robustness.CORRUPTIONS[name](image, 3)
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    assert np.array_equal(changed, robustness.CORRUPTIONS[name](image, 3))
    assert 0.3 < np.abs(changed.astype(int) - image).mean() < 40


def by_red(images: np.ndarray) -> np.ndarray:
    """A classifier of images by mean red: class 1 above 128."""
    red = images[..., 0].mean(axis=(1, 2)) / 255
    return np.stack([1 - red, red], axis=1)


def test_corruption_report_is_relative_to_clean_accuracy():
    images = np.zeros((40, 32, 32, 3), np.uint8)
    images[20:, ..., 0] = 140  # darkened by a fifth it falls below the border
    report = robustness.corruption_report(by_red, images, np.repeat([0, 1], 20))
    assert report["clean_accuracy"] == 1
    assert report["corruptions"]["darker"] == {"accuracy": 0.5, "relative": 0.5}
    assert report["corruptions"]["jpeg"]["relative"] == 1


def test_the_attack_changes_each_pixel_by_epsilon_towards_the_mistake():
    import torch

    class ByRed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor]:
            red = self.weight * (batch[:, 0].mean(dim=(1, 2)) - 0.5)
            return (torch.stack([-red, red], dim=1),)

    images = np.full((6, 16, 16, 3), 126, np.uint8)
    images[3:] = 130
    plain = ImageSettings(size=16, mean=(0, 0, 0), std=(1, 1, 1))
    report = robustness.adversarial_report(by_red, ByRed(), images, np.array([0, 0, 0, 1, 1, 1]), epsilon=0.016, image_settings=plain)
    assert report == {
        "images": 6,
        "epsilon_levels": 4,
        "clean_accuracy": 1.0,
        "accuracy": 0.0,
        "relative": 0.0,
        "network_accuracy": 0.0,
    }
    weak = robustness.adversarial_report(by_red, ByRed(), images, np.array([0, 0, 0, 1, 1, 1]), epsilon=0.0, image_settings=plain)
    assert (weak["epsilon_levels"], weak["accuracy"]) == (1, 1.0)


def blobs() -> np.ndarray:
    random = np.random.default_rng(0)
    images = np.full((12, 40, 40, 3), 60, np.uint8)
    for image in images:
        y, x = random.integers(0, 22, 2)
        image[y : y + 18, x : x + 18, 0] = 250
    return images


def test_true_explanations_pass_and_false_ones_fail():
    images, ids = blobs(), [str(i) for i in range(12)]

    def bright(batch: np.ndarray) -> np.ndarray:
        share = (batch[..., 0] > 200).mean(axis=(1, 2)) * 4
        return np.stack([share, 1 - share], axis=1)

    good, heats = explanations.validate_explanations(bright, lambda image: image[..., 0] / 255, images, ids)
    assert good["valid"]
    assert good["mean_drop"] > good["mean_control_drop"]
    assert heats[0].shape == (40, 40)
    bad, _ = explanations.validate_explanations(bright, lambda image: 1 - image[..., 0] / 255, images, ids)
    assert not bad["valid"]
    flat, _ = explanations.validate_explanations(bright, lambda image: np.zeros(image.shape[:2]), images, ids)
    assert all(row["flat"] for row in flat["each"])


def test_explained_images_take_turns_through_the_classes():
    true = np.array([0] * 10 + [1] * 2 + [2] * 5)
    chosen = explanations.choose_images(true, 7)
    assert [int(true[row]) for row in chosen] == [0, 1, 2, 0, 1, 2, 0]
    assert len(explanations.choose_images(true, 99)) == 17


@given(st.integers(0, 1000), st.integers(2, 4), st.integers(3, 60))
@settings(max_examples=4, deadline=None)
def test_every_estimate_lies_in_its_interval(seed, classes, rows):
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(classes), rows)
    names = [str(c) for c in range(classes)]
    report = score_predictions(random.integers(0, classes, rows), probabilities, names, 0.95)
    estimates = [report["accuracy"], *(e[k] for e in report["classes"].values() for k in ("precision", "recall"))]
    for estimate in estimates:
        assert estimate["low"] <= estimate["lower_bound"] + 1e-12
        assert estimate["lower_bound"] <= estimate["value"] <= estimate["high"]


def test_probabilities_of_other_classes_are_refused():
    with pytest.raises(ValueError, match="do not fit 3 classes"):
        score_predictions(np.zeros(2, np.int64), np.full((2, 2), 0.5), ["a", "b", "c"], 0.95)


def test_rounding_makes_plain_json():
    assert rounded({1: (np.float64(0.12345678), -0.0), "n": np.int64(3), "none": None}) == {"1": [0.123457, 0.0], "n": 3, "none": None}
