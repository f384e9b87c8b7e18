"""The numbers of the profile: the payload profile.json."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline_project.dataset.profile.gathering import NAMES, Measured
from pipeline_project.dataset.profile.outliers import Outliers
from pipeline_project.ingest.privacy.report import recall_rows

if TYPE_CHECKING:
    import pandas as pd

LISTED = 50
_A_GROUP = 10
_TOP_VALUES = 10


def describe(measured: Measured, outliers: Outliers, groups: NDArray[np.int64]) -> dict[str, Any]:
    """The payload: a function of the days' contents and the settings."""
    table = measured.table
    sizes = np.bincount(groups)
    duplicates = np.flatnonzero(sizes > 1)
    noise, noisy = _label_noise(table, groups, duplicates)
    by_day: dict[str, dict[str, int]] = defaultdict(dict)
    counts = table.groupby(["day", "label"]).size()
    for day, label, count in zip(counts.index.get_level_values(0), counts.index.get_level_values(1), counts, strict=True):
        by_day[str(day)][str(label)] = int(count)
    rejected: Counter[str] = Counter()
    for codes in measured.rejected.values():
        rejected.update(codes)
    worst = outliers.worst(LISTED)
    return {
        "version": 2,
        "images": len(table),
        "labels": _counts(table["label"]),
        "by_day_and_label": dict(by_day),
        "rejected": dict(sorted(rejected.items())),
        "rejected_by_day": {day: dict(codes) for day, codes in measured.rejected.items() if codes},
        "left_out_days": dict(measured.left_out),
        "formats": _counts(table["format"]),
        "modes": _counts(table["mode"]),
        "conversions": _conversions(table),
        "features": _features(measured.values),
        "attributes": {str(name): _attribute(measured.attributes[name]) for name in measured.attributes},
        "outliers": {
            "z_score": dict(zip(NAMES, outliers.far.sum(axis=0).tolist(), strict=True)),
            "iqr": dict(zip(NAMES, outliers.outside.sum(axis=0).tolist(), strict=True)),
            "isolated": int(outliers.isolated.sum()),
            "worst": [
                {"key": str(table["key"].iloc[row]), "score": float(outliers.scores[row]), "reason": outliers.reason(int(row), NAMES)}
                for row in worst
            ],
        },
        "near_duplicates": {
            "groups": len(duplicates),
            "images": int(sizes[duplicates].sum()),
            "largest": int(sizes.max()),
            "label_noise_groups": noisy,
        },
        "suspected_label_noise": noise,
        "personal_data": _personal(measured.personal),
    }


def _counts(column: "pd.Series[Any]") -> dict[str, int]:
    """{value: images}, by name."""
    return {str(value): int(count) for value, count in column.value_counts().sort_index().items()}


def _features(values: NDArray[np.float64]) -> dict[str, dict[str, Any]]:
    found = {}
    for i, name in enumerate(NAMES):
        column = values[:, i]
        points = np.quantile(column, [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0])
        counts, edges = np.histogram(column, bins=20)
        found[name] = {
            "mean": round(float(column.mean()), 6),
            "std": round(float(column.std()), 6),
            **{key: round(float(v), 6) for key, v in zip(("min", "p5", "p25", "median", "p75", "p95", "max"), points, strict=True)},
            "histogram": {"counts": counts.tolist(), "edges": [round(float(edge), 6) for edge in edges]},
        }
    return found


def _attribute(column: "pd.Series[Any]") -> dict[str, Any]:
    filled = column[column.str.strip() != ""]
    counts = filled.value_counts()
    top = sorted(((str(value), int(count)) for value, count in counts.items()), key=lambda item: (-item[1], item[0]))[:_TOP_VALUES]
    return {"missing": int(len(column) - len(filled)), "distinct": len(counts), "most_frequent": [list(item) for item in top]}


def _conversions(table: "pd.DataFrame") -> dict[str, int]:
    """{note: images}; a manifest's notes are a list as JSON text."""
    if "notes" not in table:
        return {}
    counts: Counter[str] = Counter()
    for text, count in _counts(table["notes"]).items():
        counts.update(dict.fromkeys(json.loads(text), count))
    return dict(sorted(counts.items()))


def _label_noise(table: "pd.DataFrame", groups: NDArray[np.int64], duplicates: NDArray[np.intp]) -> tuple[list[dict[str, Any]], int]:
    """Groups of near duplicates with different labels, the first `LISTED` of them, and how many there are.

    `rows` names two of a group, differently labelled.
    """
    rows = np.flatnonzero(np.isin(groups, duplicates))
    members = table.iloc[rows].assign(group=groups[rows], row=rows)
    labels = members.groupby("group")["label"].nunique()
    noisy = labels[labels > 1].index
    found = []
    for _, part in members[members["group"].isin(noisy[:LISTED])].groupby("group", sort=True):
        first = part.iloc[0]
        other = part[part["label"] != first["label"]].iloc[0]
        found.append(
            {
                "group": int(part["group"].iloc[0]),
                "rows": [int(first["row"]), int(other["row"])],
                "keys": part["key"].tolist()[:_A_GROUP],
                "labels": part["label"].tolist()[:_A_GROUP],
                "images": len(part),
            }
        )
    return found, len(noisy)


def _personal(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All days' reports together; the recall is that of the newest which has one."""
    columns: dict[str, Counter[str]] = defaultdict(Counter)
    faces: Counter[str] = Counter()
    recall: list[dict[str, Any]] = []
    for day in sorted(reports):
        report = reports[day]
        for name, column in report["text"]["columns"].items():
            columns[name].update({"texts": column["texts"], **{f"found: {kind}": n for kind, n in column["found"].items()}})
        faces.update({key: report["faces"][key] for key in ("images", "searched", "with_faces", "faces")})
        recall = recall_rows(report) or recall
    unsearched = sorted({name for report in reports.values() for name in report["text"]["not_searched"]})
    return {
        "columns": {name: dict(sorted(counts.items())) for name, counts in sorted(columns.items())},
        "not_searched": unsearched,
        "faces": dict(faces),
        "recall": recall,
    }
