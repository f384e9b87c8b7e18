"""Histograms with fixed edges, which add up: hours to days, workers to a fleet, without keeping the values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Histogram:
    """Counts between inner edges e1 < e2 < ... : bins (-inf, e1), [e1, e2), ..., [ek, inf), and a count of NaN values.

    The outer bins are open, so no value is ever dropped.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    missing: int = 0

    def __post_init__(self) -> None:
        if any(not low < high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"edges must rise strictly and be numbers; they are {self.edges}.")
        if len(self.counts) != len(self.edges) + 1 or min(self.counts) < 0 or self.missing < 0:
            raise ValueError(f"{len(self.edges)} inner edges need {len(self.edges) + 1} counts, none negative; they are {self.counts}.")

    @property
    def total(self) -> int:
        """All values counted, NaN among them."""
        return sum(self.counts) + self.missing

    def as_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {"edges": list(self.edges), "counts": list(self.counts), "missing": self.missing}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Histogram":
        """Read `as_json`'s value. Raises `ValueError` or `KeyError` when it is not one."""
        return cls(tuple(value["edges"]), tuple(value["counts"]), value["missing"])


def quantile_edges(reference: ArrayLike, bins: int = 10) -> NDArray[np.float64]:
    """Inner edges that cut finite reference values into at most `bins` parts of about equal count; equal edges become one.

    Raises:
        ValueError: there is no finite value, or fewer than 2 bins are asked for.
    """
    values = np.asarray(reference, np.float64)
    values = values[np.isfinite(values)]
    if len(values) == 0 or bins < 2:
        raise ValueError(f"quantile edges need at least one finite value and two bins; there are {len(values)} and {bins}.")
    edges = np.unique(np.quantile(values, np.arange(1, bins) / bins))
    if len(edges) == 1:
        # Nearly all values are one: bins below, at and above it, so that a move either way shows.
        return np.array([edges[0], np.nextafter(edges[0], np.inf)])
    return edges


def build_histogram(values: ArrayLike, edges: Sequence[float] | NDArray[np.float64]) -> Histogram:
    """Count values between inner edges; NaN counts as missing."""
    array = np.asarray(values, np.float64).ravel()
    missing = np.isnan(array)
    inner = np.asarray(edges, np.float64)
    counts = np.bincount(np.searchsorted(inner, array[~missing], side="right"), minlength=len(inner) + 1)
    return Histogram(tuple(inner.tolist()), tuple(counts.tolist()), int(missing.sum()))


def merge_histograms(first: Histogram, *others: Histogram) -> Histogram:
    """The histogram of all values together. Raises `ValueError` when the edges differ."""
    for other in others:
        _same_edges(first, other)
    counts = np.sum([h.counts for h in (first, *others)], axis=0)
    return Histogram(first.edges, tuple(counts.tolist()), sum(h.missing for h in (first, *others)))


def histogram_psi(reference: Histogram, current: Histogram) -> float:
    """Population stability index of two histograms with equal edges, as `psi_from_counts`; missing values are a bin if there are any."""
    _same_edges(reference, current)
    with_missing = reference.missing + current.missing > 0
    return psi_from_counts(
        [*reference.counts, *([reference.missing] if with_missing else [])], [*current.counts, *([current.missing] if with_missing else [])]
    )


def psi_from_counts(reference: ArrayLike, current: ArrayLike, pseudo_count: float = 0.5) -> float:
    """Population stability index: sum of (p - q) ln(p / q) over bins; 0 for equal shares, symmetric, never negative.

    Args:
        reference: (B,) counts.
        current: (B,) counts of the same bins.
        pseudo_count: added to every bin, so that an empty one gives a large value instead of an infinite one.

    Raises:
        ValueError: different lengths, or one side holds no values.
    """
    p_counts, q_counts = np.asarray(current, np.float64), np.asarray(reference, np.float64)
    if p_counts.shape != q_counts.shape or p_counts.sum() <= 0 or q_counts.sum() <= 0:
        raise ValueError(f"PSI needs two filled histograms of the same bins; there are {q_counts.tolist()} and {p_counts.tolist()}.")
    p = (p_counts + pseudo_count) / (p_counts + pseudo_count).sum()
    q = (q_counts + pseudo_count) / (q_counts + pseudo_count).sum()
    return float(((p - q) * np.log(p / q)).sum())


def _same_edges(first: Histogram, second: Histogram) -> None:
    if first.edges != second.edges:
        raise ValueError(f"only histograms with equal edges can be put together; they are {first.edges} and {second.edges}.")
