"""dataset_splits: the dataset version, from every good day's manifest and the version before it."""

from collections import Counter, defaultdict
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from pipeline_project.contracts import SPLITS, DatasetVersion, Split, SplitRow
from pipeline_project.dataset.duplicates import near_duplicate_groups
from pipeline_project.dataset.splits import SplitItem, assign_splits
from pipeline_project.digests import canonical_json, digest_of
from pipeline_project.ingest.inventory_checks import inventory_outcomes
from pipeline_project.reuse import reusable
from pipeline_project.stage import StageContext, StepResult, Table
from pipeline_project.storage import Artifact
from pipeline_project.tables import parquet_to_frame, records_to_parquet

if TYPE_CHECKING:
    import pandas as pd


def _inputs(context: StageContext) -> dict[str, str]:
    """The good days' digests, and why other days are left out. The newest version counts, too: see `newest_only`."""
    days, left_out = _good_days(context)
    names = ("validated_manifest", "image_pack", "image_features")
    good = {f"{name} {day}": found[name].digest for day, found in days.items() for name in names}
    return good | {f"left out {day}": digest_of(reason) for day, reason in left_out.items()}


@reusable(
    "dataset_splits",
    inputs=_inputs,
    settings=["data.classes", "dataset", "image.size"],
    newest_only=True,
)
def make_dataset_version(context: StageContext) -> StepResult:
    """Split every image of every good day, extending the newest version.

    Payload: splits.parquet (`SplitRow`, sorted by day and pack row), dataset.json (`DatasetVersion`). When nothing changed, the newest
    version is published again and keeps its digest. Which days were left out and why stands in the artefact's info: a bad day that
    adds no image makes no new version.

    Raises:
        ValueError: no day is good, or a class has too few images for three splits.
    """
    days, left_out_days = _good_days(context)
    if not days:
        reasons = "; ".join(f"{day}: {why}" for day, why in left_out_days.items()) or "no day was materialized"
        raise ValueError(f"No day can be used for training: {reasons}. Materialize validated_manifest and image_pack of a good day first.")
    classes = context.settings.data.classes
    images = _images(days, classes)
    parent = context.artifacts.find("dataset_splits")
    before: dict[str, Split] = {}
    if parent is not None:
        old = parquet_to_frame(parent.read("splits.parquet"))
        before = dict(zip(old["image_id"], old["split"], strict=True))
    groups = near_duplicate_groups(images["perceptual_hash"].tolist(), context.settings.dataset.near_duplicate_distance)
    images["group"] = images["image_id"].to_numpy()[groups]
    items = [
        SplitItem(image_id, class_index, group, day)
        for image_id, class_index, group, day in zip(images["image_id"], images["class_index"], images["group"], images["day"], strict=True)
    ]
    ratios: dict[Split, float] = {split: getattr(context.settings.dataset, split) for split in SPLITS}
    assignment = assign_splits(items, ratios, before)
    rows = [
        SplitRow(
            image_id=record["image_id"],
            day=date.fromisoformat(record["day"]),
            pack_row=int(record["pack_row"]),
            class_index=int(record["class_index"]),
            group=record["group"],
            split=assignment.splits[record["image_id"]],
        )
        for record in images.to_dict("records")
        if record["image_id"] in assignment.splits
    ]
    rows.sort(key=lambda row: (row.day, row.pack_row))
    version = DatasetVersion(
        days={day: found["validated_manifest"].digest for day, found in days.items()},
        packs={day: found["image_pack"].digest for day, found in days.items()},
        features={day: found["image_features"].digest for day, found in days.items()},
        left_out_images=dict(sorted(assignment.left_out.items())),
        parent=parent.digest if parent else None,
        classes=classes,
        counts=_counts(rows, classes),
        largest_group=int(np.bincount(groups).max()),
    )
    _require_enough(version, left_out_days)
    table = records_to_parquet(rows, SplitRow)
    if parent is not None and _same(parent, version, table):
        version = DatasetVersion.model_validate(parent.json("dataset.json"))
    artifact = context.artifacts.publish(
        "dataset_splits",
        {"splits.parquet": table, "dataset.json": canonical_json(version.model_dump(mode="json"))},
        info={"parent": version.parent, "images": len(rows), "left_out_days": left_out_days},
    )
    counts = [{"class": name, **{split: version.counts[split][name] for split in SPLITS}} for name in classes]
    return StepResult(
        artifact,
        {
            "images": len(rows),
            "splits": Table(counts),
            "days": Table([{"day": day, "manifest": digest, "pack": version.packs[day]} for day, digest in version.days.items()]),
            "left_out_days": left_out_days,
            "left_out_images": len(version.left_out_images),
            "near_duplicate_groups": int((np.bincount(groups) > 1).sum()),
            "parent": version.parent or "none",
        },
    )


def _good_days(context: StageContext) -> tuple[dict[str, dict[str, Artifact]], dict[str, str]]:
    """The days that may train with their artefacts, and why the others may not."""
    good, left_out = {}, {}
    for day in sorted({*context.artifacts.partitions("raw_images"), *context.artifacts.partitions("validated_manifest")}):
        found = {name: context.artifacts.find(name, day) for name in ("raw_images", "validated_manifest", "image_pack", "image_features")}
        manifest, pack, features = found["validated_manifest"], found["image_pack"], found["image_features"]
        inventory = found["raw_images"]
        if inventory is None:
            left_out[day] = "raw_images is missing"
        elif manifest is None or manifest.info["inventory"] != inventory.digest:
            left_out[day] = _not_validated(context, inventory, manifest)
        elif not (verdict := manifest.json("verdict.json"))["passed"]:
            left_out[day] = "; ".join(verdict["reasons"])
        elif pack is None or pack.json("rows.json")["manifest"] != manifest.digest:
            left_out[day] = "image_pack is missing or of an older manifest"
        elif pack.json("rows.json")["size"] != context.settings.image.size:
            left_out[day] = "image_pack has another image size"
        elif features is None or features.json("origin.json")["pack"] != pack.digest:
            left_out[day] = "image_features is missing or of an older pack"
        else:
            good[day] = {name: artifact for name, artifact in found.items() if artifact is not None}
    return good, left_out


def _not_validated(context: StageContext, inventory: Artifact, manifest: Artifact | None) -> str:
    """Why the newest inventory of a day has no manifest: what its blocking checks found, if that is the reason."""
    failed = [o for o in inventory_outcomes(inventory.json("inventory.json"), context.settings) if not o.passed]
    unread = {"missing_values"} if any(o.name == "labels_schema" for o in failed) else set()  # where labels cannot be read, none is there
    found = [o.detail.rstrip(".") for o in failed if o.name not in unread]
    return "; ".join(found) or ("validated_manifest was not made" if manifest is None else "raw_images changed after the manifest was made")


def _images(days: dict[str, dict[str, Artifact]], classes: list[str]) -> "pd.DataFrame":
    """All images of the days, the first arrival of identical bytes only, sorted by image id."""
    import pandas as pd

    frames = []
    for day, found in days.items():
        frame = parquet_to_frame(found["validated_manifest"].read("manifest.parquet"))[["image_id", "label", "perceptual_hash"]]
        outside = sorted(set(frame["label"]) - set(classes))
        if outside:
            raise ValueError(
                f"{day}: its images are labelled {', '.join(outside)}, which data.classes no longer names. Materialize raw_images of that "
                "day and what follows it again, or put the class back."
            )
        frames.append(frame.assign(day=day, pack_row=np.arange(len(frame))))
    images = pd.concat(frames, ignore_index=True).sort_values(["day", "pack_row"]).drop_duplicates("image_id")
    images["class_index"] = images["label"].map(classes.index).astype(np.int64)
    return images.sort_values("image_id", ignore_index=True)


def _counts(rows: list[SplitRow], classes: list[str]) -> dict[Split, dict[str, int]]:
    tally: dict[str, Counter[int]] = defaultdict(Counter)
    for row in rows:
        tally[row.split][row.class_index] += 1
    return {split: {name: tally[split][index] for index, name in enumerate(classes)} for split in SPLITS}


def _require_enough(version: DatasetVersion, left_out_days: dict[str, str]) -> None:
    small = {name: sum(version.counts[s][name] for s in SPLITS) for name in version.classes}
    small = {name: count for name, count in small.items() if count < len(SPLITS)}
    if small:
        names = ", ".join(f"{name} ({count})" for name, count in small.items())
        days = f" Days left out: {'; '.join(f'{day}: {why}' for day, why in left_out_days.items())}." if left_out_days else ""
        raise ValueError(
            f"Too few images for three splits: {names}; every class needs at least {len(SPLITS)}. Add images of these classes, "
            f"or take them out of data.classes.{days}"
        )


def _same(parent: Artifact, version: DatasetVersion, table: bytes) -> bool:
    before = DatasetVersion.model_validate(parent.json("dataset.json"))
    return parent.read("splits.parquet") == table and before.model_copy(update={"parent": version.parent}) == version
