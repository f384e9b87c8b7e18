"""Checks of the ingest assets: over what was published, so each can be run alone."""

import math
from datetime import date
from typing import Any

import numpy as np

from pipeline_project.imaging import FEATURE_NAMES
from pipeline_project.ingest.inventory_checks import inventory_outcomes
from pipeline_project.stage import CheckOutcome, StageContext, Table
from pipeline_project.storage import Artifact
from pipeline_project.tables import parquet_to_frame

_PAST_DAYS = 7
_CHI_SQUARED_9_99 = 21.67  # the 99% quantile


def check_raw_images(context: StageContext, day: date) -> list[CheckOutcome]:
    """file_format, labels_schema and missing_values of a day's inventory."""
    listing = context.artifacts.latest("raw_images", day.isoformat()).json("inventory.json")
    return inventory_outcomes(listing, context.settings)


def check_manifest(context: StageContext, day: date) -> list[CheckOutcome]:
    """schema, reject_rate, label_domain, duplicates, personal_data and day_drift of a day's manifest."""
    manifest = context.artifacts.latest("validated_manifest", day.isoformat())
    frame = parquet_to_frame(manifest.read("manifest.parquet"))
    rejects = parquet_to_frame(manifest.read("rejects.parquet"))
    verdict = manifest.json("verdict.json")
    limit = context.settings.ingest.max_reject_rate
    broken = []
    if not frame["image_id"].is_unique:
        broken.append("an image_id occurs twice")
    if len(frame) and (frame[["width", "height", "size"]].min().min() <= 0 or frame.isna().any().any()):
        broken.append("a value is missing or not positive")
    outside = sorted(set(frame["label"]) - set(context.settings.data.classes))
    refused = int((rejects["code"] == "outside_domain").sum())
    copies = rejects[rejects["code"].isin(["duplicate", "conflicting_copy"])]
    personal = manifest.json("personal_data.json")
    return [
        CheckOutcome("schema", not broken, "; ".join(broken) or f"{len(frame)} rows, unique and complete.", {"rows": len(frame)}),
        CheckOutcome(
            "reject_rate",
            verdict["reject_rate"] <= limit,
            _reject_words(verdict, rejects, limit),
            {"reject_rate": verdict["reject_rate"], "reasons": {str(k): int(v) for k, v in rejects["code"].value_counts().items()}},
        ),
        CheckOutcome(
            "label_domain",
            not outside and not refused,
            f"{refused} images were refused for a label outside data.classes{_first_reject(rejects, 'outside_domain')}.",
            {"refused": refused, "outside": outside},
        ),
        CheckOutcome(
            "duplicates",
            copies.empty,
            f"{len(copies)} exact copies inside the day; one of each is kept, none where their labels differ"
            f"{_first_reject(rejects, 'conflicting_copy') or _first_reject(rejects, 'duplicate')}.",
            {"copies": len(copies)},
        ),
        CheckOutcome(
            "personal_data",
            not personal,
            f"{sum(personal.values())} pieces of personal data found in {', '.join(context.settings.data.text_columns)} and masked.",
            {"found": personal},
        ),
        _day_drift(context, manifest, day),
    ]


def _reject_words(verdict: dict[str, Any], rejects: Any, limit: float) -> str:
    """How many, for which reasons, the first of them, and what to do where there are too many."""
    if not verdict["objects"]:
        return f"no images arrived on {verdict['day']}; the day is left out of training."
    words = f"{verdict['rejected']} of {verdict['objects']} images rejected"
    counted = rejects[rejects["code"] != "duplicate"]
    if len(counted):
        reasons = ", ".join(f"{count} {code}" for code, count in counted["code"].value_counts().items())
        words += f" ({reasons}; the first is {counted['key'].iloc[0]}: {counted['detail'].iloc[0]})"
    words += f"; the limit is {limit:.1%}."
    if verdict["reject_rate"] > limit:
        words += " Replace or remove them in the source, then materialize the day again; their bytes are kept in quarantine."
    return words


def _first_reject(rejects: Any, code: str) -> str:
    found = rejects[rejects["code"] == code]
    return f" (first {found['key'].iloc[0]}: {found['detail'].iloc[0]})" if len(found) else ""


def _day_drift(context: StageContext, manifest: Artifact, day: date) -> CheckOutcome:
    """Size, shape and label mix of the day against the days before it, by the population stability index."""
    from pipeline_project.statistics.drift import population_stability_index

    past = [d for d in context.artifacts.partitions("validated_manifest") if d < day.isoformat()][-_PAST_DAYS:]
    frames = [parquet_to_frame(context.artifacts.latest("validated_manifest", d).read("manifest.parquet")) for d in past]
    frames = [frame for frame in frames if len(frame)]
    today = parquet_to_frame(manifest.read("manifest.parquet"))
    if not frames or len(today) < 50:
        return CheckOutcome("day_drift", True, "Too little to compare: no earlier day, or fewer than 50 images.", {"compared_days": past})
    import pandas as pd

    before = pd.concat(frames)
    classes = context.settings.data.classes
    columns = {
        "size": (before["size"].to_numpy(float), today["size"].to_numpy(float)),
        "aspect": ((before["width"] / before["height"]).to_numpy(), (today["width"] / today["height"]).to_numpy()),
        "label": (before["label"].map(classes.index).to_numpy(float), today["label"].map(classes.index).to_numpy(float)),
    }
    scores = {name: round(float(population_stability_index(old, new)), 4) for name, (old, new) in columns.items()}
    # Where nothing moves, PSI over 10 bins times NM/(N+M) follows chi-squared with 9 degrees of freedom: small days vary by chance alone.
    noise = _CHI_SQUARED_9_99 * (1 / len(before) + 1 / len(today))
    limit = max(context.settings.ingest.max_day_drift, noise)
    moved = [name for name, score in scores.items() if score > limit]
    detail = f"{', '.join(moved)} moved more than {limit:.3g} (PSI)" if moved else f"no column moved more than {limit:g} (PSI)"
    return CheckOutcome("day_drift", not moved, f"{detail} against {', '.join(past)}.", {"psi": scores})


def check_features(context: StageContext, day: date) -> list[CheckOutcome]:
    """ranges: every feature finite and inside what its definition allows."""
    frame = parquet_to_frame(context.artifacts.latest("image_features", day.isoformat()).read("features.parquet")).astype(
        dict.fromkeys(FEATURE_NAMES, float)
    )
    ingest = context.settings.ingest
    longest = math.log2(max(2, ingest.max_pixels / ingest.min_side**2))  # of all images that ingest accepts
    low = dict.fromkeys(FEATURE_NAMES, 0.0) | {"aspect": -longest}
    high = dict.fromkeys(FEATURE_NAMES, 1.0) | {"entropy": 6.0, "aspect": longest, "sharpness": 4.0}
    bad = [name for name in FEATURE_NAMES if not np.isfinite(frame[name]).all() or not frame[name].between(low[name], high[name]).all()]
    detail = f"all values of {len(frame)} images are in range."
    if bad:
        told = ", ".join(f"{n} ({frame[n].min():.4g} to {frame[n].max():.4g}; allowed {low[n]:.4g} to {high[n]:.4g})" for n in bad)
        detail = f"{day}: out of range: {told}. Materialize image_pack and image_features of the day again; look at its contact sheet."
    rows = [{"feature": name, "min": float(frame[name].min()), "max": float(frame[name].max())} for name in FEATURE_NAMES if len(frame)]
    return [CheckOutcome("ranges", not bad, detail, {"ranges": Table(rows)})]


def check_pack(context: StageContext, day: date) -> list[CheckOutcome]:
    """row_count and content_hash: the pack holds exactly the manifest's images, and its bytes are those published."""
    pack = context.artifacts.latest("image_pack", day.isoformat())
    manifest = context.artifacts.latest("validated_manifest", day.isoformat())
    rows = pack.json("rows.json")
    expected = parquet_to_frame(manifest.read("manifest.parquet"))["image_id"].tolist()
    pixels = np.load(pack.path("pixels.npy"), mmap_mode="r", allow_pickle=False)
    same = rows["image_ids"] == expected and len(pixels) == len(expected) and rows["manifest"] == manifest.digest
    try:
        pack.read("pixels.npy")
        intact, detail = True, f"{pack.digest[:12]} matches its bytes."
    except ValueError as error:
        intact, detail = False, str(error)
    count = f"{len(pixels)} packed images for {len(expected)} manifest rows"
    return [
        CheckOutcome("row_count", same, f"{count}." if same else f"{count}, or another manifest. Materialize image_pack again."),
        CheckOutcome("content_hash", intact, detail),
    ]
