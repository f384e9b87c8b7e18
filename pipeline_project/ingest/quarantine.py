"""Quarantine: what was rejected, kept byte by byte with the reason, and the way out of it after a repair.

Everything lies under `restricted/`, so that one rule of a bucket policy closes it: `restricted/quarantine/<image id>/` holds `bytes` and
`reason.json`. An object above ingest.max_bytes is never read; its reason lies in a folder named after its key.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline_project.contracts import Digest, Record, Reject
from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.imaging import DecodeLimits, ImageRejectedError, decode_image
from pipeline_project.ingest.erasure import erased
from pipeline_project.ingest.manifest_join import UNCOUNTED
from pipeline_project.ingest.repairs import Repair, repair_records, write_repair
from pipeline_project.ingest.sources import Source
from pipeline_project.settings import Settings
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact, ByteStore
from pipeline_project.tables import parquet_to_table

if TYPE_CHECKING:
    import pyarrow as pa

QUARANTINE = "restricted/quarantine"
_BEFORE = "processed-data/quarantine"  # where older projects have it
_READERS = 8


class QuarantineError(ValueError):
    """An image cannot be released; the message says why and what to do."""


class Reason(Record):
    """Why an image is in quarantine: the first reject's code and detail, all keys and days under which its bytes came.

    `kept` is whether the bytes lie beside it.
    """

    version: Literal[1] = 1
    image_id: Digest | None
    key: str
    code: str
    detail: str
    label: str | None
    keys: list[str]
    days: list[date]
    kept: bool


@dataclass(frozen=True)
class Quarantined:
    """A rejected image of a day, and the repair that the next materialization will take instead, if there is one."""

    day: date
    reject: Reject
    kept: bool
    repair: Repair | None


def reason_of(store: ByteStore, image_id: str) -> Reason | None:
    """Why an image is in quarantine, or None where it is not."""
    for place in (QUARANTINE, _BEFORE):
        try:
            found: dict[str, Any] = store.read_json(f"{place}/{image_id}/reason.json")
        except FileNotFoundError:
            continue
        return Reason.model_validate({"keys": [found["key"]], "days": [], "kept": True, **found})
    return None


def put_in_quarantine(source: Source, store: ByteStore, settings: Settings, day: date, rejects: "pa.Table") -> None:
    """Keep the bytes of a day's rejected images, each once, with the reason and all keys under which they came.

    Copies of accepted images are not kept, nor bytes that were erased.

    Raises:
        ValueError: an object's bytes are not those that were looked at.
    """
    together: dict[str, list[Reject]] = {}
    for row in rejects.to_pylist():
        reject = Reject.model_validate(row)
        if reject.code not in UNCOUNTED:
            together.setdefault(_folder(reject), []).append(reject)
    repaired = {repair.repaired for repair in repair_records(store)} if together else set()
    gone = erased(store) if together else frozenset[str]()
    lock = threading.Lock()

    def keep(item: tuple[str, list[Reject]]) -> None:
        folder, found = item
        first = found[0]
        if first.image_id in repaired or first.image_id in gone:  # kept elsewhere already, or to be kept nowhere
            return
        kept = first.image_id is not None
        if kept and not store.exists(f"{folder}/bytes"):
            data = source.read(first.key)
            if sha256_bytes(data) != first.image_id:
                raise ValueError(
                    f"{first.key}: its bytes in {settings.data.shown_source} changed while {day} was validated. "
                    f"Materialize raw_images of {day} and what follows it again."
                )
            store.write(f"{folder}/bytes", data)
        with lock:
            _write_reason(store, folder, found, day, kept)

    with ThreadPoolExecutor(_READERS) as workers:
        list(workers.map(keep, together.items()))


def list_quarantine(context: StageContext, day: date | None = None) -> list[Quarantined]:
    """What the newest manifests reject (copies apart), by day and key; of one day, or of all."""
    store = context.artifacts.bytes
    fixed = {repair.original: repair for repair in repair_records(store)}
    found = []
    for partition in context.artifacts.partitions("validated_manifest"):
        if day is not None and partition != day.isoformat():
            continue
        for reject in _rejects(context.artifacts.latest("validated_manifest", partition)):
            kept = reject.image_id is not None and store.exists(f"{_folder(reject)}/bytes")
            found.append(Quarantined(date.fromisoformat(partition), reject, kept, fixed.get(reject.image_id or "")))
    return found


def release(context: StageContext, image_id: str, repaired: Path, reason: str, who: str) -> Repair:
    """Take a repaired file for a rejected image, wherever its bytes come from the source.

    The original stays in quarantine. The repair's `days` are to be materialized (validated_manifest and what follows it).

    Args:
        image_id: of the original, or enough of its first digits.
        repaired: the repaired file; it must decode under the settings' limits.
        reason: what was repaired.
        who: who says that it is still the same picture.

    Raises:
        QuarantineError: no such image, an unusable file, or an empty `reason` or `who`.
    """
    store, settings = context.artifacts.bytes, context.settings
    if not reason.strip() or not who.strip():
        raise QuarantineError("A repair needs a reason and the name of whoever vouches for it.")
    found = list_quarantine(context)
    before = {repair.original: repair for repair in repair_records(store)}
    original = _named(image_id, {q.reject.image_id for q in found if q.reject.image_id} | before.keys())
    try:
        data = repaired.read_bytes()
        decode_image(data, DecodeLimits.from_settings(settings.ingest), settings.image.size)
    except ImageRejectedError as error:
        raise QuarantineError(f"{repaired} cannot be used either: {error}. Repair it so that it decodes to its end.") from None
    except OSError as error:
        raise QuarantineError(f"{repaired} cannot be read: {error.strerror}. Name the repaired file.") from None
    new = sha256_bytes(data)
    if new == original:
        raise QuarantineError(f"{repaired} is the very image in quarantine. If its label was wrong, correct {settings.data.labels_file}.")
    if erased(store) & {new, original}:
        raise QuarantineError("The image was erased and must not come back.")
    days = {q.day for q in found if q.reject.image_id == original}
    days |= set(before[original].days) if original in before else set()
    now = datetime.now(UTC).replace(microsecond=0)
    repair = Repair(original=original, repaired=new, who=who.strip(), when=now, reason=reason.strip(), days=sorted(days))
    write_repair(store, repair, data)
    return repair


def _named(image_id: str, known: Iterable[str]) -> str:
    found = sorted(name for name in known if image_id and name.startswith(image_id.lower()))
    if len(found) == 1:
        return found[0]
    if found:
        raise QuarantineError(f"{image_id} is the beginning of {len(found)} image ids. Give more digits of it.")
    raise QuarantineError(f"No image {image_id} is in quarantine. List what is there, and give the image id of one of them.")


def _rejects(manifest: Artifact) -> list[Reject]:
    rows: Sequence[Mapping[str, Any]] = parquet_to_table(manifest.read("rejects.parquet")).to_pylist()
    return [reject for reject in map(Reject.model_validate, rows) if reject.code not in UNCOUNTED]


def _folder(reject: Reject) -> str:
    return f"{QUARANTINE}/{reject.image_id or f'unread-{sha256_bytes(reject.key.encode())[:32]}'}"


def _write_reason(store: ByteStore, folder: str, found: Sequence[Reject], day: date, kept: bool) -> None:
    """Write why, with the keys and days that were known before; as it is, where nothing is new."""
    try:
        before = Reason.model_validate(store.read_json(f"{folder}/reason.json"))
    except (FileNotFoundError, ValueError):
        before = None
    first = found[0]
    keys = {reject.key for reject in found} | set(before.keys if before else ())
    days = {day} | set(before.days if before else ())
    now = Reason(**first.model_dump(), keys=sorted(keys), days=sorted(days), kept=kept)
    if now != before:
        store.write(f"{folder}/reason.json", canonical_json(now.model_dump(mode="json")))
