"""dataset_splits: the dataset version, from every good day's manifest and the version before it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pipeline_project.contracts import SPLITS, DatasetVersion, Split, SplitRow
from pipeline_project.dataset.days import GoodDays, good_days
from pipeline_project.dataset.duplicates import hash_values
from pipeline_project.dataset.splits import Images, Parent, assign_splits
from pipeline_project.digests import canonical_json, digest_of
from pipeline_project.ingest.erasure import erased
from pipeline_project.reuse import reusable
from pipeline_project.stage import StageContext, StepResult, Table
from pipeline_project.storage import Artifact
from pipeline_project.tables import frame_to_parquet, parquet_to_frame

if TYPE_CHECKING:
    import pandas as pd

DEPARTED = "departed.parquet"


def _inputs(context: StageContext) -> dict[str, str]:
    """The good days' digests, why other days are left out, and what was erased. The newest version counts, too: see `newest_only`."""
    days, left_out = good_days(context)
    names = ("validated_manifest", "image_pack", "image_features")
    good = {f"{name} {day}": found[name].digest for day, found in days.items() for name in names}
    tombstones = {"erased images": digest_of(sorted(gone))} if (gone := erased(context.artifacts.bytes)) else {}
    return good | tombstones | {f"left out {day}": digest_of(reason) for day, reason in left_out.items()}


@reusable(
    "dataset_splits",
    inputs=_inputs,
    settings=["data.classes", "dataset", "image.size"],
    newest_only=True,
)
def make_dataset_version(context: StageContext) -> StepResult:
    """Split every image of every good day, extending the newest version.

    Payload: splits.parquet (`SplitRow`, sorted by day and pack row), dataset.json (`DatasetVersion`), and where images left,
    departed.parquet (image_id, split): an image that comes back goes to its old split, so that no model is judged on what an earlier
    one learned. When nothing changed, the newest version is published again and keeps its digest. Which days were left out and why
    stands in the artefact's info: a bad day that adds no image makes no new version.

    The same bytes on several days count once, where they came first; labelled differently there, they are left out and listed, since
    neither label can be believed. An image whose label is corrected stays in its split. Erased images are not in it, in any way.

    Raises:
        ValueError: no day is good, or a class has too few images for three splits.
    """
    days, left_out_days = good_days(context)
    if not days:
        reasons = "; ".join(f"{day}: {why}" for day, why in left_out_days.items()) or "no day was materialized"
        raise ValueError(f"No day can be used for training: {reasons}. Materialize validated_manifest and image_pack of a good day first.")
    classes = context.settings.data.classes
    gone = erased(context.artifacts.bytes)
    arrivals = _arrivals(days, classes)
    here = arrivals["image_id"].isin(gone)
    images, disputed = _images(arrivals[~here])
    newest = context.artifacts.find("dataset_splits")
    parent = _parent(newest, gone)
    ratios: dict[Split, float] = {split: getattr(context.settings.dataset, split) for split in SPLITS}
    known = Images(
        images["image_id"].tolist(),
        images["label"].map({name: index for index, name in enumerate(classes)}).tolist(),
        hash_values(images["perceptual_hash"].tolist()),
        images["day"].tolist(),
    )
    assignment = assign_splits(known, ratios, parent, context.settings.dataset.near_duplicate_distance)
    rows = _rows(images.assign(class_index=np.asarray(known.class_index, np.int64)), assignment.splits, assignment.groups)
    version = DatasetVersion(
        days={day: found["validated_manifest"].digest for day, found in days.items()},
        packs={day: found["image_pack"].digest for day, found in days.items()},
        features={day: found["image_features"].digest for day, found in days.items()},
        left_out_images=dict(sorted({**disputed, **assignment.left_out}.items())),
        parent=newest.digest if newest else None,
        classes=classes,
        counts=_counts(rows, classes),
        largest_group=int(rows["group"].value_counts().max()) if len(rows) else 0,
    )
    _require_enough(version, left_out_days)
    payload = {"splits.parquet": frame_to_parquet(rows)}
    left = {i: s for i, s in (*parent.departed.items(), *parent.splits.items()) if i not in assignment.splits}
    if left:
        payload[DEPARTED] = _as_table(left)
    if newest is not None and _same(newest, version, payload):
        version = DatasetVersion.model_validate(newest.json("dataset.json"))
    artifact = context.artifacts.publish(
        "dataset_splits",
        {**payload, "dataset.json": canonical_json(version.model_dump(mode="json"))},
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
            "left_out": Table([{"image": image, "reason": why} for image, why in list(version.left_out_images.items())[:50]]),
            "labelled_differently_on_other_days": len(disputed),
            "erased_images": int(arrivals.loc[here, "image_id"].nunique()),
            "departed_images": len(left),
            "near_duplicate_groups": int((rows["group"].value_counts() > 1).sum()),
            "parent": version.parent or "none",
        },
    )


def _arrivals(days: GoodDays, classes: list[str]) -> "pd.DataFrame":
    """Every accepted image of every day: image_id, label, perceptual_hash, day, pack_row; by day and row."""
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
    return pd.concat(frames, ignore_index=True)


def _images(arrivals: "pd.DataFrame") -> "tuple[pd.DataFrame, dict[str, str]]":
    """Each image once, as it arrived first; and those left out because their days disagree on the label, with the reason."""
    again = arrivals[arrivals.duplicated("image_id", keep=False)]
    disagreeing = again[again.groupby("image_id")["label"].transform("nunique") > 1]
    disputed = {}
    for image_id, rows in disagreeing.groupby("image_id"):
        told = ", ".join(f"{label} on {day}" for label, day in zip(rows["label"], rows["day"], strict=True))
        disputed[str(image_id)] = f"the same bytes are labelled {told}"
    images = arrivals.drop_duplicates("image_id")
    return images[~images["image_id"].isin(disputed.keys())], disputed


def _parent(newest: Artifact | None, gone: frozenset[str]) -> Parent:
    """What the newest version decided, erased images forgotten."""
    if newest is None:
        return Parent()
    splits = _read_splits(newest, "splits.parquet", gone)
    return Parent(splits, _read_splits(newest, DEPARTED, gone) if DEPARTED in newest.files else {})


def _read_splits(artifact: Artifact, file: str, gone: frozenset[str]) -> dict[str, Split]:
    table = parquet_to_frame(artifact.read(file))
    return {image: split for image, split in zip(table["image_id"], table["split"], strict=True) if image not in gone}


def _as_table(splits: Mapping[str, Split]) -> bytes:
    import pandas as pd

    return frame_to_parquet(pd.DataFrame(sorted(splits.items()), columns=["image_id", "split"]))


def _rows(images: "pd.DataFrame", splits: Mapping[str, Split], groups: Mapping[str, str]) -> "pd.DataFrame":
    """The columns of `SplitRow`, for the images that have a split."""
    placed = images.assign(split=images["image_id"].map(splits), group=images["image_id"].map(groups)).dropna(subset=["split"])
    return placed.sort_values(["day", "pack_row"], ignore_index=True)[list(SplitRow.model_fields)]


def _counts(rows: "pd.DataFrame", classes: list[str]) -> dict[Split, dict[str, int]]:
    tally = rows.groupby(["split", "class_index"]).size().to_dict()
    return {split: {name: int(tally.get((split, index), 0)) for index, name in enumerate(classes)} for split in SPLITS}


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


def _same(newest: Artifact, version: DatasetVersion, payload: Mapping[str, bytes]) -> bool:
    """Whether the newest version says all of this already."""
    before = DatasetVersion.model_validate(newest.json("dataset.json"))
    if newest.files.keys() != {*payload, "dataset.json"} or any(newest.read(file) != data for file, data in payload.items()):
        return False
    return before.model_copy(update={"parent": version.parent}) == version
