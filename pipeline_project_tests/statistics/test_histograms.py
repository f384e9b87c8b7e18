"""Histograms add up, lose nothing, survive JSON, and give the PSI of the values they were built from."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_project.statistics.histograms import (
    Histogram,
    build_histogram,
    histogram_psi,
    merge_histograms,
    psi_from_counts,
    quantile_edges,
)

values = st.lists(st.one_of(st.floats(-5, 5), st.just(float("nan")), st.just(float("inf"))), max_size=40)
EDGES = (-1.0, 0.0, 2.0)


@given(values, values)
def test_merging_equals_counting_together(first, second):
    merged = merge_histograms(build_histogram(first, EDGES), build_histogram(second, EDGES))
    assert merged == build_histogram(first + second, EDGES)
    assert merged.total == len(first) + len(second)
    assert Histogram.from_json(json.loads(json.dumps(merged.as_json()))) == merged


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60))
def test_bins_are_half_open_as_documented(numbers):
    bounds = [-np.inf, *EDGES, np.inf]
    expected = tuple(sum(low <= v < high for v in numbers) for low, high in pairwise(bounds))
    assert build_histogram(numbers, EDGES).counts == expected


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.integers(2, 12))
def test_quantile_edges_rise_and_are_few(numbers, bins):
    edges = quantile_edges(numbers, bins)
    assert 1 <= len(edges) <= max(2, bins - 1)
    assert (np.diff(edges) > 0).all()


counts = st.lists(st.integers(0, 99), min_size=4, max_size=4).filter(any)


@given(counts, counts)
def test_psi_is_symmetric_and_zero_only_for_equal_shares(first, second):
    assert psi_from_counts(first, second) == pytest.approx(psi_from_counts(second, first))
    assert psi_from_counts(first, second) >= 0
    assert psi_from_counts(first, first) == 0


def test_different_edges_are_refused():
    with pytest.raises(ValueError, match="equal edges"):
        merge_histograms(build_histogram([1], EDGES), build_histogram([1], (0.0,)))
    with pytest.raises(ValueError, match="filled"):
        histogram_psi(build_histogram([1], EDGES), build_histogram([], EDGES))
    with pytest.raises(ValueError, match="rise strictly"):
        Histogram((1.0, 1.0), (0, 0, 0))
