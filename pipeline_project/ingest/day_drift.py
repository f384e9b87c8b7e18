"""Has a day moved against the days before it: sizes, shapes, labels (check day_drift) and features (check feature_drift).

A column has moved where both hold: its population stability index is above ingest.max_day_drift, so that the move matters; and its
p-value is below `ALARM_RATE` divided by the columns of both checks together (Bonferroni), so that it is not chance. Where a day's
images are drawn as those before, at most `ALARM_RATE` of the days raise any alarm, whatever the sizes and however the columns hang
together. Days that are uploaded in one go, or by category, do differ: that is found, too, as it should be.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline_project.imaging import FEATURE_NAMES
from pipeline_project.stage import CheckOutcome, StageContext, Table
from pipeline_project.statistics.stability import DRAWS, stability, stability_of_counts
from pipeline_project.storage import Artifact
from pipeline_project.tables import parquet_to_table

if TYPE_CHECKING:
    import pandas as pd

ALARM_RATE = 0.01
PAST_DAYS = 7
FEWEST = 50
MANIFEST_COLUMNS = ("size", "aspect", "label")
COLUMNS = len(MANIFEST_COLUMNS) + len(FEATURE_NAMES)
_SEED = 20_261_101


@dataclass(frozen=True)
class ColumnDrift:
    """How far one column moved, the p-value of that, and whether it counts as moved."""

    column: str
    psi: float
    p_value: float
    moved: bool


def compare_columns(
    before: Mapping[str, NDArray[Any]],
    today: Mapping[str, NDArray[Any]],
    *,
    max_psi: float,
    alarm_rate: float = ALARM_RATE,
    draws: int = DRAWS,
) -> list[ColumnDrift]:
    """Compare each column of a day with that of the days before.

    Args:
        before: {name: (N,) numbers, or texts where the values are categories}.
        today: the same columns, (M,).
        max_psi: a smaller move is none, however sure.
        alarm_rate: the chance of any alarm over all `COLUMNS` where nothing has moved; these columns take their share of it.
        draws: simulated divisions behind each p-value; fewer than `COLUMNS / alarm_rate` can never alarm.
    """
    found = []
    for number, name in enumerate(before):
        old, new = np.asarray(before[name]), np.asarray(today[name])
        if old.dtype.kind in "biuf":
            test = stability(old, new, seed=_SEED + number, draws=draws)
        else:
            values = np.unique(np.concatenate([old.astype(str), new.astype(str)]))
            counts = [np.bincount(np.searchsorted(values, side.astype(str)), minlength=len(values)) for side in (old, new)]
            test = stability_of_counts(*counts, seed=_SEED + number, draws=draws)
        moved = test.psi > max_psi and test.p_value <= alarm_rate / COLUMNS
        found.append(ColumnDrift(name, round(test.psi, 4), round(test.p_value, 6), moved))
    return found


def check_day_drift(context: StageContext, day: date) -> CheckOutcome:
    """The check day_drift of validated_manifest: bytes, aspect and label of the day's accepted images against the last seven days."""

    def columns(frame: "pd.DataFrame") -> dict[str, NDArray[Any]]:
        aspect = np.log2(frame["width"].to_numpy(np.float64) / frame["height"].to_numpy(np.float64))
        return {"size": frame["size"].to_numpy(np.float64), "aspect": aspect, "label": frame["label"].to_numpy(str)}

    def read(manifest: Artifact) -> "pd.DataFrame":
        frame: pd.DataFrame = parquet_to_table(manifest.read("manifest.parquet"), ["size", "width", "height", "label"]).to_pandas()
        return frame

    today = read(context.artifacts.latest("validated_manifest", day.isoformat()))
    past, frames = _past(context, "validated_manifest", read, day)
    return _outcome(context, "day_drift", past, [columns(frame) for frame in frames], columns(today))


def check_feature_drift(context: StageContext, day: date) -> CheckOutcome:
    """The check feature_drift of image_features: every measurement of the day's images against the last seven days."""

    def columns(frame: "pd.DataFrame") -> dict[str, NDArray[Any]]:
        return {name: frame[name].to_numpy(np.float64) for name in FEATURE_NAMES}

    def read(features: Artifact) -> "pd.DataFrame":
        frame: pd.DataFrame = parquet_to_table(features.read("features.parquet"), list(FEATURE_NAMES)).to_pandas()
        return frame

    today = read(context.artifacts.latest("image_features", day.isoformat()))
    past, frames = _past(context, "image_features", read, day)
    return _outcome(context, "feature_drift", past, [columns(frame) for frame in frames], columns(today))


def _past(
    context: StageContext, asset: str, read: "Callable[[Artifact], pd.DataFrame]", day: date
) -> "tuple[list[str], list[pd.DataFrame]]":
    """The last days before this one that have images, and their tables."""
    days, frames = [], []
    for name in reversed([d for d in context.artifacts.partitions(asset) if d < day.isoformat()]):
        frame = read(context.artifacts.latest(asset, name))
        if len(frame):
            days.append(name)
            frames.append(frame)
        if len(days) == PAST_DAYS:
            break
    return days[::-1], frames[::-1]


def _outcome(
    context: StageContext, name: str, past: Sequence[str], frames: Sequence[Mapping[str, NDArray[Any]]], today: Mapping[str, NDArray[Any]]
) -> CheckOutcome:
    size = len(next(iter(today.values())))
    before = {column: np.concatenate([frame[column] for frame in frames]) for column in today} if frames else {}
    known = len(next(iter(before.values()))) if before else 0
    numbers: dict[str, Any] = {"images": size, "compared_images": known, "compared_days": list(past), "false_alarm_rate": ALARM_RATE}
    if min(size, known) < FEWEST:
        return CheckOutcome(
            name,
            True,
            f"Too little to compare: {size} images against {known} of the days before; {FEWEST} are needed on each side.",
            numbers,
        )
    limit = context.settings.ingest.max_day_drift
    found = compare_columns(before, today, max_psi=limit)
    moved = [column for column in found if column.moved]
    told = ", ".join(f"{c.column} (PSI {c.psi:.3g}, p {c.p_value:.2g})" for c in sorted(moved, key=lambda c: -c.psi))
    against = f"against {past[0]} to {past[-1]}" if len(past) > 1 else f"against {past[0]}"
    if moved:
        detail = f"{told} moved more than {limit:g} {against}. Look at the day's contact sheet: another camera, supplier or season?"
    else:
        detail = f"no column moved more than {limit:g} (PSI) {against}, beyond chance."
    detail += f" Of days like those before, at most {ALARM_RATE:.0%} raise an alarm here or in the other drift check."
    rows = [{"column": c.column, "psi": c.psi, "p_value": c.p_value, "moved": c.moved} for c in found]
    return CheckOutcome(name, not moved, detail, {**numbers, "psi": {c.column: c.psi for c in found}, "columns": Table(rows)})
