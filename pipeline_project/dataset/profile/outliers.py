"""Unusual images, in three ways: far from the mean, far outside the quartiles, easily isolated among all measurements together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_Z = 4.0
FENCE = 3.0
ISOLATED = 0.65
_FITTED = 20_000
_TREES = 100
_SAMPLE = 256


@dataclass(frozen=True)
class Outliers:
    """Per image (N) and measurement (F): standard scores (N, F), whether outside the fences (N, F), anomaly scores (N) in 0-1."""

    z_scores: NDArray[np.float64]
    outside: NDArray[np.bool_]
    scores: NDArray[np.float64]

    @property
    def far(self) -> NDArray[np.bool_]:
        """(N, F) more than `MAX_Z` standard deviations from the mean."""
        return np.asarray(np.abs(self.z_scores) > MAX_Z)

    @property
    def isolated(self) -> NDArray[np.bool_]:
        """(N,) anomaly score above `ISOLATED`."""
        return np.asarray(self.scores > ISOLATED)

    def worst(self, count: int) -> NDArray[np.intp]:
        """Rows of the highest anomaly scores, the highest first; ties in the order of the rows."""
        return np.argsort(-self.scores, kind="stable")[:count]

    def reason(self, row: int, names: Sequence[str]) -> str:
        """The measurement in which an image differs most, in words."""
        column = int(np.abs(self.z_scores[row]).argmax())
        return f"{names[column]} {self.z_scores[row, column]:+.1f} sd"


def find_outliers(values: NDArray[np.float64], *, seed: int = 0) -> Outliers:
    """Judge every row of (N, F) finite measurements.

    Args:
        values: N images, F measurements.
        seed: of the isolation forest; equal seeds give equal scores.

    Returns:
        standard scores (x - mean) / standard deviation, 0 where a measurement never varies; Tukey's outer fences, `FENCE` interquartile
        ranges beyond the quartiles (Tukey 1977); the isolation forest's anomaly score (Liu et al. 2008, eq. 2: about 0.5 is usual, towards
        1 is easily isolated), rounded to 4 places. The forest is fitted to at most 20,000 rows, drawn with the seed.
    """
    from sklearn.ensemble import IsolationForest

    spread = values.std(axis=0)
    constant = spread <= 1e-9 * np.maximum(1, np.abs(values).max(axis=0))
    z_scores = np.where(constant, 0, (values - values.mean(axis=0)) / np.where(constant, 1, spread))
    low, high = np.quantile(values, [0.25, 0.75], axis=0)
    reach = FENCE * (high - low) + 1e-9
    outside = (values < low - reach) | (values > high + reach)
    fitted = values
    if len(values) > _FITTED:
        fitted = values[np.sort(np.random.default_rng(seed).choice(len(values), _FITTED, replace=False))]
    forest = IsolationForest(n_estimators=_TREES, max_samples=min(_SAMPLE, len(fitted)), random_state=seed, n_jobs=1).fit(fitted)
    scores = np.round(-forest.score_samples(values), 4) if len(values) > 1 else np.full(1, 0.5)
    return Outliers(z_scores, outside, scores)
