"""Fairness: is the classifier as good for every group of images (R109, D12)?

A gap of accuracy counts against a model when it is both larger than allowed and more than chance, for best and worst of several small
groups always differ somewhat. Both are reported.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline_project.evaluation.performance import proportion
from pipeline_project.statistics.paired import gap_p_value, holm

if TYPE_CHECKING:
    import pandas as pd

DERIVED_COLUMNS = ("brightness", "contrast", "aspect", "border_brightness")
SIGNIFICANCE = 0.05
NOT_GIVEN = "(not given)"
_SEED = 20_262
_LEVELS = {2: ("low", "high"), 3: ("low", "middle", "high")}


def slice_labels(
    attributes: "pd.DataFrame", measurements: "pd.DataFrame", columns: Sequence[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """The slice of every image in every column.

    Args:
        attributes: N rows, the label file's columns as text; an empty text is the slice "(not given)".
        measurements: N rows, `imaging.FEATURE_NAMES`; brightness, contrast, aspect and border_brightness are cut at their terciles.
        columns: the named columns of attributes.

    Returns:
        ({column: N slice names}, the named columns that attributes lack).
    """
    named = {c: [str(v).strip() or NOT_GIVEN for v in attributes[c].fillna("")] for c in columns if c in attributes.columns}
    derived = {f"image {c}": _terciles(measurements[c].to_numpy(np.float64)) for c in DERIVED_COLUMNS if c in measurements.columns}
    return named | derived, [c for c in columns if c not in attributes.columns]


def compare_slices(
    labels: Mapping[str, Sequence[str]], correct: NDArray[np.bool_], *, min_size: int, max_gap: float, confidence: float
) -> dict[str, dict[str, Any]]:
    """Accuracy of every slice, and for every column the gap between its best and worst slice of at least `min_size` images.

    The p-value of a gap is that of dealing the right answers to the slices at random (`gap_p_value`), adjusted by Holm over the
    columns. `unfair` means: larger than `max_gap`, and adjusted p below 0.05.

    Args:
        labels: {column: N slice names}.
        correct: (N,) whether the answer was right.
        min_size: smaller slices are reported, not compared.
        max_gap: allowed difference of accuracies, 0-1.
        confidence: of the intervals of each slice.

    Returns:
        {column: {slices: {name: estimate}, compared, best, worst, gap, p_value, adjusted_p_value, unfair}}; the gap and all after it
        are None, and unfair is False, where fewer than two slices are large enough.
    """
    report: dict[str, dict[str, Any]] = {}
    for column, names in labels.items():
        array = np.asarray(names)
        estimates = {str(n): proportion(int(correct[array == n].sum()), int((array == n).sum()), confidence) for n in np.unique(array)}
        large = {name: e for name, e in estimates.items() if e["size"] >= min_size}
        entry: dict[str, Any] = {"slices": estimates, "compared": sorted(large), "unfair": False}
        entry |= dict.fromkeys(("best", "worst", "gap", "p_value", "adjusted_p_value"))
        if len(large) >= 2:
            best, worst = (pick(large, key=lambda name: (large[name]["value"], name)) for pick in (max, min))
            right = [int(correct[array == name].sum()) for name in large]
            entry |= {
                "best": best,
                "worst": worst,
                "gap": large[best]["value"] - large[worst]["value"],
                "p_value": gap_p_value(right, [e["size"] for e in large.values()], seed=_SEED),
            }
        report[column] = entry
    tested = [entry for entry in report.values() if entry["p_value"] is not None]
    for entry, adjusted in zip(tested, holm([entry["p_value"] for entry in tested]), strict=True):
        entry["adjusted_p_value"] = adjusted
        entry["unfair"] = bool(entry["gap"] > max_gap + 1e-9 and adjusted < SIGNIFICANCE)
    return report


def slice_rows(report: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The slices as table rows for people."""
    return [
        {
            "column": column,
            "slice": name,
            "images": e["size"],
            "accuracy": round(e["value"], 4),
            "interval": f"{e['low']:.3f}-{e['high']:.3f}",
            "compared": name in entry["compared"],
        }
        for column, entry in report.items()
        for name, e in entry["slices"].items()
    ]


def _terciles(values: NDArray[np.float64]) -> list[str]:
    edges = np.unique(np.quantile(values, [1 / 3, 2 / 3]))
    edges = edges[edges > values.min()]  # equal values make fewer parts; an edge at the minimum has nothing below it
    names = _LEVELS.get(len(edges) + 1, ("all",))
    return [names[i] for i in np.searchsorted(edges, values, side="right")]
