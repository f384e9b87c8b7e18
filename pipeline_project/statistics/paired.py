"""Tests of two things measured on the same images, and of groups that should not differ. p-values are one-sided where said so."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_EXACT_SIGN_FLIPS = 14


@dataclass(frozen=True)
class PairedOutcome:
    """Two classifiers on the same images: those only the first got right, those only the second did, and the one-sided p-value."""

    only_first: int
    only_second: int
    p_value: float


def mcnemar_p_value(only_first: int, only_second: int) -> float:
    """Exact one-sided McNemar p-value that the first classifier is no better than the second (binomial tail; McNemar 1947).

    Args:
        only_first: images that only the first classifier got right.
        only_second: images that only the second one got right.

    Returns:
        P(X >= only_first) of X ~ Binomial(only_first + only_second, 1/2); 1 when they never differ.
    """
    from scipy.stats import binom

    if only_first < 0 or only_second < 0:
        raise ValueError(f"counts must not be negative; they are {only_first} and {only_second}.")
    return float(binom.sf(only_first - 1, only_first + only_second, 0.5))


def mcnemar(first_correct: NDArray[np.bool_], second_correct: NDArray[np.bool_]) -> PairedOutcome:
    """Exact one-sided McNemar test that the first classifier is better, from two (N,) arrays of right answers on the same images."""
    if first_correct.shape != second_correct.shape:
        raise ValueError(f"both need the same images; there are {first_correct.shape} and {second_correct.shape}.")
    only_first = int((first_correct & ~second_correct).sum())
    only_second = int((~first_correct & second_correct).sum())
    return PairedOutcome(only_first, only_second, mcnemar_p_value(only_first, only_second))


def sign_flip_p_value(differences: NDArray[np.float64], *, seed: int, draws: int = 10_000) -> float:
    """One-sided p-value that paired differences have a mean of at most 0 (Fisher's randomisation of signs).

    All sign patterns are tried up to 14 pairs, else `draws` random ones besides the observed one.

    Args:
        differences: (N,) first minus second of each pair.
    """
    n = len(differences)
    if n == 0:
        raise ValueError("a paired test needs at least one pair.")
    if n <= _EXACT_SIGN_FLIPS:
        patterns = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1) * 2.0 - 1
        extra = 0
    else:
        patterns = np.random.default_rng(seed).integers(0, 2, (draws, n)) * 2.0 - 1
        extra = 1  # the observed pattern itself: a p-value is never 0
    observed = differences.sum()
    tolerance = 1e-12 * np.abs(differences).sum()  # the order of summation must not decide a tie
    return float(((patterns @ differences >= observed - tolerance).sum() + extra) / (len(patterns) + extra))


def gap_p_value(successes: Sequence[int], trials: Sequence[int], *, seed: int, draws: int = 20_000) -> float:
    """p-value of the gap between the best and the worst of K proportions when all are truly equal.

    The successes are dealt to the groups at random, sizes fixed (multivariate hypergeometric). For two groups that is the two-sided
    two-proportion randomisation test; for more, it allows for best and worst having been picked after looking, which a test of the
    picked pair does not.

    Raises:
        ValueError: fewer than two groups, an empty one, or more successes than trials.
    """
    right, sizes = np.asarray(successes, np.int64), np.asarray(trials, np.int64)
    if len(sizes) < 2 or len(right) != len(sizes) or (sizes < 1).any() or (right > sizes).any() or (right < 0).any():
        raise ValueError(f"the gap test needs two groups or more, each with rows; there are {list(successes)} of {list(trials)}.")
    dealt = np.random.default_rng(seed).multivariate_hypergeometric(sizes, int(right.sum()), size=draws, method="marginals")
    gaps = np.ptp(dealt / sizes, axis=1)
    return float(((gaps >= np.ptp(right / sizes) - 1e-12).sum() + 1) / (draws + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, in the order given (Holm 1979, step-down): compare each with the overall level."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
