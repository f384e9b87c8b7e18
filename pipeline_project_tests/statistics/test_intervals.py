"""Intervals against scipy, the needed sample size at its exact edge, and bootstrap coverage."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from pipeline_project.statistics import intervals

confidences = st.sampled_from([0.8, 0.9, 0.95, 0.99])


@st.composite
def counts(draw):
    trials = draw(st.integers(1, 500))
    return draw(st.integers(0, trials)), trials


@given(counts(), confidences)
@settings(max_examples=60, deadline=None)
def test_bounds_agree_with_scipy(count, confidence):
    k, n = count
    ours = intervals.wilson_interval(k, n, confidence)
    theirs = binomtest(k, n).proportion_ci(confidence, "wilson")
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    one_sided = binomtest(k, n, alternative="greater").proportion_ci(confidence, "exact").low
    assert intervals.clopper_pearson_lower_bound(k, n, confidence) == pytest.approx(one_sided, abs=1e-9)
    one_sided_wilson = binomtest(k, n, alternative="greater").proportion_ci(confidence, "wilson").low
    assert intervals.wilson_lower_bound(k, n, confidence) == pytest.approx(one_sided_wilson, abs=1e-9)


@given(st.floats(0.05, 1), st.floats(0.01, 0.98), confidences)
@settings(max_examples=100, deadline=None)
def test_needed_trials_is_the_smallest_that_suffices(rate, threshold, confidence):
    assume(rate - threshold > 0.002)
    needed = intervals.needed_trials(rate, threshold, confidence)
    assert needed is not None
    assert intervals.wilson_lower_bound(rate * needed, needed, confidence) >= threshold - 1e-9
    if needed > 1:
        assert intervals.wilson_lower_bound(rate * (needed - 1), needed - 1, confidence) <= threshold + 1e-9


def test_no_number_is_enough_at_or_below_the_threshold():
    assert intervals.needed_trials(0.8, 0.8) is None
    assert intervals.needed_by_scaling(0.7, 0.6, 0.8, 100) is None
    assert intervals.needed_by_scaling(0.9, 0.8, 0.85, 100) == 400


def test_empty_and_extreme_counts():
    assert intervals.wilson_interval(0, 0) == (0, 1)
    assert intervals.wilson_lower_bound(0, 0) == 0
    assert intervals.wilson_interval(0, 20).low == 0
    assert intervals.wilson_interval(20, 20).high == 1
    with pytest.raises(ValueError, match="successes"):
        intervals.wilson_interval(3, 2)


def test_bootstrap_is_seeded_and_close_to_the_normal_interval():
    values = np.random.default_rng(0).normal(3, 2, 400)
    first = intervals.bootstrap_interval(lambda rows: float(values[rows].mean()), 400, seed=1)
    assert first == intervals.bootstrap_interval(lambda rows: float(values[rows].mean()), 400, seed=1)
    half = 1.96 * values.std() / 20
    assert first == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)


def test_undefined_resamples_are_left_out():
    draws = np.array([[1.0, np.nan], [np.nan, np.nan], [3.0, np.nan]])
    found = intervals.percentile_intervals(draws)
    assert found[0] == pytest.approx((1.05, 2.95))
    assert found[1] is None
