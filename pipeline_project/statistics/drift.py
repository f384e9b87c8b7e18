"""Has something moved: PSI of a feature, KL divergence of class shares, MMD of feature vectors."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline_project.statistics.histograms import build_histogram, histogram_psi, quantile_edges

_SMALLEST_SHARE = 1e-4


@dataclass(frozen=True)
class ClassDrift:
    """KL divergence in nats, its p-value when nothing has moved, and the number of predictions."""

    kl_divergence: float
    p_value: float
    size: int


@dataclass(frozen=True)
class FeatureDrift:
    """Squared maximum mean discrepancy (may be slightly negative), its p-value, the kernel's bandwidth, the rows used of each side."""

    mmd_squared: float
    p_value: float
    bandwidth: float
    reference_rows: int
    current_rows: int


def population_stability_index(reference: ArrayLike, current: ArrayLike, bins: int = 10) -> float:
    """PSI of one numeric feature over bins at the reference's quantiles; 0 for equal shares.

    Usual reading: below 0.1 no move, above 0.25 a large one. Noise alone gives about (bins - 1)(1/N + 1/M). NaN is a bin of its own.
    """
    edges = quantile_edges(reference, bins)
    return histogram_psi(build_histogram(reference, edges), build_histogram(current, edges))


def kl_divergence(current: ArrayLike, reference: ArrayLike) -> float:
    """Kullback-Leibler divergence KL(current || reference) of class shares, nats, never negative.

    Args:
        current: (C,) counts or shares; 0 ln 0 is 0.
        reference: (C,) counts or shares; a share below 1e-4 counts as 1e-4, so a class new since training gives a finite number.
    """
    p, q = _shares(current, "current"), _reference_shares(reference)
    if p.shape != q.shape:
        raise ValueError(f"both need the same classes; there are {len(p)} and {len(q)}.")
    return float(max(0.0, _kl_rows(p[None], q)[0]))


def class_drift(current_counts: ArrayLike, reference: ArrayLike, *, seed: int, draws: int = 10_000) -> ClassDrift:
    """KL divergence of predicted classes, with its p-value (D11).

    The p-value is the share of samples of the same size, drawn from the reference shares, that diverge at least as much (parametric
    simulation: exact at small N, where the chi-square approximation 2 N KL ~ chi2(C - 1) is not).

    Args:
        current_counts: (C,) predictions of each class, at least one in all.
        reference: (C,) counts or shares of the training set, taken as known.
        seed: equal seeds give equal p-values.
    """
    counts = np.asarray(current_counts, np.int64)
    size = int(counts.sum())
    observed = kl_divergence(counts, reference)
    q = _reference_shares(reference)
    simulated = _kl_rows(np.random.default_rng(seed).multinomial(size, q, size=draws) / size, q)
    return ClassDrift(observed, float(((simulated >= observed - 1e-12).sum() + 1) / (draws + 1)), size)


def g_test_p_value(kl: float, size: int, class_count: int) -> float:
    """The chi-square approximation of `class_drift`'s p-value: P(chi2(C - 1) >= 2 N KL). Good from about 5 expected in every class."""
    from scipy.stats import chi2

    return float(chi2.sf(2 * size * kl, class_count - 1))


def maximum_mean_discrepancy(
    reference: NDArray[np.floating], current: NDArray[np.floating], *, seed: int, permutations: int = 200, max_rows: int = 500
) -> FeatureDrift:
    """Two-sample test of feature vectors: unbiased squared MMD with an RBF kernel at the median distance (Gretton et al. 2012, eq. 3).

    Args:
        reference: (N, D), at least 2 rows.
        current: (M, D), at least 2 rows.
        seed: of the sampling and the permutations; equal seeds give equal results.
        permutations: relabellings behind the p-value, whose smallest value is 1 / (permutations + 1).
        max_rows: of each side at most so many rows are drawn: cost grows with the square.

    Raises:
        ValueError: too few rows, different widths, or values that are not finite.
    """
    random = np.random.default_rng(seed)
    x, y = (_sample(np.asarray(side, np.float64), max_rows, random) for side in (reference, current))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"MMD needs two tables of equal width with at least 2 rows; there are {x.shape} and {y.shape}.")
    pooled = np.concatenate([x, y])
    if not np.isfinite(pooled).all():
        raise ValueError("MMD needs finite feature values; some are NaN or infinite.")
    centred = pooled - pooled.mean(axis=0)
    norms = (centred**2).sum(axis=1)
    squared = np.maximum(norms[:, None] + norms[None, :] - 2 * centred @ centred.T, 0)
    median = float(np.median(squared[np.triu_indices(len(pooled), 1)]))
    bandwidth = np.sqrt(median / 2) if median > 0 else 1.0
    kernel = np.exp(-squared / (2 * bandwidth**2))
    np.fill_diagonal(kernel, 0)

    labels = np.zeros((permutations + 1, len(pooled)))
    labels[0, : len(x)] = 1
    for row in labels[1:]:
        row[random.permutation(len(pooled))[: len(x)]] = 1
    values = _mmd_squared(labels, kernel, len(x), len(y))
    p_value = ((values[1:] >= values[0] - 1e-12).sum() + 1) / (permutations + 1)
    return FeatureDrift(float(values[0]), float(p_value), float(bandwidth), len(x), len(y))


def _mmd_squared(labels: NDArray[np.float64], kernel: NDArray[np.float64], n: int, m: int) -> NDArray[np.float64]:
    """Unbiased MMD^2 for every labelling (rows of 0/1) of the pooled rows; the kernel's diagonal is 0."""
    to_first = labels @ kernel
    row_sums = kernel.sum(axis=0)
    within_first = (to_first * labels).sum(axis=1)
    between = (to_first * (1 - labels)).sum(axis=1)
    within_second = ((row_sums - to_first) * (1 - labels)).sum(axis=1)
    return np.asarray(within_first / (n * (n - 1)) + within_second / (m * (m - 1)) - 2 * between / (n * m))


def _sample(rows: NDArray[np.float64], most: int, random: np.random.Generator) -> NDArray[np.float64]:
    if len(rows) <= most:
        return rows
    chosen: NDArray[np.float64] = rows[np.sort(random.choice(len(rows), most, replace=False))]
    return chosen


def _shares(weights: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(weights, np.float64)
    if array.ndim != 1 or len(array) < 2 or (array < 0).any() or not array.sum() > 0:
        raise ValueError(f"{name}: class weights must be two or more, not negative and not all 0; they are {array.tolist()}.")
    return np.asarray(array / array.sum())


def _reference_shares(weights: ArrayLike) -> NDArray[np.float64]:
    floored = np.maximum(_shares(weights, "reference"), _SMALLEST_SHARE)
    return np.asarray(floored / floored.sum())


def _kl_rows(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL of every row of p (R, C) against q (C,), nats."""
    terms = p * np.log(np.where(p > 0, p, 1) / q)  # where p is 0 the factor makes the term 0
    return np.asarray(terms.sum(axis=1))
