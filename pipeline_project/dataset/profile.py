"""data_profile: what a person should see of the data before training on it (R46)."""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline_project.dataset.duplicates import near_duplicate_groups
from pipeline_project.digests import canonical_json
from pipeline_project.imaging import FEATURE_NAMES
from pipeline_project.plots import contact_sheet, plot
from pipeline_project.reuse import reusable
from pipeline_project.stage import Picture, StageContext, StepResult, Table
from pipeline_project.tables import expand_json, parquet_to_frame

if TYPE_CHECKING:
    import pandas as pd

_SHEET_COLUMNS = 10
_OUTLIER_MADS = 6.0


def _inputs(context: StageContext) -> dict[str, str]:
    """The measured days' digests."""
    names = ("validated_manifest", "image_pack", "image_features")
    days = context.artifacts.partitions("image_features")
    return {f"{name} {day}": context.artifacts.latest(name, day).digest for day in days for name in names}


@reusable("data_profile", inputs=_inputs, settings=["dataset.near_duplicate_distance"])
def profile_data(context: StageContext) -> StepResult:
    """Distributions, missing values, outliers, near duplicates, suspected label noise and contact sheets over all days.

    Payload: profile.json. Outliers lie more than 6 median absolute deviations from the median (scaled by 1.4826 to match the standard
    deviation of a normal distribution). Label noise is suspected where near duplicates carry different labels.
    """
    import pandas as pd

    facts, measured = [], []
    samples: dict[str, list[NDArray[np.uint8]]] = defaultdict(list)
    rejected: dict[str, int] = defaultdict(int)
    for day in context.artifacts.partitions("image_features"):
        manifest, pack = context.artifacts.latest("validated_manifest", day), context.artifacts.latest("image_pack", day)
        features = context.artifacts.latest("image_features", day)
        frame = parquet_to_frame(manifest.read("manifest.parquet"))
        for code in parquet_to_frame(manifest.read("rejects.parquet"))["code"]:
            rejected[str(code)] += 1
        if frame.empty or pack.json("rows.json")["image_ids"] != frame["image_id"].tolist():
            continue
        facts.append(frame.assign(day=day))
        measured.append(parquet_to_frame(features.read("features.parquet")))
        pixels = np.load(pack.path("pixels.npy"), mmap_mode="r", allow_pickle=False)
        for label in frame["label"].unique():
            wanted = np.flatnonzero((frame["label"] == label).to_numpy())[: _SHEET_COLUMNS - len(samples[label])]
            samples[label] += [np.asarray(pixels[i]) for i in wanted]
    if not facts:
        raise ValueError("There is no measured image yet. Materialize image_features of at least one day first.")
    table, features_table = pd.concat(facts, ignore_index=True), pd.concat(measured, ignore_index=True)
    attributes = expand_json(table["attributes"])
    noise = _suspected_noise(table, context.settings.dataset.near_duplicate_distance)
    values = features_table[list(FEATURE_NAMES)].to_numpy()
    median = np.median(values, axis=0)
    spread = 1.4826 * np.median(np.abs(values - median), axis=0) + 1e-9
    outlying = np.abs(values - median) / spread > _OUTLIER_MADS
    profile: dict[str, Any] = {
        "version": 1,
        "images": len(table),
        "by_day_and_label": {str(day): dict(sorted(g["label"].value_counts().items())) for day, g in table.groupby("day")},
        "rejected": dict(sorted(rejected.items())),
        "features": {name: {str(k): round(float(v), 6) for k, v in features_table[name].describe().items()} for name in FEATURE_NAMES},
        "outliers": {name: table["key"][outlying[:, i]].tolist()[:50] for i, name in enumerate(FEATURE_NAMES)},
        "missing_attributes": {name: int((attributes[name] == "").sum()) for name in attributes},
        "suspected_label_noise": noise,
    }
    artifact = context.artifacts.publish("data_profile", {"profile.json": canonical_json(profile)})
    return StepResult(
        artifact,
        {
            "images": len(table),
            "class_balance": _balance(table),
            "contact_sheet": contact_sheet(dict(sorted(samples.items()))),
            "features": Table([{"feature": name, **profile["features"][name]} for name in FEATURE_NAMES]),
            "outliers": Table([{"feature": name, "images": int(outlying[:, i].sum())} for i, name in enumerate(FEATURE_NAMES)]),
            "missing_attributes": profile["missing_attributes"],
            "rejected": dict(rejected),
            "suspected_label_noise": Table(noise[:30]),
        },
    )


def _suspected_noise(table: "pd.DataFrame", max_distance: int) -> list[dict[str, str]]:
    groups = near_duplicate_groups(table["perceptual_hash"].tolist(), max_distance)
    found = []
    for group in np.flatnonzero(np.bincount(groups) > 1):
        members = table[groups == group]
        if members["label"].nunique() > 1:
            found.append({"keys": ", ".join(members["key"]), "labels": ", ".join(members["label"])})
    return found


def _balance(table: "pd.DataFrame") -> Picture:
    counts = table.groupby(["day", "label"]).size().unstack(fill_value=0)

    def draw(axes: object) -> None:
        counts.plot.bar(stacked=True, ax=axes, title="Images by day and label", ylabel="images")

    return plot(draw, width=7)
