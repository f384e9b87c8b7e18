"""raw_images: what arrived on a day, listed and labelled, nothing decoded."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from pipeline_project.code_version import code_version
from pipeline_project.digests import canonical_json, digest_of, sha256_bytes
from pipeline_project.imaging import sniff_format
from pipeline_project.imaging.formats import SNIFF_BYTES
from pipeline_project.ingest import inventory_v1
from pipeline_project.ingest.fingerprint import DayFingerprint
from pipeline_project.ingest.inventory_summary import DayLabels, summarise
from pipeline_project.ingest.labels import read_rows, row_day, speaks_of
from pipeline_project.ingest.privacy import mask_personal_data
from pipeline_project.ingest.sources import Listed, Source, arrival_ledger, assign_days, day_folder, open_source, source_identity
from pipeline_project.settings import Settings
from pipeline_project.stage import Metadata, StageContext, StepResult, Table
from pipeline_project.storage import Artifact
from pipeline_project.storage.overlapped import Overlapped
from pipeline_project.tables import parquet_to_table, table_to_parquet
from pipeline_project.trust.approvals import require_unchanged

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

attributes_text = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
"""Attributes as they are stored: canonical JSON."""


@dataclass(frozen=True)
class Inventory:
    """A day's inventory.

    Attributes:
        summary: what `inventory_summary.summarise` gives.
        objects: key str, size int64, etag str, announced str or null (the format that the first bytes announce); sorted by key.
        labels: image str, label str or null, attributes str (a JSON object); in the order of the label files and their lines.
    """

    summary: dict[str, Any]
    objects: "pa.Table"
    labels: "pa.Table"


def read_inventory(artifact: Artifact) -> Inventory:
    """The inventory that a raw_images artefact holds, of whatever version."""
    listing = artifact.json("inventory.json")
    if inventory_v1.is_v1(listing):
        labels = _labels_table(inventory_v1.label_rows_of(listing))
        return Inventory(inventory_v1.summary_of(listing), inventory_v1.objects_of(listing), labels)
    return Inventory(listing, parquet_to_table(artifact.read("objects.parquet")), parquet_to_table(artifact.read("labels.parquet")))


def take_inventory(context: StageContext, day: date) -> StepResult:
    """List the day's objects, look at their first bytes, and read their label rows.

    Payload: objects.parquet, labels.parquet, inventory.json (see `Inventory`). Personal data in text columns is masked here, before
    anything stores it. Objects that the newest inventory of the day has with the same size and ETag are not read again.

    Raises:
        ApprovalRequiredError: the source changed since the last run (R198).
        SourceError: the source cannot be read, or holds objects before data.start_date.
    """
    settings, store = context.settings, context.artifacts.bytes
    identity = source_identity(settings)
    accepted = require_unchanged(store, settings.trusted_approvers, "data_source_modifications", identity, "The data source")
    source = open_source(settings)
    listed = source.list_day(day)
    days = assign_days(listed, store, settings)
    images, label_files = _of_day(listed, days, settings, day)
    del listed
    context.log(f"{day}: {len(images)} images, {len(label_files)} label files")
    listing = _listing_digest(settings, images, label_files)
    before = None if context.recompute or listing is None else _same_listing(context, day, listing)
    if before is not None:
        reason = "the day's objects and label files are listed as they were"
        if before.info.get("source") != accepted.subject:
            before = context.artifacts.publish_again(before, {**before.info, "source": accepted.subject})
        shown = {**_metadata(before.json("inventory.json")), "reused": True, "reuse_reason": reason}
        return StepResult(before, {**shown, "source": settings.data.shown_source, **accepted.metadata})
    fingerprint = DayFingerprint()
    for o in images:
        fingerprint.add_object(o.key, o.size, o.etag)
    if any(day_folder(file.key) is None for file in label_files):  # rows of images that are gone stay on the day that these had
        days = arrival_ledger.read_ledger(store) | days
    labels = _read_labels(source, label_files, days, settings, day, fingerprint)
    objects = _objects_table(source, images, _newest(context, day))
    summary = summarise(day, objects, labels, settings.data.classes)
    artifact = context.artifacts.publish(
        "raw_images",
        {
            "inventory.json": canonical_json(summary),
            "objects.parquet": table_to_parquet(objects),
            "labels.parquet": table_to_parquet(_labels_table(labels.rows)),
        },
        partition=day.isoformat(),
        info={"fingerprint": fingerprint.hexdigest(), "source": accepted.subject, "listing": listing},
    )
    return StepResult(artifact, {**_metadata(summary), "source": settings.data.shown_source, **accepted.metadata})


def _listing_digest(settings: Settings, images: Sequence[Listed], label_files: Sequence[Listed]) -> str | None:
    """Of all that decides an inventory; None where more than the listing does: rows of undated label files go to days by the ledger."""
    if any(day_folder(file.key) is None for file in label_files):
        return None
    listed = "\n".join(f"{o.key}\0{o.size}\0{o.etag}" for o in (*images, *label_files))
    data = settings.data.model_dump(mode="json")
    return digest_of([sha256_bytes(listed.encode()), code_version("ingest.inventory"), data, settings.privacy.phone_regions])


def _same_listing(context: StageContext, day: date, listing: str) -> Artifact | None:
    """The newest inventory of the day, if it was made from this very listing and is whole."""
    try:
        found = context.artifacts.find("raw_images", day.isoformat())
        if found is None or found.info.get("listing") != listing:
            return None
        found.verify()
    except (ValueError, KeyError, TypeError, FileNotFoundError):
        return None
    return found


def _of_day(listed: Sequence[Listed], days: dict[str, date], settings: Settings, day: date) -> tuple[list[Listed], list[Listed]]:
    """The day's images, and the label files that may speak of them."""
    images, label_files = [], []
    for o in listed:
        name = o.key.rpartition("/")[2]
        if name == settings.data.labels_file:
            if speaks_of(o, day):
                label_files.append(o)
        elif days[o.key] == day and name != settings.ingest.marker:
            images.append(o)
    return images, label_files


def _read_labels(
    source: Source, files: Sequence[Listed], days: dict[str, date], settings: Settings, day: date, fingerprint: DayFingerprint
) -> DayLabels:
    """The day's rows of the label files, masked; they are added to the fingerprint as they came."""
    import pandas as pd

    columns: dict[str, list[Any]] = {name: [] for name in ("file", "line", "image", "label", "attributes")}
    problems: list[dict[str, str]] = []
    personal: dict[str, Counter[str]] = defaultdict(Counter)
    texts: Counter[str] = Counter()
    for file in files:
        rows, found = read_rows(file.key, source.read(file.key), settings.data)
        if found:
            fingerprint.add_unreadable_label_file(file.key, file.size, file.etag)
        for row in rows:
            if row_day(file, row, days) == day:
                fingerprint.add_label(row.image, row.label, row.attributes)
                if row.refused:
                    found.append(row.problem(file.key))
                    continue
                texts.update(column for column, value in row.attributes.items() if value)
                attributes = _masked(row.attributes, settings, personal)
                for name, value in zip(columns, (file.key, row.line, row.image, row.label, attributes_text(attributes)), strict=True):
                    columns[name].append(value)
        problems += [{"file": p.file, "code": p.code, "detail": p.detail} for p in found]
    frame = pd.DataFrame(columns).astype({name: "int64" if name == "line" else object for name in columns})
    masked = {column: dict(sorted(kinds.items())) for column, kinds in sorted(personal.items())}
    return DayLabels(frame, [file.key for file in files], problems, masked, settings.data.text_columns, texts)


def _masked(attributes: dict[str, str], settings: Settings, found: dict[str, Counter[str]]) -> dict[str, str]:
    masked = dict(attributes)
    for column in settings.data.text_columns:
        if masked.get(column):
            masked[column], kinds = mask_personal_data(masked[column], settings.privacy.phone_regions)
            if kinds:
                found[column].update(kinds)
    return masked


def _newest(context: StageContext, day: date) -> "pa.Table | None":
    """The objects of the day's newest inventory; one that cannot be read is none."""
    try:
        artifact = context.artifacts.find("raw_images", day.isoformat())
        return read_inventory(artifact).objects if artifact is not None else None
    except (ValueError, KeyError, TypeError, FileNotFoundError):
        return None


def _objects_table(source: Source, images: Sequence[Listed], before: "pa.Table | None") -> "pa.Table":
    """The objects with the formats that they announce; only new and changed ones are read."""
    import pyarrow as pa

    known: dict[tuple[str, int, str], str | None] = {}
    if before is not None:
        columns = (before[name].to_pylist() for name in ("key", "size", "etag"))
        known = dict(zip(zip(*columns, strict=True), before["announced"].to_pylist(), strict=True))
    unread = [o for o in images if (o.key, o.size, o.etag) not in known]
    for o, head in zip(unread, Overlapped().map(lambda o: source.read(o.key, SNIFF_BYTES), unread), strict=True):
        known[o.key, o.size, o.etag] = sniff_format(head)
    return pa.table(
        {
            "key": pa.array([o.key for o in images], pa.string()),
            "size": pa.array([o.size for o in images], pa.int64()),
            "etag": pa.array([o.etag for o in images], pa.string()),
            "announced": pa.array([known[o.key, o.size, o.etag] for o in images], pa.string()),
        }
    ).sort_by("key")


def _labels_table(rows: "pd.DataFrame") -> "pa.Table":
    import pyarrow as pa

    return pa.table({name: pa.array(rows[name], pa.string()) for name in ("image", "label", "attributes")})


def _metadata(summary: dict[str, Any]) -> Metadata:
    labels = {**summary["labels"], "(none)": summary["found"]["missing"]["count"]}
    return {
        "images": summary["objects"],
        "bytes": summary["bytes"],
        "formats": {name or "None": count for name, count in summary["formats"].items()},
        "labels": Table([{"label": label, "rows": count} for label, count in labels.items() if count]),
        "problems": summary["problem_count"],
        "personal_data_masked": summary["personal_data"],
    }
