"""raw_images: what arrived on a day, listed and labelled, nothing decoded."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import date

from pipeline_project.contracts import LabelRow, SourceObject
from pipeline_project.digests import canonical_json
from pipeline_project.imaging.decode import SNIFF_BYTES, sniff_format
from pipeline_project.ingest.arrivals import day_fingerprint
from pipeline_project.ingest.labels import conflicting_images, parse_labels
from pipeline_project.ingest.sources import Source, day_folder, objects_of_day, open_source, source_identity
from pipeline_project.stage import Metadata, StageContext, StepResult, Table
from pipeline_project.trust.approvals import require_unchanged

_READERS = 8  # a read of a few bytes waits for the store, not for the processor


def take_inventory(context: StageContext, day: date) -> StepResult:
    """List the day's objects, sniff their formats and read their label rows.

    Raises:
        ApprovalRequiredError: the source changed since the last run (R198).
        SourceError: the source cannot be read, or holds objects before data.start_date.
    """
    settings, store = context.settings, context.artifacts.bytes
    identity = source_identity(settings)
    accepted = require_unchanged(store, settings.trusted_approvers, "data_source_modifications", identity, "The data source")
    source = open_source(settings)
    arrived = objects_of_day(source, store, settings, day)
    images = arrived.images
    context.log(f"{day}: {len(images)} images, {len(arrived.label_files)} label files")
    keys = {o.key for o in images}
    rows, problems = [], []
    for file in arrived.label_files:
        parsed, found = parse_labels(file.key, source.read(file.key), settings.data)
        rows += [row for row in parsed if row.image in keys or (_missing_day(file, row) == day and row.image not in arrived.listed_keys)]
        problems += [{"file": p.file, "code": p.code, "detail": p.detail} for p in found]
    inventory = {
        "version": 1,
        "day": day.isoformat(),
        "objects": [{"key": o.key, "size": o.size, "etag": o.etag} for o in images],
        "announced_formats": _sniff(source, images),
        "labels": [row.model_dump() for row in rows],
        "label_files": [file.key for file in arrived.label_files],
        "problems": problems,
        "unlabelled": sorted(keys - {row.image for row in rows if row.label is not None}),
        "without_image": sorted({row.image for row in rows} - keys),
        "outside_domain": _outside_domain(rows, settings.data.classes),
        "conflicting": sorted(conflicting_images(rows)),
    }
    fingerprint = day_fingerprint({o.key: (o.size, o.etag) for o in images}, {o.key: (o.size, o.etag) for o in arrived.label_files})
    artifact = context.artifacts.publish(
        "raw_images",
        {"inventory.json": canonical_json(inventory)},
        partition=day.isoformat(),
        info={"fingerprint": fingerprint, "source": accepted.subject},
    )
    return StepResult(artifact, {**_metadata(inventory, images, rows), "source": settings.data.source, **accepted.metadata})


def _sniff(source: Source, images: list[SourceObject]) -> dict[str, str | None]:
    with ThreadPoolExecutor(_READERS) as readers:
        heads = readers.map(lambda o: source.read(o.key, SNIFF_BYTES), images)
        return {o.key: sniff_format(head) for o, head in zip(images, heads, strict=True)}


def _missing_day(file: SourceObject, row: LabelRow) -> date:
    """Which day reports a row without an image: its label file's; for a label file of all days, the day that the row's path names."""
    return day_folder(file.key) or day_folder(row.image) or file.day


def _outside_domain(rows: list[LabelRow], classes: list[str]) -> dict[str, int]:
    return dict(sorted(Counter(row.label for row in rows if row.label is not None and row.label not in classes).items()))


def _metadata(inventory: dict[str, object], images: list[SourceObject], rows: list[LabelRow]) -> Metadata:
    formats = Counter(str(name) for name in inventory["announced_formats"].values())  # type: ignore[attr-defined]
    labels = Counter(row.label or "(none)" for row in rows)
    return {
        "images": len(images),
        "bytes": sum(o.size for o in images),
        "formats": dict(formats),
        "labels": Table([{"label": label, "rows": count} for label, count in labels.most_common()]),
        "problems": len(inventory["problems"]),  # type: ignore[arg-type]
    }
