"""How sure a number is: intervals and bounds of proportions, and the bootstrap for everything else."""

from collections.abc import Callable
from math import ceil, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    high: float


def wilson_interval(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """Two-sided Wilson score interval of a proportion (Wilson 1927); (0, 1) when there are no trials.

    Raises:
        ValueError: successes outside 0 .. trials, or confidence outside 0-1.
    """
    _check(successes, trials, confidence)
    return _wilson(successes, trials, NormalDist().inv_cdf(0.5 + confidence / 2))


def wilson_lower_bound(successes: float, trials: float, confidence: float = 0.95) -> float:
    """One-sided Wilson lower bound of a proportion; 0 when there are no trials. Raises as `wilson_interval`."""
    _check(successes, trials, confidence)
    return _wilson(successes, trials, NormalDist().inv_cdf(confidence)).low


def clopper_pearson_lower_bound(successes: int, trials: int, confidence: float = 0.95) -> float:
    """One-sided exact lower bound of a proportion (Clopper and Pearson 1934): never too high, so wider than Wilson's."""
    from scipy.stats import beta

    _check(successes, trials, confidence)
    return 0.0 if successes == 0 else float(beta.ppf(1 - confidence, successes, trials - successes + 1))


def needed_trials(rate: float, threshold: float, confidence: float = 0.95) -> int | None:
    """The smallest N at which the one-sided Wilson lower bound of an observed `rate` reaches `threshold` (D13).

    The Wilson bound inverts the score test, so it reaches p0 exactly when N >= z^2 p0 (1 - p0) / (rate - p0)^2.

    Returns:
        None when the rate does not exceed the threshold: then no N is enough.
    """
    if rate <= threshold:
        return None
    z = NormalDist().inv_cdf(confidence)
    return max(1, ceil(z * z * threshold * (1 - threshold) / (rate - threshold) ** 2))


def needed_by_scaling(value: float, lower_bound: float, threshold: float, size: int) -> int | None:
    """About the N at which a lower bound reaches `threshold`, when its distance to the value shrinks with the square root of N.

    For statistics that are no proportions, such as macro F1. None when the value does not exceed the threshold.
    """
    if value <= threshold:
        return None
    return max(1, ceil(size * ((value - lower_bound) / (value - threshold)) ** 2))


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], NDArray[np.float64]], size: int, *, seed: int, draws: int = 1000
) -> NDArray[np.float64]:
    """Values of a statistic on resamples with replacement (Efron 1979).

    Args:
        statistic: takes (size,) row indices and gives (K,) values; NaN where a value is undefined on a resample.
        size: rows to draw from.
        seed: equal seeds give equal draws.
        draws: resamples.

    Returns:
        (draws, K).
    """
    if size < 1 or draws < 1:
        raise ValueError(f"the bootstrap needs at least one row and one draw; there are {size} and {draws}.")
    random = np.random.default_rng(seed)
    return np.stack([np.atleast_1d(statistic(random.integers(0, size, size))) for _ in range(draws)])


def percentile_intervals(draws: NDArray[np.float64], confidence: float = 0.95) -> list[Interval | None]:
    """Two-sided percentile intervals of every column of bootstrap draws (draws, K); None for a column that is NaN throughout."""
    tails = [50 * (1 - confidence), 50 * (1 + confidence)]
    found: list[Interval | None] = []
    for column in draws.T:
        defined = column[~np.isnan(column)]
        found.append(Interval(*(float(q) for q in np.percentile(defined, tails))) if len(defined) else None)
    return found


def bootstrap_interval(
    statistic: Callable[[NDArray[np.intp]], float], size: int, *, seed: int, confidence: float = 0.95, draws: int = 1000
) -> Interval:
    """Two-sided percentile bootstrap interval of one statistic of (size,) row indices.

    Raises:
        ValueError: no rows, or the statistic is undefined on every resample.
    """
    found = percentile_intervals(bootstrap(lambda rows: np.array([statistic(rows)]), size, seed=seed, draws=draws), confidence)[0]
    if found is None:
        raise ValueError("the statistic is undefined (NaN) on every resample.")
    return found


def _wilson(successes: float, trials: float, z: float) -> Interval:
    if trials == 0:
        return Interval(0.0, 1.0)
    rate, share = successes / trials, z * z / trials
    centre = rate + share / 2
    half = z * sqrt(rate * (1 - rate) / trials + share / (4 * trials))
    # At 0 and at N one end is exactly 0 or 1; rounding must not leave it a hair inside.
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / (1 + share))
    high = 1.0 if successes == trials else min(1.0, (centre + half) / (1 + share))
    return Interval(low, high)


def _check(successes: float, trials: float, confidence: float) -> None:
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must lie in 0..trials; they are {successes} of {trials}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1; it is {confidence}.")
