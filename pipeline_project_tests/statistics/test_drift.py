"""Drift measures against scipy, the false-alarm rates of decision D11, and that moves are seen and noise is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from pipeline_project.statistics import drift

counts = st.lists(st.integers(0, 200), min_size=5, max_size=5).filter(lambda row: sum(row) > 0)
positive = st.lists(st.integers(1, 200), min_size=5, max_size=5)


@given(counts, positive)
def test_kl_agrees_with_scipy(current, reference):
    expected = entropy(np.array(current) / sum(current), np.array(reference) / sum(reference))
    assert drift.kl_divergence(current, reference) == pytest.approx(expected, abs=1e-9)


def test_kl_is_finite_for_a_class_new_since_training():
    assert 5 < drift.kl_divergence([0, 0, 100], [50, 50, 0]) < 20
    assert drift.kl_divergence([10, 10], [0.5, 0.5]) == 0


@pytest.mark.parametrize(("size", "rate"), [(40, 0.42), (133, 0.01)])
def test_false_alarms_of_a_bare_threshold_are_those_of_d11(size, rate):
    shares = np.full(5, 0.2)
    samples = np.random.default_rng(0).multinomial(size, shares, 4000)
    alarms = np.mean([drift.kl_divergence(sample, shares) > 0.05 for sample in samples])
    assert alarms == pytest.approx(rate, abs=0.03)


def test_p_value_agrees_with_the_g_test_and_keeps_its_level():
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    for sample in np.random.default_rng(3).multinomial(400, shares, 10):
        result = drift.class_drift(sample, shares, seed=0)
        assert result.p_value == pytest.approx(drift.g_test_p_value(result.kl_divergence, 400, 4), abs=0.03)
    small = [drift.class_drift(s, shares, seed=1, draws=400).p_value < 0.05 for s in np.random.default_rng(4).multinomial(20, shares, 300)]
    assert np.mean(small) < 0.09
    assert drift.class_drift([200, 100, 60, 40], shares, seed=0).p_value < 0.001


@pytest.mark.parametrize("bad", [[1], [0, 0], [-1, 3]])
def test_impossible_weights_are_refused(bad):
    with pytest.raises(ValueError, match="class weights"):
        drift.kl_divergence(bad, [1, 1])


def test_psi_sees_moves_and_not_noise():
    random = np.random.default_rng(0)
    reference = random.normal(0, 1, 5000)
    assert drift.population_stability_index(reference, random.normal(0, 1, 5000)) < 0.02
    assert drift.population_stability_index(reference, random.normal(1, 1, 5000)) > 0.5
    assert drift.population_stability_index(reference, np.where(random.random(5000) < 0.3, np.nan, reference)) > 0.3
    constant = np.full(200, 0.5)
    assert drift.population_stability_index(constant, constant) == 0
    assert drift.population_stability_index(constant, constant + 0.1) > 1
    assert drift.population_stability_index(constant, constant - 0.1) > 1


def _mmd_by_definition(x, y, bandwidth):
    def kernel(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(axis=2) / (2 * bandwidth**2))

    n, m = len(x), len(y)
    return (kernel(x, x).sum() - n) / (n * (n - 1)) + (kernel(y, y).sum() - m) / (m * (m - 1)) - 2 * kernel(x, y).sum() / (n * m)


@given(st.integers(2, 20), st.integers(2, 20), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_mmd_agrees_with_its_definition(n, m, seed):
    random = np.random.default_rng(seed)
    x, y = random.normal(5, 1, (n, 3)), random.normal(5.5, 1, (m, 3))
    result = drift.maximum_mean_discrepancy(x, y, seed=0, permutations=5)
    assert result.mmd_squared == pytest.approx(_mmd_by_definition(x, y, result.bandwidth), abs=1e-9)


def test_mmd_sees_a_changed_spread_and_keeps_its_level():
    random = np.random.default_rng(7)
    base = random.normal(0, 1, (300, 8))
    assert drift.maximum_mean_discrepancy(base, random.normal(0, 1.6, (300, 8)), seed=0).p_value < 0.01
    null = [
        drift.maximum_mean_discrepancy(random.normal(0, 1, (40, 4)), random.normal(0, 1, (40, 4)), seed=i, permutations=99).p_value
        for i in range(150)
    ]
    assert np.mean(np.array(null) < 0.05) < 0.11
    assert drift.maximum_mean_discrepancy(base, base[:50], seed=3, max_rows=100).reference_rows == 100
    with pytest.raises(ValueError, match="finite"):
        drift.maximum_mean_discrepancy(base, np.full((3, 8), np.nan), seed=0)
