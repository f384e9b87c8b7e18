"""The permutation test of the population stability index: exact where nothing moved, and it sees what did."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_project.statistics.histograms import psi_from_counts
from pipeline_project.statistics.stability import stability, stability_of_counts

counts = st.lists(st.integers(0, 40), min_size=2, max_size=8)


@given(counts, st.randoms(use_true_random=False))
def test_psi_is_that_of_the_counts(old: list[int], random: object) -> None:
    new = old[::-1]
    if not sum(old):
        return
    used = [(a, b) for a, b in zip(old, new, strict=True) if a + b]
    found = stability_of_counts(old, new, seed=1, draws=50)
    assert found.psi == pytest.approx(psi_from_counts([a for a, _ in used], [b for _, b in used]))
    assert 1 / 51 <= found.p_value <= 1


@pytest.mark.parametrize("ties", [False, True])
def test_p_values_of_equal_samples_are_never_too_small_too_often(ties: bool) -> None:
    random, days = np.random.default_rng(5), 400
    p_values = []
    for day in range(days):
        old, new = random.normal(size=300), random.normal(size=60)
        if ties:
            old, new = np.round(old), np.round(new)
        p_values.append(stability(old, new, seed=day, draws=199).p_value)
    for level in (0.05, 0.2, 0.5):  # P(p <= level) <= level; 4 standard deviations of 400 days
        assert np.mean(np.array(p_values) <= level) <= level + 4 * np.sqrt(level * (1 - level) / days)
    if not ties:
        assert np.mean(np.array(p_values) <= 0.2) >= 0.2 - 4 * np.sqrt(0.16 / days), "nor too large"


def test_a_moved_sample_has_a_small_p_value() -> None:
    random = np.random.default_rng(1)
    found = stability(random.normal(size=500), random.normal(1, 1, 100), seed=0)
    assert found.p_value == 1 / 10_000
    assert found.psi > 0.25
    assert stability_of_counts([100, 100, 0], [10, 10, 20], seed=0).p_value < 0.001, "a category that is new"


def test_missing_values_are_a_bin() -> None:
    old, new = np.arange(200.0), np.arange(200.0)
    new[::2] = np.nan
    assert stability(old, new, seed=0).p_value < 0.001
    assert stability(np.full(50, np.nan), np.full(50, np.nan), seed=0).p_value == 1


def test_one_value_everywhere_has_not_moved() -> None:
    found = stability(np.ones(100), np.ones(50), seed=0)
    assert found.psi == pytest.approx(0)
    assert found.p_value == 1


def test_equal_seeds_give_equal_p_values() -> None:
    random = np.random.default_rng(2)
    old, new = random.normal(size=200), random.normal(0.2, 1, 100)
    assert stability(old, new, seed=3) == stability(old, new, seed=3)


@pytest.mark.parametrize(("old", "new"), [([], [1.0]), ([1.0], []), ([], [])])
def test_an_empty_side_is_refused(old: list[float], new: list[float]) -> None:
    with pytest.raises(ValueError, match="values on both sides"):
        stability(old, new, seed=0)
    with pytest.raises(ValueError, match="values on both sides"):
        stability_of_counts([0, 0], [1, 2], seed=0)
