"""Scores against scikit-learn on random predictions, and their rules at zero denominators."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from pipeline_project.statistics import classification


@st.composite
def predictions(draw):
    """(true, probabilities) with ties, missing classes and confident mistakes."""
    classes, rows = draw(st.integers(2, 6)), draw(st.integers(1, 80))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    true = random.integers(0, draw(st.integers(1, classes)), rows)
    scores = np.round(random.random((rows, classes)), draw(st.integers(1, 6))) + 1e-3
    return true, scores / scores.sum(axis=1, keepdims=True)


@given(predictions())
@settings(max_examples=60, deadline=None)
def test_scores_agree_with_scikit_learn(case):
    true, probabilities = case
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    labels = list(range(classes))
    matrix = classification.confusion_matrix(true, predicted, classes)
    assert matrix.tolist() == metrics.confusion_matrix(true, predicted, labels=labels).tolist()
    assert classification.accuracy(true, predicted) == pytest.approx(metrics.accuracy_score(true, predicted))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(true, predicted, labels=labels, zero_division=0)
    scores = classification.class_scores(matrix)
    assert [s.precision for s in scores] == pytest.approx(precision.tolist())
    assert [s.recall for s in scores] == pytest.approx(recall.tolist())
    assert [s.f1 for s in scores] == pytest.approx(f1.tolist())
    assert [s.support for s in scores] == support.tolist()
    assert classification.macro_f1(matrix) == pytest.approx(f1.mean())
    assert classification.log_loss(true, probabilities) == pytest.approx(metrics.log_loss(true, probabilities, labels=labels))
    for c, area in enumerate(classification.one_vs_rest_roc_auc(true, probabilities)):
        if area is not None:
            assert area == pytest.approx(metrics.roc_auc_score(true == c, probabilities[:, c]))
        else:
            assert (true == c).all() or not (true == c).any()


@given(predictions(), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_reliability_bins_hold_every_prediction_once(case, bins):
    true, probabilities = case
    found = classification.reliability(true, probabilities, bins)
    assert sum(b.count for b in found) == len(true)
    assert all(b.low - 1e-9 <= b.confidence <= b.high + 1e-9 for b in found)
    assert 0 <= classification.expected_calibration_error(true, probabilities, bins) <= 1


def test_calibration_error_of_known_cases():
    sure = np.tile([[1.0, 0.0]], (10, 1))
    assert classification.expected_calibration_error(np.zeros(10, np.int64), sure) == 0
    assert classification.expected_calibration_error(np.ones(10, np.int64), sure) == 1
    assert classification.expected_calibration_error(np.array([0] * 8 + [1] * 2), np.tile([[0.8, 0.2]], (10, 1))) == pytest.approx(0)


def test_zero_denominators_are_zero_and_undefined_areas_none():
    scores = classification.class_scores(np.array([[3, 0, 0], [2, 0, 0], [0, 0, 0]]))
    assert (scores[1].precision, scores[1].recall, scores[1].f1) == (0, 0, 0)
    assert (scores[2].precision, scores[2].recall, scores[2].f1, scores[2].support) == (0, 0, 0, 0)
    assert classification.roc_auc(np.ones(3, bool), np.arange(3.0)) is None
    assert classification.macro_roc_auc(np.zeros(3, np.int64), np.eye(3)) is None


@pytest.mark.parametrize("true", [np.array([], np.int64), np.array([0, 3])])
def test_impossible_input_is_refused(true):
    with pytest.raises(ValueError, match=r"at least one|outside 0\.\.1"):
        classification.confusion_matrix(true, np.zeros(len(true), np.int64), 2)
