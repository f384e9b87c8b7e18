"""Is one sample distributed as another: the population stability index with its exact p-value, for numbers and for categories."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline_project.statistics.histograms import build_histogram, quantile_edges

DRAWS = 9_999


@dataclass(frozen=True)
class StabilityTest:
    """PSI of the two samples over the bins of both together, and the p-value of it when both come from one distribution."""

    psi: float
    p_value: float


def stability(reference: ArrayLike, current: ArrayLike, *, seed: int, bins: int = 10, draws: int = DRAWS) -> StabilityTest:
    """PSI of a numeric column over bins at the quantiles of both samples together, with its permutation p-value.

    The bins do not depend on which value came from which sample, so under the hypothesis of one distribution all divisions of the
    pooled values are equally likely: the counts of `current` are multivariate hypergeometric. Simulating these is a permutation test
    whose cost does not grow with the samples. P(p_value <= a) <= a at any sizes, with ties, and without any assumption of a shape.

    Args:
        reference: (N,) values; NaN is a bin of its own.
        current: (M,) values.
        seed: equal seeds give equal p-values.
        bins: at most so many.
        draws: simulated divisions; the smallest p-value is 1 / (draws + 1).

    Raises:
        ValueError: a sample is empty.
    """
    old, new = np.asarray(reference, np.float64), np.asarray(current, np.float64)
    if not len(old) or not len(new):
        raise ValueError(f"a test of stability needs values on both sides; there are {len(old)} and {len(new)}.")
    pooled = np.concatenate([old, new])
    edges = quantile_edges(pooled, bins) if np.isfinite(pooled).any() else np.zeros(0)
    counts = [np.array([*histogram.counts, histogram.missing]) for histogram in (build_histogram(side, edges) for side in (old, new))]
    return stability_of_counts(*counts, seed=seed, draws=draws)


def stability_of_counts(reference: ArrayLike, current: ArrayLike, *, seed: int, draws: int = DRAWS) -> StabilityTest:
    """As `stability`, of (B,) counts of the same categories."""
    old, new = np.asarray(reference, np.int64), np.asarray(current, np.int64)
    used = old + new > 0
    old, new = old[used], new[used]
    if not old.sum() or not new.sum():
        raise ValueError(f"a test of stability needs values on both sides; there are {old.sum()} and {new.sum()}.")
    pooled = old + new
    observed = _psi(old[None], new[None])[0]
    simulated = np.random.default_rng(seed).multivariate_hypergeometric(pooled, int(new.sum()), size=draws, method="marginals")
    at_least = int((_psi(pooled - simulated, simulated) >= observed - 1e-12).sum())
    return StabilityTest(float(observed), (at_least + 1) / (draws + 1))


def _psi(old: NDArray[np.int64], new: NDArray[np.int64]) -> NDArray[np.float64]:
    """PSI of each row of counts, with half a value added to each bin as `psi_from_counts` does."""
    q, p = old + 0.5, new + 0.5
    q, p = q / q.sum(axis=1, keepdims=True), p / p.sum(axis=1, keepdims=True)
    return np.asarray(((p - q) * np.log(p / q)).sum(axis=1))
