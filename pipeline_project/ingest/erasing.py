"""Erasing images from everything that ingest stores: tombstones first, then their bytes and pixels, wherever they lie.

Each step looks at what is there and does what is left to do, so an erasure that was killed is completed by running it again. Pixels are
overwritten with zeros in place: rows keep their numbers, so packs and dataset versions made before stay readable without the image. The
digest that such a file has afterwards is recorded beside it before it is written (`erasure.read_payload`), and belongs in the audit ledger.
"""

import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.ingest.decoding.rows import ERASED
from pipeline_project.ingest.decoding.shards import FACTS, PIXELS, SHARD, rows_of
from pipeline_project.ingest.erasure import ERASED_ROWS, Tombstone, erased_rows, read_tombstone, tombstone_key
from pipeline_project.ingest.repairs import REPAIRED, repair_records
from pipeline_project.reuse import MADE
from pipeline_project.stage import StageContext
from pipeline_project.storage import AlreadyExistsError, Artifact, ArtifactStore, ByteStore, FolderStore
from pipeline_project.tables import parquet_to_frame

_ID = re.compile(r"^[0-9a-f]{64}$")
_QUARANTINES = ("restricted/quarantine", "processed-data/quarantine")  # the second of older projects
_OLD_ROWS = "rows.json"  # of packs that held their pixels themselves


@dataclass
class Erasure:
    """What was erased. `days`: those whose newest manifest still holds an image. `removed`: counts by kind, of this call alone.

    `files`: {file in the store: the SHA-256 it has without the images}. `unknown`: images that no manifest and no shard names.
    """

    image_ids: list[str]
    keys: list[str] = field(default_factory=list)
    days: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    removed: Counter[str] = field(default_factory=Counter)
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Named:
    """An image as a day's newest manifest names it: accepted, rejected, or (`known`) already as erased."""

    image_id: str
    key: str
    day: str
    known: bool


def erase(context: StageContext, images: Sequence[str], *, reason: str, who: str) -> Erasure:
    """Erase images for good. Identical bytes under other keys go, too; near duplicates do not.

    Args:
        images: ids (64 hexadecimal digits), or keys in the source. An id may be erased before it ever came.
        reason: why, kept in the tombstone.
        who: on whose word.

    Raises:
        ValueError: a key is not known, or `reason` or `who` is empty. Nothing was erased then.
        StoreError: the store failed. Run it again: it goes on.
    """
    if not images or not reason.strip() or not who.strip():
        raise ValueError("Say which images are to be erased (ids or keys), why, and on whose word.")
    store = context.artifacts.bytes
    named = list(_named(context.artifacts))
    ids = _with_repairs(store, _resolve(images, named))
    context.log(f"{len(ids)} images: writing tombstones, then removing bytes and pixels")
    done = Erasure(sorted(ids))
    for image_id in done.image_ids:
        done.removed["tombstones"] += _bury(store, Tombstone(image_id=image_id, reason=reason, who=who, when=datetime.now(UTC)))
    for image_id in done.image_ids:
        for place in (*_QUARANTINES, REPAIRED):
            for key in store.list(f"{place}/{image_id}/"):
                store.delete(key)
                done.removed["quarantined or repaired files"] += 1
    seen = {n.image_id for n in named}
    for artifact in _versions(context.artifacts, SHARD):
        seen |= _erase_from_shard(artifact, ids, done)
    for artifact in _versions(context.artifacts, "image_pack"):
        _erase_from_old_pack(artifact, ids, done)
    done.keys = sorted({n.key for n in named if n.image_id in ids})
    done.days = sorted({n.day for n in named if n.image_id in ids and not n.known})
    done.unknown = sorted(ids - seen)
    done.removed["remembered pictures"] += _forget_pictures(store, done.days)
    if not isinstance(store, FolderStore):
        for path in (context.settings.home / "cache").glob(f"*/{PIXELS}"):  # copies of this machine; they are fetched again
            path.unlink(missing_ok=True)
    done.removed = +done.removed
    return done


def _resolve(images: Sequence[str], named: Sequence[_Named]) -> set[str]:
    """The ids of what was named by id or key."""
    keys = [image for image in images if not _ID.match(image)]
    ids = {image for image in images if _ID.match(image)}
    found = {n.key: set[str]() for n in named}
    for n in named:
        found[n.key].add(n.image_id)
    strange = [key for key in keys if key not in found]
    if strange:
        raise ValueError(
            f"No manifest names {', '.join(strange[:5])}: give an image's key as validated_manifest shows it, or the SHA-256 of its bytes "
            "(64 hexadecimal digits). Nothing was erased."
        )
    return ids.union(*(found[key] for key in keys))


def _with_repairs(store: ByteStore, ids: Collection[str]) -> frozenset[str]:
    """An image and what was repaired of it are one photo."""
    found = set(ids)
    for repair in repair_records(store):
        if {repair.original, repair.repaired} & found:
            found |= {repair.original, repair.repaired}
    return frozenset(found)


def _bury(store: ByteStore, tombstone: Tombstone) -> int:
    """Write a tombstone where there is none, or a damaged one; 1 if so. A whole one stays as it is."""
    key, data = tombstone_key(tombstone.image_id), canonical_json(tombstone.model_dump(mode="json"))
    try:
        store.create(key, data)
    except AlreadyExistsError:
        try:
            read_tombstone(store, tombstone.image_id)
        except ValueError:
            store.write(key, data)
        else:
            return 0
    return 1


def _named(artifacts: ArtifactStore) -> Iterable[_Named]:
    for day in artifacts.partitions("validated_manifest"):
        manifest = artifacts.latest("validated_manifest", day)
        for file in ("manifest.parquet", "rejects.parquet"):
            if file in manifest.files:
                table = parquet_to_frame(manifest.read(file))
                codes = table["code"] if "code" in table else [""] * len(table)
                for image_id, key, code in zip(table["image_id"], table["key"], codes, strict=True):
                    if isinstance(image_id, str):
                        yield _Named(image_id, key, day, code == ERASED)


def _versions(artifacts: ArtifactStore, name: str) -> Iterable[Artifact]:
    """Every stored version of an asset, whatever its partition; those that are removed meanwhile are passed over."""
    for key in artifacts.bytes.list(f"processed-data/{name}/"):
        parts = key.split("/")
        if len(parts) == 5 and parts[4] == "artifact.json":
            with suppress(FileNotFoundError):
                yield artifacts.version(name, parts[3], parts[2])


def _erase_from_shard(artifact: Artifact, ids: Collection[str], done: Erasure) -> set[str]:
    """Blank the rows of these images; gives those that the shard names."""
    import pyarrow.parquet as pq

    with suppress(FileNotFoundError):  # housekeeping was faster
        facts = pq.read_table(io.BytesIO(artifact.store.read(f"{artifact.prefix}{FACTS}")))
        rows = rows_of(facts)
        found = {
            key: i for key, i in zip(facts["key"].to_pylist(), facts["image_id"].to_pylist(), strict=True) if i is not None and i in ids
        }
        _blank(artifact, [row for key in found if (row := rows[key]) is not None], done)
        return set(found.values())
    return set()


def _erase_from_old_pack(artifact: Artifact, ids: Collection[str], done: Erasure) -> None:
    if _OLD_ROWS in artifact.files and PIXELS in artifact.files:
        with suppress(FileNotFoundError):
            about = json.loads(artifact.store.read(f"{artifact.prefix}{_OLD_ROWS}"))
            _blank(artifact, [row for row, image_id in enumerate(about["image_ids"]) if image_id in ids], done)


def _blank(artifact: Artifact, rows: Sequence[int], done: Erasure) -> None:
    """Overwrite rows of a version's pixels with zeros. What the file is to become is recorded before it is written."""
    if not rows:
        return
    data = bytearray(artifact.store.read(f"{artifact.prefix}{PIXELS}"))
    pixels = np.load(io.BytesIO(data), allow_pickle=False)
    start, step = len(data) - pixels.nbytes, pixels[0].nbytes
    for row in rows:
        data[start + row * step : start + (row + 1) * step] = bytes(step)
    after, record = sha256_bytes(bytes(data)), erased_rows(artifact)
    before: dict[str, Any] = record.get(PIXELS, {"rows": [], "after": []})
    noted = {"rows": sorted({*before["rows"], *rows}), "after": sorted({*before["after"], after})}
    if noted != before:
        artifact.add_sidecar(ERASED_ROWS, canonical_json({"version": 1, "files": {**record, PIXELS: noted}}))
    if pixels[list(rows)].any():
        artifact.store.write(f"{artifact.prefix}{PIXELS}", bytes(data))
        done.removed["rows of pixels"] += len(rows)
    done.files[f"{artifact.prefix}{PIXELS}"] = after


def _forget_pictures(store: ByteStore, days: Sequence[str]) -> int:
    """Remove remembered results that hold pictures (contact sheets) of these days: those steps are computed again when asked for."""
    forgotten = 0
    for asset, partitions in (("validated_manifest", days), ("image_pack", days), ("data_profile", ["all"])):
        for partition in partitions:
            for key in store.list(f"{MADE}/{asset}/{partition}/"):
                with suppress(FileNotFoundError):
                    if b'"picture"' in store.read(key):
                        store.delete(key)
                        forgotten += 1
    return forgotten
