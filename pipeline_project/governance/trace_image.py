"""Where an image of a request comes from: the dataset behind the model, a day, the quarantine, or nowhere we know."""

import io
from collections.abc import Mapping
from datetime import date
from typing import Any, Literal

from pipeline_project.contracts import DatasetVersion, Digest, Record, Split
from pipeline_project.governance.chain import DATASET, Chain, inventory_of, manifest_of
from pipeline_project.ingest.erasure import erased
from pipeline_project.ingest.inventory import read_inventory
from pipeline_project.ingest.packs import open_pack
from pipeline_project.ingest.quarantine import reason_of
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact


class ImageOrigin(Record):
    """What is known of the image of a request.

    `state`: one of the dataset's images; left out of the dataset; taken in on a day that the dataset does not hold; rejected and in
    quarantine; never seen before; the request had no image; or not known, because the dataset cannot be read.
    """

    image_id: Digest | None
    state: Literal["in the dataset", "left out", "taken in", "rejected", "new", "no image", "not known"]
    detail: str
    day: date | None = None
    split: Split | None = None
    pack: str | None = None
    pack_run: str | None = None
    pack_row: int | None = None
    key: str | None = None
    label: str | None = None
    etag: str | None = None
    problem: str = ""


def find_image(context: StageContext, image_id: str | None, chain: Chain) -> ImageOrigin:
    """Look for an image by the SHA-256 of its bytes. A record that does not hold is told in `problem`, never raised."""
    if image_id is None:
        return ImageOrigin(image_id=None, state="no image", detail="the request was refused before its image was read")
    if chain.dataset is None:
        return ImageOrigin(
            image_id=image_id, state="not known", detail="the dataset version behind the package cannot be read; see its link"
        )
    try:
        found = _in_dataset(context, image_id, chain, chain.dataset) or _elsewhere(context, image_id, chain, chain.dataset)
        return _told_erased(found) if image_id in erased(context.artifacts.bytes) else found
    except (ValueError, OSError, KeyError, TypeError) as error:
        return ImageOrigin(image_id=image_id, state="not known", detail="its records cannot be read", problem=str(error))


def _told_erased(found: ImageOrigin) -> ImageOrigin:
    detail = "what was known of it is gone, but for its tombstone" if found.state == "new" else f"{found.detail}; erased since"
    return found.model_copy(update={"state": "not known" if found.state == "new" else found.state, "detail": detail})


def _in_dataset(context: StageContext, image_id: str, chain: Chain, dataset: DatasetVersion) -> ImageOrigin | None:
    rows = _rows_of(chain.artifacts[DATASET].read("splits.parquet"), image_id)
    if not rows:
        return None
    row = rows[0]
    day, number = str(row["day"]), int(row["pack_row"])
    found = ImageOrigin(
        image_id=image_id,
        state="in the dataset",
        detail=f"row {number} of the image pack of {day}, split {row['split']}",
        day=date.fromisoformat(day),
        split=row["split"],
        pack=dataset.packs[day],
        pack_row=number,
        label=dataset.classes[int(row["class_index"])],
    )
    pack_run, problem = _look_at_pack(context, found, day)
    found = found.model_copy(update={"pack_run": pack_run})
    manifest = chain.artifacts.get(manifest_of(day))
    accepted = _rows_of(manifest.read("manifest.parquet"), image_id) if manifest is not None else []
    if not accepted:
        return found.model_copy(update={"problem": problem or f"the manifest of {day} does not have it"})
    key = str(accepted[0]["key"])
    if accepted[0]["label"] != found.label:
        problem = problem or f"the manifest of {day} calls it {accepted[0]['label']}, the dataset {found.label}"
    etag = _etag(chain.artifacts.get(inventory_of(day)), key)
    if etag is None:
        problem = problem or f"the inventory of {day} does not list {key}"
    return found.model_copy(update={"key": key, "etag": etag, "problem": problem})


def _look_at_pack(context: StageContext, found: ImageOrigin, day: str) -> tuple[str | None, str]:
    """The run that made the pack, and what is wrong with the row; the list of rows is read and verified, the pixels are not."""
    assert found.pack is not None
    assert found.pack_row is not None
    run = None
    try:
        pack = context.artifacts.version("image_pack", found.pack, day)
        run, ids = pack.run, open_pack(context.artifacts, pack).image_ids
    except (ValueError, OSError, KeyError) as error:
        return run, f"the image pack of {day}: {error}"
    there = ids[found.pack_row] if found.pack_row < len(ids) else None
    return run, "" if there == found.image_id else f"row {found.pack_row} of the image pack of {day} is another image"


def _elsewhere(context: StageContext, image_id: str, chain: Chain, dataset: DatasetVersion) -> ImageOrigin:
    for day in reversed([day for day in context.artifacts.partitions("validated_manifest") if day not in dataset.days]):
        manifest = context.artifacts.latest("validated_manifest", day)
        rows = _rows_of(manifest.read("manifest.parquet"), image_id)
        if rows:
            return _taken_in(context, image_id, day, rows[0], manifest)
    if image_id in dataset.left_out_images:
        return _left_out(image_id, chain, dataset)
    reject = reason_of(context.artifacts.bytes, image_id)
    if reject is None:
        return ImageOrigin(image_id=image_id, state="new", detail="not one of the images that were taken in: the model had never seen it")
    detail = f"in quarantine, never trained on: {reject.code}: {reject.detail}"
    return ImageOrigin(image_id=image_id, state="rejected", detail=detail, key=reject.key, label=reject.label)


def _left_out(image_id: str, chain: Chain, dataset: DatasetVersion) -> ImageOrigin:
    found = ImageOrigin(image_id=image_id, state="left out", detail=f"left out of the dataset: {dataset.left_out_images[image_id]}")
    for day in sorted(dataset.days):
        manifest = chain.artifacts.get(manifest_of(day))
        rows = _rows_of(manifest.read("manifest.parquet"), image_id) if manifest is not None else []
        if rows:
            key = str(rows[0]["key"])
            etag = _etag(chain.artifacts.get(inventory_of(day)), key)
            return found.model_copy(update={"day": date.fromisoformat(day), "key": key, "label": str(rows[0]["label"]), "etag": etag})
    return found


def _taken_in(context: StageContext, image_id: str, day: str, row: Mapping[str, Any], manifest: Artifact) -> ImageOrigin:
    key, inventory = str(row["key"]), str(manifest.info.get("inventory", ""))
    listed = context.artifacts.version("raw_images", inventory, day) if inventory else None
    return ImageOrigin(
        image_id=image_id,
        state="taken in",
        detail=f"accepted on {day}, which is not in the dataset behind this package",
        day=date.fromisoformat(day),
        key=key,
        label=str(row["label"]),
        etag=_etag(listed, key),
    )


def _rows_of(table: bytes, image_id: str) -> list[dict[str, Any]]:
    import pandas as pd

    frame = pd.read_parquet(io.BytesIO(table), filters=[("image_id", "==", image_id)])
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _etag(inventory: Artifact | None, key: str) -> str | None:
    """The source's own mark of the object when it was listed, or None where it was not."""
    if inventory is None:
        return None
    import pyarrow.compute as pc

    objects = read_inventory(inventory).objects
    found = objects.filter(pc.equal(objects["key"], key))["etag"]
    return str(found[0].as_py()) if len(found) else None
