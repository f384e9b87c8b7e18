"""Paired tests against scipy, their level under the null, and Holm against statsmodels' definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, hypergeom

from pipeline_project.statistics import paired


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_mcnemar_is_the_binomial_tail(first, second):
    expected = binomtest(first, first + second, 0.5, alternative="greater").pvalue if first + second else 1.0
    assert paired.mcnemar_p_value(first, second) == pytest.approx(expected)


def test_mcnemar_counts_only_disagreement():
    first, second = np.array([1, 1, 1, 0, 0], bool), np.array([1, 0, 0, 1, 0], bool)
    assert paired.mcnemar(first, second) == paired.PairedOutcome(2, 1, pytest.approx(0.5))
    with pytest.raises(ValueError, match="same images"):
        paired.mcnemar(first, second[:2])


def test_sign_flips_are_exact_for_few_pairs():
    assert paired.sign_flip_p_value(np.ones(10), seed=0) == 1 / 1024
    assert paired.sign_flip_p_value(np.zeros(10), seed=0) == 1
    assert paired.sign_flip_p_value(np.array([0.3, 0.1, -0.2]), seed=0) == pytest.approx(3 / 8)


def test_sign_flips_keep_their_level():
    random = np.random.default_rng(5)
    rejected = [paired.sign_flip_p_value(random.normal(0, 1, 30), seed=i, draws=500) < 0.05 for i in range(400)]
    assert 0.02 < np.mean(rejected) < 0.085
    assert paired.sign_flip_p_value(random.normal(1, 1, 30), seed=0) < 0.001


@given(st.integers(30, 60), st.integers(30, 60), st.data())
@settings(max_examples=20, deadline=None)
def test_gap_of_two_groups_is_the_exact_randomisation_test(n, m, data):
    a, b = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    ours = paired.gap_p_value([a, b], [n, m], seed=0)
    dealt = np.arange(max(0, a + b - m), min(n, a + b) + 1)  # every number of successes that the first group can be dealt
    gaps = np.abs(dealt / n - (a + b - dealt) / m)
    exact = hypergeom.pmf(dealt, n + m, a + b, n)[gaps >= abs(a / n - b / m) - 1e-12].sum()
    assert ours == pytest.approx(exact, abs=0.02)  # 20,000 draws: five standard errors are at most 0.018


def test_gap_allows_for_picking_best_and_worst():
    random = np.random.default_rng(2)
    sizes = [40] * 8
    rejected = [paired.gap_p_value(random.binomial(40, 0.9, 8), sizes, seed=i, draws=400) < 0.05 for i in range(300)]
    assert np.mean(rejected) < 0.09  # a test of the picked pair would reject about half
    assert paired.gap_p_value([38, 38, 20], [40, 40, 40], seed=0) < 0.001


@pytest.mark.parametrize(("successes", "trials"), [([1], [2]), ([1, 0], [2, 0]), ([3, 1], [2, 2])])
def test_impossible_groups_are_refused(successes, trials):
    with pytest.raises(ValueError, match="gap test"):
        paired.gap_p_value(successes, trials, seed=0)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_as_its_step_down_procedure(p_values):
    adjusted = paired.holm(p_values)
    assert all(0 <= a <= 1 and a >= p - 1e-12 for p, a in zip(p_values, adjusted, strict=True))
    rejecting = True
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        rejecting = rejecting and (len(p_values) - rank) * p_values[index] <= 0.05
        assert (adjusted[index] <= 0.05) == rejecting
