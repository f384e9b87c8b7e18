"""Which days of the source differ from what was last taken in: level-triggered, so nothing is missed and nothing asked for twice."""

from collections import defaultdict
from datetime import UTC, date, datetime
from pathlib import PurePosixPath

from pipeline_project.digests import digest_of
from pipeline_project.ingest.sources import Listed, assign_days, day_folder, open_source
from pipeline_project.stage import StageContext


def day_fingerprint(images: dict[str, tuple[int, str]], label_files: dict[str, tuple[int, str]]) -> str:
    """32 hexadecimal digits over {key: (size, etag)} of a day's images and of the label files that may speak of them."""
    return digest_of({"images": images, "label_files": label_files})[:32]


def changed_days(context: StageContext) -> dict[date, str]:
    """{day: fingerprint} of the days to take in, oldest first: new ones, those with changed objects, those not taken in to the end.

    Days after today wait until they come. Raises `SourceError` when the source cannot be read: an unreachable source is never quiet.
    """
    listed = open_source(context.settings).list_all()
    days = assign_days(listed, context.artifacts.bytes, context.settings)
    images: dict[date, dict[str, tuple[int, str]]] = defaultdict(dict)
    labels: dict[date | None, dict[str, tuple[int, str]]] = defaultdict(dict)
    for o in listed:
        if PurePosixPath(o.key).name == context.settings.data.labels_file:
            labels[day_folder(o.key)][o.key] = _identity(o)
        else:
            images[days[o.key]][o.key] = _identity(o)
    taken = {date.fromisoformat(p) for p in context.artifacts.partitions("raw_images")}
    today = datetime.now(UTC).date()
    changes = {}
    for day in sorted(images.keys() | taken):
        fingerprint = day_fingerprint(images[day], labels[None] | labels[day])
        if day <= today and _taken_in(context, day) != fingerprint:
            changes[day] = fingerprint
    return changes


def _taken_in(context: StageContext, day: date) -> str | None:
    """The fingerprint of what was taken in, if that went through to its end; a run that failed or was killed half-way does not count."""
    found = {name: context.artifacts.find(name, day.isoformat()) for name in ("raw_images", "validated_manifest", "image_features")}
    raw, manifest, features = found.values()
    if raw is None or manifest is None or features is None:
        return None
    whole = manifest.info["inventory"] == raw.digest and features.json("origin.json")["manifest"] == manifest.digest
    return raw.info.get("fingerprint") if whole else None


def _identity(o: Listed) -> tuple[int, str]:
    return o.size, o.etag
