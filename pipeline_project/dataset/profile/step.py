"""data_profile over all measured days: numbers in profile.json, pictures, and one page."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline_project.dataset.duplicates import near_duplicate_groups
from pipeline_project.dataset.profile import page, pictures
from pipeline_project.dataset.profile.findings import Finding, find, verdict
from pipeline_project.dataset.profile.gathering import NAMES, Measured, gather
from pipeline_project.dataset.profile.numbers import describe
from pipeline_project.dataset.profile.outliers import Outliers, find_outliers
from pipeline_project.dataset.profile.sections import SHOWN_OUTLIERS, SHOWN_PAIRS, sections
from pipeline_project.digests import canonical_json
from pipeline_project.plots import contact_sheet
from pipeline_project.reuse import reusable
from pipeline_project.stage import Picture, StageContext, StepResult, Table

_PAGE = "profile.html"
_SHEET_COLUMNS, _SHEET_ROWS = 10, 20
_SEED = 0


def _inputs(context: StageContext) -> dict[str, str]:
    """The measured days' digests."""
    names = ("validated_manifest", "image_pack", "image_features")
    days = context.artifacts.partitions("image_features")
    return {f"{name} {day}": context.artifacts.latest(name, day).digest for day in days for name in names}


@reusable(
    "data_profile",
    inputs=_inputs,
    settings=["dataset.near_duplicate_distance", "data.classes", "ingest.max_reject_rate", "profile"],
)
def profile_data(context: StageContext) -> StepResult:
    """Distributions, missing values, outliers, near duplicates, suspected label noise and contact sheets over all days.

    Payload: profile.json. Sidecars: profile.html, one page that loads nothing, and its pictures. Outliers: see `find_outliers`. Label
    noise is suspected where near duplicates carry different labels.

    Raises:
        ValueError: no day has a measured image.
    """
    measured = gather(context)
    outliers = find_outliers(measured.values, seed=_SEED)
    groups = near_duplicate_groups(measured.table["perceptual_hash"].tolist(), context.settings.dataset.near_duplicate_distance)
    profile = describe(measured, outliers, groups)
    findings = find(profile, measured.personal, context.settings)
    shown = _pictures(measured, outliers, profile)
    line = verdict(profile, findings)
    document = page.render(line, findings, sections(measured, outliers, profile, shown))
    artifact = context.artifacts.publish(
        "data_profile",
        {"profile.json": canonical_json(profile)},
        sidecars={_PAGE: document, **{f"{name}.{p.media_type.split('/')[1]}": p.data for name, p in shown.items()}},
    )
    context.log(f"data_profile: {line} {artifact.uri}sidecars/{_PAGE}")
    return StepResult(artifact, {**_metadata(profile, findings, line), "page": f"{artifact.uri}sidecars/{_PAGE}", **shown})


def _pictures(measured: Measured, outliers: Outliers, profile: Mapping[str, Any]) -> dict[str, Picture]:
    shown = {
        "class_balance": pictures.stacked_by_day(profile["by_day_and_label"], title="Accepted images by day and class"),
        "contact_sheet": _contact_sheet(measured),
        "distributions": pictures.distributions(measured.values),
        "worst_outliers": _outlier_sheet(measured, outliers),
    }
    if profile["rejected_by_day"]:
        shown["rejected_by_day"] = pictures.stacked_by_day(profile["rejected_by_day"], title="Rejected images by day and reason")
    pairs = profile["suspected_label_noise"][:SHOWN_PAIRS]
    if pairs:
        flat = measured.pixels([row for pair in pairs for row in pair["rows"]])
        labels = measured.table["label"]
        captions = ["|".join(str(labels.iloc[row])[:7] for row in pair["rows"]) for pair in pairs]
        sheet = [(caption, flat[2 * i], flat[2 * i + 1]) for i, caption in enumerate(captions)]
        shown["label_noise"] = pictures.pairs_sheet(sheet)
    return shown


def _contact_sheet(measured: Measured) -> Picture:
    """Ten images of each of the twenty largest classes, drawn with a seed over all days."""
    labels = measured.table["label"].to_numpy(str)
    names, counts = np.unique(labels, return_counts=True)
    chosen = sorted(names[np.argsort(-counts, kind="stable")][:_SHEET_ROWS])
    draw = np.random.default_rng(_SEED)
    rows = {}
    for name in chosen:
        members = np.flatnonzero(labels == name)
        rows[str(name)] = np.sort(draw.choice(members, min(_SHEET_COLUMNS, len(members)), replace=False)).tolist()
    return contact_sheet({name: measured.pixels(members) for name, members in rows.items()})


def _outlier_sheet(measured: Measured, outliers: Outliers) -> Picture:
    """The most isolated images, in rows by the measurement that sets them apart."""
    rows = [int(row) for row in outliers.worst(SHOWN_OUTLIERS)]
    by_reason: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        by_reason[outliers.reason(row, NAMES).split(" ")[0]].append(row)
    return contact_sheet({name: measured.pixels(members) for name, members in by_reason.items()})


def _metadata(profile: Mapping[str, Any], findings: list[Finding], line: str) -> dict[str, Any]:
    noise = [
        {"keys": ", ".join(group["keys"]), "labels": ", ".join(group["labels"]), "images": group["images"]}
        for group in profile["suspected_label_noise"][:30]
    ]
    features = [{"feature": n, **{k: v for k, v in f.items() if k != "histogram"}} for n, f in profile["features"].items()]
    outliers = [
        {"feature": n, "z_score": profile["outliers"]["z_score"][n], "iqr": profile["outliers"]["iqr"][n]} for n in profile["features"]
    ]
    missing = [{"attribute": n, "missing": c["missing"], "distinct": c["distinct"]} for n, c in profile["attributes"].items()]
    return {
        "verdict": line,
        "look_at": Table([{"what": finding.text} for finding in findings]),
        "images": profile["images"],
        "features": Table(features),
        "outliers": Table(outliers),
        "missing_attributes": Table(missing),
        "rejected": profile["rejected"],
        "conversions": profile["conversions"],
        "near_duplicates": profile["near_duplicates"],
        "suspected_label_noise": Table(noise),
        "personal_data": {"faces": profile["personal_data"]["faces"], "columns": profile["personal_data"]["columns"]},
    }
