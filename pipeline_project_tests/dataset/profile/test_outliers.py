"""Outliers: planted ones are found in each of the three ways, equal seeds agree, constant measurements do no harm."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_project.dataset.profile.outliers import FENCE, MAX_Z, find_outliers


def test_a_planted_outlier_is_found_in_every_way() -> None:
    values = np.random.default_rng(0).normal(size=(500, 4))
    values[17] = [9, -9, 9, -9]
    found = find_outliers(values)
    assert found.far[17].all()
    assert found.outside[17].all()
    assert found.worst(1).tolist() == [17]
    assert found.isolated[17]
    assert found.isolated.sum() <= 5
    assert found.reason(17, list("abcd")).split(" ")[0] in "abcd"


def test_an_unusual_combination_is_isolated_though_no_single_value_is_far() -> None:
    values = np.random.default_rng(1).normal(size=(2000, 6))
    values[5] = [3.2, -3.2, 3.2, -3.2, 3.2, -3.2]
    found = find_outliers(values)
    assert not found.far[5].any()
    assert not found.outside[5].any()
    assert found.worst(1).tolist() == [5]


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 40), st.integers(0, 2**32))
def test_scores_follow_their_definitions(count: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(count, 3)).round(1)
    values[:, 2] = 7  # never varies
    found = find_outliers(values)
    assert np.isfinite(found.z_scores).all()
    assert not found.z_scores[:, 2].any()
    assert not found.outside[:, 2].any()
    for column in range(2):
        if values[:, column].std() > 1e-6:
            expected = (values[:, column] - values[:, column].mean()) / values[:, column].std()
            np.testing.assert_allclose(found.z_scores[:, column], expected)
        low, high = np.quantile(values[:, column], [0.25, 0.75])
        reach = FENCE * (high - low)
        clearly = (values[:, column] > high + reach + 1e-6) | (values[:, column] < low - reach - 1e-6)
        assert (found.outside[:, column] >= clearly).all()
    assert ((found.scores >= 0) & (found.scores <= 1)).all()


def test_equal_seeds_give_equal_scores_in_large_tables() -> None:
    values = np.random.default_rng(3).normal(size=(30_000, 3))
    values[29_999] = 8
    first, second = find_outliers(values, seed=4), find_outliers(values.copy(), seed=4)
    assert (first.scores == second.scores).all()
    assert first.worst(1).tolist() == [29_999], "a row outside the fitted sample is judged, too"
    assert np.abs(first.z_scores[29_999]).min() > MAX_Z


@pytest.mark.parametrize("count", [1, 2])
def test_very_few_images_have_no_outlier(count: int) -> None:
    assert not find_outliers(np.arange(count * 2.0).reshape(count, 2)).isolated.any()
