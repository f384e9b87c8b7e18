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
    """{day: fingerprint} of the days to take in, oldest first: new ones, and those with new, changed or deleted objects.

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
        last = context.artifacts.find("raw_images", day.isoformat())
        if day <= today and (last is None or last.info.get("fingerprint") != fingerprint):
            changes[day] = fingerprint
    return changes


def _identity(o: Listed) -> tuple[int, str]:
    return o.size, o.etag
