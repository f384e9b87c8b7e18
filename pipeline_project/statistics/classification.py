"""Scores of a classifier. Every value is 0-1 unless said otherwise, and every rule for a zero denominator is stated here.

Zero denominators: the precision of a class that was never predicted is 0, the recall of a class without images is 0, F1 is 0 when
precision and recall are both 0 (the `zero_division=0` of scikit-learn). ROC-AUC of a class that holds no or all images is None.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_SMALLEST_PROBABILITY = 1e-15


@dataclass(frozen=True)
class ClassScore:
    """One class: precision, recall, F1, the images of the class (`support`), those predicted as it, and those right."""

    precision: float
    recall: float
    f1: float
    support: int
    predicted: int
    correct: int


@dataclass(frozen=True)
class ReliabilityBin:
    """The predictions whose confidence lies in (low, high]: how many, their mean confidence and their accuracy."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def accuracy(true: Ints, predicted: Ints) -> float:
    """Share of equal entries of two (N,) arrays. Raises `ValueError` when they are empty or differ in length."""
    _same_rows(true, predicted)
    return float((true == predicted).mean())


def confusion_matrix(true: Ints, predicted: Ints, class_count: int) -> Ints:
    """Counts (C, C): rows are true classes, columns predicted ones.

    Raises:
        ValueError: empty input, unequal lengths, or an index outside 0 .. class_count - 1.
    """
    _same_rows(true, predicted)
    for name, values in (("true", true), ("predicted", predicted)):
        if values.min() < 0 or values.max() >= class_count:
            raise ValueError(f"{name}: class index {values.min()}..{values.max()} is outside 0..{class_count - 1}.")
    flat = np.bincount(true.astype(np.int64) * class_count + predicted, minlength=class_count * class_count)
    return flat.reshape(class_count, class_count).astype(np.int64)


def class_scores(matrix: Ints) -> list[ClassScore]:
    """Precision, recall and F1 of every class of a confusion matrix (C, C)."""
    correct, support, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    # F1 = 2 TP / (2 TP + FP + FN) needs no precision or recall, so it has one rule for zero instead of three.
    return [
        ClassScore(_ratio(c, p), _ratio(c, s), _ratio(2 * c, s + p), int(s), int(p), int(c))
        for c, s, p in zip(correct, support, predicted, strict=True)
    ]


def macro_f1(matrix: Ints) -> float:
    """Mean F1 over all classes of a confusion matrix (C, C); a class without images counts with 0."""
    return float(np.mean([score.f1 for score in class_scores(matrix)]))


def log_loss(true: Ints, probabilities: Floats) -> float:
    """Mean negative log-likelihood of the true class, nats.

    Args:
        true: (N,) class indices.
        probabilities: (N, C), rows summing to 1; clipped to 1e-15 from below.
    """
    _check_probabilities(true, probabilities)
    picked = probabilities[np.arange(len(true)), true]
    return float(-np.log(np.maximum(picked, _SMALLEST_PROBABILITY)).mean())


def reliability(true: Ints, probabilities: Floats, bins: int = 15) -> list[ReliabilityBin]:
    """Predictions grouped by the confidence of the predicted class, in equal-width bins; empty bins are left out."""
    _check_probabilities(true, probabilities)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == true
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    found = []
    for b in np.unique(index):
        rows = index == b
        found.append(
            ReliabilityBin(
                float(b / bins), float((b + 1) / bins), int(rows.sum()), float(confidence[rows].mean()), float(right[rows].mean())
            )
        )
    return found


def expected_calibration_error(true: Ints, probabilities: Floats, bins: int = 15) -> float:
    """Mean distance of confidence and accuracy over equal-width bins, weighted by count (Guo et al. 2017, equation 3)."""
    return sum(b.count * abs(b.confidence - b.accuracy) for b in reliability(true, probabilities, bins)) / len(true)


def roc_auc(positive: NDArray[np.bool_], scores: Floats) -> float | None:
    """Area under the ROC curve: the probability that a positive scores above a negative, ties counting half (Mann-Whitney U).

    Args:
        positive: (N,) whether the row belongs to the class.
        scores: (N,) any real numbers.

    Returns:
        None when there are no positives or no negatives.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if positives == 0 or negatives == 0:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = middle_rank[inverse][positive].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def one_vs_rest_roc_auc(true: Ints, probabilities: Floats) -> list[float | None]:
    """ROC-AUC of every class against the others, from (N,) class indices and (N, C) probabilities."""
    _check_probabilities(true, probabilities)
    return [roc_auc(true == c, probabilities[:, c]) for c in range(probabilities.shape[1])]


def macro_roc_auc(true: Ints, probabilities: Floats) -> float | None:
    """Mean one-vs-rest ROC-AUC over the classes where it is defined; None when it is defined nowhere."""
    defined = [area for area in one_vs_rest_roc_auc(true, probabilities) if area is not None]
    return float(np.mean(defined)) if defined else None


def _ratio(numerator: np.int64, denominator: np.int64) -> float:
    return float(numerator / denominator) if denominator else 0.0


def _same_rows(true: Ints, predicted: Ints) -> None:
    if len(true) == 0 or true.shape != predicted.shape:
        raise ValueError(
            f"scores need equally many true and predicted classes, at least one; there are {true.shape} and {predicted.shape}."
        )


def _check_probabilities(true: Ints, probabilities: Floats) -> None:
    if len(true) == 0 or probabilities.ndim != 2 or len(true) != len(probabilities):
        raise ValueError(f"scores need one row of probabilities an image, at least one; there are {true.shape} and {probabilities.shape}.")
