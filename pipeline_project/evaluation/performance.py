"""Test scores with intervals: what the classifier gets right, and how sure we are of that (R104, D13)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline_project.statistics import classification, intervals

BOOTSTRAP_SEED = 20_261
CALIBRATION_BINS = 10
_BOOTSTRAP_CELLS = 20_000_000


def score_predictions(
    true: NDArray[np.int64], probabilities: NDArray[np.float64], classes: Sequence[str], confidence: float
) -> dict[str, Any]:
    """Every score of a test set, each as an estimate {value, low, high, lower_bound, size}.

    `low` and `high` bound the two-sided interval, `lower_bound` is one-sided; both at `confidence`. Proportions (accuracy, precision,
    recall) have Wilson intervals over their own denominator `size`; the others percentile bootstrap intervals over images.

    Args:
        true: (N,) class indices.
        probabilities: (N, C), rows summing to 1.
        classes: C names.
        confidence: such as 0.95.

    Returns:
        {accuracy, macro_f1, roc_auc_macro, expected_calibration_error, log_loss, classes: {name: {precision, recall, f1, roc_auc,
        support}}, confusion_matrix, reliability}. An undefined ROC-AUC is None.

    Raises:
        ValueError: there are no images, or probabilities and classes do not fit.
    """
    count = len(classes)
    if probabilities.ndim != 2 or probabilities.shape[1] != count:
        raise ValueError(f"{probabilities.shape} probabilities do not fit {count} classes. The package and the dataset differ in classes.")
    predicted = probabilities.argmax(axis=1)
    matrix = classification.confusion_matrix(true, predicted, count)
    scores = classification.class_scores(matrix)

    def vector(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        return _bootstrapped(true[rows], probabilities[rows], count)

    draws = int(np.clip(_BOOTSTRAP_CELLS // max(1, probabilities.size), 100, 1000))
    drawn = intervals.bootstrap(vector, len(true), seed=BOOTSTRAP_SEED, draws=draws)
    names = ["macro_f1", "roc_auc_macro", "expected_calibration_error", "log_loss"]
    names += [f"f1.{name}" for name in classes] + [f"roc_auc.{name}" for name in classes]
    everything = np.arange(len(true))
    resampled = dict(zip(names, _estimates(vector(everything), drawn, len(true), confidence), strict=True))
    return {
        "accuracy": proportion(int((true == predicted).sum()), len(true), confidence),
        **{name: resampled[name] for name in names[:4]},
        "classes": {
            name: {
                "precision": proportion(score.correct, score.predicted, confidence),
                "recall": proportion(score.correct, score.support, confidence),
                "f1": resampled[f"f1.{name}"],
                "roc_auc": resampled[f"roc_auc.{name}"],
                "support": score.support,
            }
            for name, score in zip(classes, scores, strict=True)
        },
        "confusion_matrix": matrix.tolist(),
        "reliability": [vars(b) for b in classification.reliability(true, probabilities, CALIBRATION_BINS)],
    }


def proportion(successes: int, trials: int, confidence: float) -> dict[str, Any]:
    """A share as an estimate; 0 with the interval 0-1 when there are no trials."""
    low, high = intervals.wilson_interval(successes, trials, confidence)
    return {
        "value": successes / trials if trials else 0.0,
        "low": low,
        "high": high,
        "lower_bound": intervals.wilson_lower_bound(successes, trials, confidence),
        "size": trials,
    }


def rounded(value: Any, places: int = 6) -> Any:
    """A JSON value with every float rounded, so that equal results have equal bytes; NumPy scalars become plain ones."""
    if isinstance(value, dict):
        return {str(key): rounded(item, places) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, places) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return round(value, places) + 0.0 if isinstance(value, float) else value  # + 0.0 turns -0.0 into 0.0


def _bootstrapped(true: NDArray[np.int64], probabilities: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    matrix = classification.confusion_matrix(true, probabilities.argmax(axis=1), count)
    areas = np.array([np.nan if a is None else a for a in classification.one_vs_rest_roc_auc(true, probabilities)])
    head = [
        classification.macro_f1(matrix),
        float(np.nanmean(areas)) if not np.isnan(areas).all() else np.nan,
        classification.expected_calibration_error(true, probabilities, CALIBRATION_BINS),
        classification.log_loss(true, probabilities),
    ]
    return np.concatenate([head, [score.f1 for score in classification.class_scores(matrix)], areas])


def _estimates(values: NDArray[np.float64], drawn: NDArray[np.float64], size: int, confidence: float) -> list[dict[str, Any] | None]:
    # A one-sided bound at 95% is the lower end of a two-sided interval at 90%.
    two_sided = intervals.percentile_intervals(drawn, confidence)
    one_sided = intervals.percentile_intervals(drawn, 2 * confidence - 1)
    found: list[dict[str, Any] | None] = []
    for value, both, single in zip(values, two_sided, one_sided, strict=True):
        if np.isnan(value) or both is None or single is None:
            found.append(None)
        else:
            found.append({"value": float(value), "low": both.low, "high": both.high, "lower_bound": single.low, "size": size})
    return found
