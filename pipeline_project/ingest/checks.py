"""Checks of the ingest assets: over what was published, so each can be run alone."""

from datetime import date

import numpy as np

from pipeline_project.imaging import FEATURE_NAMES
from pipeline_project.settings import Settings
from pipeline_project.stage import CheckOutcome, StageContext, Table
from pipeline_project.storage import Artifact
from pipeline_project.tables import parquet_to_frame

_PAST_DAYS = 7
_CHI_SQUARED_9_99 = 21.67  # the 99% quantile


def check_raw_images(context: StageContext, day: date) -> list[CheckOutcome]:
    """file_format, labels_schema and missing_values of a day's inventory."""
    listing = context.artifacts.latest("raw_images", day.isoformat()).json("inventory.json")
    settings = context.settings
    return [_file_format(listing, settings), _labels_schema(listing, settings), _missing_values(listing, settings)]


def _file_format(listing: dict, settings: Settings) -> CheckOutcome:  # type: ignore[type-arg]
    announced = listing["announced_formats"]
    strange = sorted(key for key, name in announced.items() if name not in settings.ingest.formats)
    rate, limit = len(strange) / max(1, len(announced)), settings.ingest.max_reject_rate
    detail = f"{len(strange)} of {len(announced)} objects are not announced as {', '.join(settings.ingest.formats)} by their first bytes"
    if rate > limit:
        detail += f"; at most {limit:.1%} may be. Remove them from the source, or extend ingest.formats"
    return CheckOutcome("file_format", rate <= limit, f"{detail}.", {"rate": round(rate, 4), "examples": strange[:20]})


def _labels_schema(listing: dict, settings: Settings) -> CheckOutcome:  # type: ignore[type-arg]
    problems = [f"{p['file']}: {p['detail']}" for p in listing["problems"]]
    if listing["objects"] and not listing["label_files"]:
        problems.append(f"no {settings.data.labels_file} beside the images of {listing['day']}. Add one with columns image,label.")
    outside = listing["outside_domain"]
    limit = settings.ingest.max_reject_rate * max(1, len(listing["labels"]))
    if sum(outside.values()) > limit:
        names = ", ".join(f"{label!r} ({count})" for label, count in list(outside.items())[:10])
        problems.append(f"labels outside data.classes: {names}. Correct the labels, or add the classes.")
    detail = " ".join(problems) or f"{len(listing['labels'])} rows of {len(listing['label_files'])} label files fit the schema."
    return CheckOutcome("labels_schema", not problems, detail, {"outside_domain": outside, "conflicting": listing["conflicting"][:20]})


def _missing_values(listing: dict, settings: Settings) -> CheckOutcome:  # type: ignore[type-arg]
    objects, unlabelled, orphans = listing["objects"], listing["unlabelled"], listing["without_image"]
    rate = max(len(unlabelled) / max(1, len(objects)), len(orphans) / max(1, len(listing["labels"])))
    limit = settings.ingest.max_missing_label_rate
    detail = f"{len(unlabelled)} of {len(objects)} images lack a label; {len(orphans)} label rows name no image"
    if rate > limit:
        detail += f"; at most {limit:.1%} may. Complete {settings.data.labels_file}, then materialize the day again"
    return CheckOutcome(
        "missing_values",
        rate <= limit,
        f"{detail}.",
        {"unlabelled": unlabelled[:20], "without_image": orphans[:20], "rate": round(rate, 4)},
    )


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
            f"{verdict['rejected']} of {verdict['objects']} images rejected; the limit is {limit:.1%}.",
            {"reject_rate": verdict["reject_rate"], "reasons": {str(k): int(v) for k, v in rejects["code"].value_counts().items()}},
        ),
        CheckOutcome(
            "label_domain",
            not outside and not refused,
            f"{refused} images were refused for a label outside data.classes.",
            {"refused": refused, "outside": outside},
        ),
        CheckOutcome(
            "duplicates", copies.empty, f"{len(copies)} exact copies inside the day; one of each is kept.", {"copies": len(copies)}
        ),
        CheckOutcome(
            "personal_data",
            not personal,
            f"{sum(personal.values())} pieces of personal data found in {', '.join(context.settings.data.text_columns)} and masked.",
            {"found": personal},
        ),
        _day_drift(context, manifest, day),
    ]


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
    low = dict.fromkeys(FEATURE_NAMES, 0.0) | {"aspect": -8.0}
    high = dict.fromkeys(FEATURE_NAMES, 1.0) | {"entropy": 6.0, "aspect": 8.0, "sharpness": 4.0}
    bad = [name for name in FEATURE_NAMES if not np.isfinite(frame[name]).all() or not frame[name].between(low[name], high[name]).all()]
    detail = f"out of range: {', '.join(bad)}. The day's pack is damaged; materialize it again." if bad else "all values are in range."
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
