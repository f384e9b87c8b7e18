"""A day's objects, looked at once: what a stored shard knows is taken over, everything else goes through the worker processes."""

import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline_project.ingest.decoding.examine import Examiner
from pipeline_project.ingest.decoding.pixel_file import PixelFile, pixel_folder
from pipeline_project.ingest.decoding.pool import TRANSIENT, DecodingPool, Looked
from pipeline_project.ingest.decoding.recipe import recipe_of
from pipeline_project.ingest.decoding.rows import ERASED, ERASED_DETAIL, Row
from pipeline_project.ingest.decoding.shards import (
    SCHEMA,
    Origin,
    Shard,
    ShardRef,
    bits_for,
    bucket_of,
    find_shards,
    partition_of,
    publish_shard,
)
from pipeline_project.ingest.decoding.worker import ExaminerFactory, Orders
from pipeline_project.ingest.erasure import erased
from pipeline_project.ingest.repairs import repairs
from pipeline_project.stage import StageContext
from pipeline_project.storage import ArtifactMissingError

_BATCH = 64  # objects: large enough for a source's latency to be shared, small enough to be sent in one go
_BATCH_BYTES = 32 << 20
_TOLD_S = 5.0
_NOT_TOLD = ["measured"]  # of a shard's facts: image_features reads it there
_OPEN = 3  # stored shards whose pixels are in memory at a time


@dataclass(frozen=True)
class DecodedDay:
    """What is known of a day's objects.

    `facts`: one row an object, sorted by key, with the columns of `shards.SCHEMA` but `measured`; `code` is null for an image that can be
    used, and only such images have pixels. `shards`: where the pixels lie, by bucket. `decoded`: objects that were read in this call.
    """

    facts: pa.Table
    shards: list[ShardRef]
    decoded: int


@dataclass(frozen=True)
class _Listed:
    key: str
    size: int
    etag: str


@dataclass
class _Bucket:
    """A bucket on its way: rows known already, whose pixels are in the file, and batches of keys to look at."""

    partition: str
    objects: Sequence[_Listed]
    file: PixelFile
    rows: dict[str, Row] = field(default_factory=dict)
    batches: list[list[str]] = field(default_factory=list)

    @cached_property
    def slots(self) -> dict[str, int]:
        """{key: its slot of the file}."""
        return {o.key: slot for slot, o in enumerate(self.objects)}

    def into(self, batch: Sequence[str]) -> tuple[str, dict[str, int]]:
        """Where the workers put the pixels of a batch."""
        return str(self.file.path), {key: self.file.offset(self.slots[key]) for key in batch}


def decode_day(context: StageContext, day: date, objects: pa.Table, *, examiner: ExaminerFactory = Examiner) -> DecodedDay:
    """Decode what is new or changed among a day's objects; publish and name the shards that hold all of them.

    The result depends on the objects' keys and bytes, on the settings `DECODING_SETTINGS`, on tombstones and repairs, and on nothing
    else: not on what was decoded before, nor on how often a run was killed.

    Args:
        objects: columns key, size (bytes) and etag, sorted by key, no key twice.
        examiner: gives, from the settings, the function that looks at an object's bytes.

    Raises:
        SourceUnreachableError: the source does not answer; what is done is kept, a later call goes on from there.
        FileNotFoundError: an object is not in the source any more.
    """
    run = _Run(context, day, objects, examiner)
    found = run.decode()
    shards = [found[place][0] for place in sorted(found)]
    tables = [found[place][1].drop_columns(_NOT_TOLD) for place in sorted(found)]
    facts = pa.concat_tables(tables).sort_by("key") if tables else SCHEMA.empty_table().drop_columns(_NOT_TOLD)
    return DecodedDay(facts.combine_chunks(), shards, run.decoded)


class _Run:
    def __init__(self, context: StageContext, day: date, objects: pa.Table, examiner: ExaminerFactory) -> None:
        store = context.artifacts.bytes
        self._context, self._day = context, day
        self._listed = [_Listed(*row) for row in zip(*(objects[name].to_pylist() for name in ("key", "size", "etag")), strict=True)]
        self._bits = bits_for(len(self._listed))
        self._orders = Orders(context.settings, examiner, erased(store), repairs(store))
        self._recipe = recipe_of(context.settings, examiner)
        self._max_bytes = context.settings.ingest.max_bytes
        self.decoded = 0
        self._begun = self._told = time.monotonic()

    def decode(self) -> dict[int, tuple[ShardRef, pa.Table]]:
        """{bucket: its shard and facts}."""
        buckets: dict[int, list[_Listed]] = defaultdict(list)
        for o in self._listed:
            buckets[bucket_of(o.key, self._bits)].append(o)
        known = _Known(self._context, self._day, self._bits, buckets, self._recipe, self._orders)
        done: dict[int, tuple[ShardRef, pa.Table]] = {}
        waiting = {}
        for place in sorted(buckets):
            whole = known.whole(partition_of(self._day, self._bits, place), buckets[place])
            if whole is None:
                waiting[place] = buckets[place]
            else:
                done[place] = whole.ref, whole.facts
        if waiting:
            done |= self._make(known, waiting)
        return done

    def _make(self, known: "_Known", buckets: Mapping[int, list[_Listed]]) -> dict[int, tuple[ShardRef, pa.Table]]:
        done: dict[int, tuple[ShardRef, pa.Table]] = {}
        writing: deque[tuple[int, Future[tuple[ShardRef, pa.Table]]]] = deque()
        going: deque[tuple[int, _Bucket, list[Future[Looked]]]] = deque()
        workers = self._context.settings.ingest.workers
        home = self._context.settings.home
        with pixel_folder(home) as folder, DecodingPool(self._orders, workers) as pool, ThreadPoolExecutor(1) as publisher:

            def finish() -> None:
                place, bucket, futures = going.popleft()
                self._gather(bucket, futures)
                writing.append((place, publisher.submit(self._publish, bucket)))
                while len(writing) > 1:  # one bucket is written while the next are decoded
                    place, written = writing.popleft()
                    done[place] = written.result()

            for place, objects in sorted(buckets.items()):
                file = PixelFile(folder / f"{place}.npy", len(objects), self._context.settings.image.size)
                bucket = self._plan(known, _Bucket(partition_of(self._day, self._bits, place), objects, file))
                going.append((place, bucket, [pool.submit(batch, bucket.into(batch)) for batch in bucket.batches]))
                if len(going) > 1 + workers // 2:
                    finish()
            while going:
                finish()
            return done | {place: written.result() for place, written in writing}

    def _plan(self, known: "_Known", bucket: _Bucket) -> _Bucket:
        """What is known of a bucket, and what is to be looked at."""
        for row, pixels in known.rows(bucket.objects):
            bucket.rows[row.key] = row
            if pixels is not None:
                bucket.file.put(bucket.slots[row.key], pixels)
        batch: list[str] = []
        held = 0
        for o in bucket.objects:
            if o.key in bucket.rows:
                continue
            if o.size > self._max_bytes:
                detail = f"{o.size} bytes; at most {self._max_bytes} are allowed"
                bucket.rows[o.key] = Row(o.key, None, o.size, code="too_many_bytes", detail=detail, read=o.size)
                continue
            if batch and (len(batch) == _BATCH or held + o.size > _BATCH_BYTES):
                bucket.batches.append(batch)
                batch, held = [], 0
            batch.append(o.key)
            held += o.size
        if batch:
            bucket.batches.append(batch)
        return bucket

    def _gather(self, bucket: _Bucket, futures: Sequence["Future[Looked]"]) -> None:
        pending = set(futures)
        while pending:
            finished, pending = wait(pending, timeout=_TOLD_S, return_when="FIRST_EXCEPTION")
            for future in finished:
                future.result()
            self._tell()
        for future in futures:
            rows, _ = future.result()
            bucket.rows |= {row.key: row for row in rows}
            self.decoded += len(rows)

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told >= _TOLD_S and self.decoded:
            rate = self.decoded / (now - self._begun)
            self._context.log(f"{self._day}: {self.decoded} of at most {len(self._listed)} images decoded ({rate:.0f} a second)")
            self._told = now

    def _publish(self, bucket: _Bucket) -> tuple[ShardRef, pa.Table]:
        rows = [bucket.rows[o.key] for o in bucket.objects]
        facts = pa.Table.from_pylist([{name: getattr(row, name) for name in SCHEMA.names} for row in rows], SCHEMA)
        origins = {
            o.key: Origin(o.size, o.etag if row.read == o.size or not o.size else None, row.source_id, row.repair)
            for o, row in zip(bucket.objects, rows, strict=True)
        }
        ref = publish_shard(self._context, bucket.partition, self._recipe, facts, origins, bucket.file.finish())
        bucket.file.remove()
        return ref, facts


class _Known:
    """What the shards of earlier runs know: those that the day's newest manifest names, and those of runs that did not come that far."""

    def __init__(
        self, context: StageContext, day: date, bits: int, buckets: Mapping[int, Sequence[_Listed]], recipe: str, orders: Orders
    ) -> None:
        self._context, self._recipe, self._orders = context, recipe, orders
        self._by_partition: dict[str, list[Shard]] = defaultdict(list)
        self._by_key: dict[str, list[Shard]] = defaultdict(list)
        self._named: set[str] = set()
        self._open: dict[str, NDArray[np.uint8]] = {}
        if context.recompute:
            return
        named = _named_by_manifest(context, day)
        self._named = {ref.digest for ref in named}
        self._add([*named, *(partition_of(day, bits, place) for place in buckets)])
        if any(self._holder(o) is None for objects in buckets.values() for o in objects):  # perhaps cut otherwise, when there were less
            self._add([partition_of(day, other, place) for other in (bits - 1, bits + 1) if other >= 0 for place in range(1 << other)])

    def whole(self, partition: str, objects: Sequence[_Listed]) -> Shard | None:
        """The stored shard of these very objects, if there is one that can be used as it is."""
        for shard in self._by_partition.get(partition, []):
            same = len(shard.origins) == len(objects) and all(self._fits(shard, o) and not self._to_erase(shard, o.key) for o in objects)
            if same and shard.stands and self._kept(shard):
                return shard
        return None

    def rows(self, objects: Sequence[_Listed]) -> Iterator[tuple[Row, memoryview | None]]:
        """Rows that need no decoding, and the pixels of those that have some."""
        for o in objects:
            while (shard := self._holder(o)) is not None:
                row, place = shard.facts_of[o.key], shard.rows[o.key]
                erased_since = row.image_id in self._orders.erased
                try:
                    images = None if place is None or erased_since else self._opened(shard)
                except (ValueError, FileNotFoundError):  # damaged, or removed: what it held is decoded anew
                    for holders in self._by_key.values():
                        if shard in holders:
                            holders.remove(shard)
                    continue
                if erased_since:
                    row = Row(o.key, row.image_id, row.size, code=ERASED, detail=ERASED_DETAIL)
                origin = shard.origins[o.key]
                pixels = None if images is None else images[place].data.cast("B")
                yield replace(row, source_id=origin.source_id, repair=origin.repair, read=o.size), pixels
                break

    def _holder(self, o: _Listed) -> Shard | None:
        return next((shard for shard in self._by_key.get(o.key, ()) if self._fits(shard, o)), None)

    def _fits(self, shard: Shard, o: _Listed) -> bool:
        """Whether the shard's row is what decoding would give, or (of an image erased since) says which image it was."""
        origin = shard.origins.get(o.key)
        if origin is None or origin.etag is None or (origin.size, origin.etag) != (o.size, o.etag):
            return False
        if shard.recipe != self._recipe or self._orders.repairs.get(origin.source_id or "") != origin.repair:
            return False
        fact = shard.facts_of[o.key]
        return fact.code not in TRANSIENT and (fact.code != ERASED or fact.image_id in self._orders.erased)

    def _to_erase(self, shard: Shard, key: str) -> bool:
        fact = shard.facts_of[key]
        return fact.image_id in self._orders.erased and fact.code != ERASED

    def _opened(self, shard: Shard) -> NDArray[np.uint8]:
        """The pixels of a shard, of the few last used without reading."""
        found = self._open.get(shard.ref.digest)
        if found is None:
            while len(self._open) >= _OPEN:
                del self._open[next(iter(self._open))]
            found = self._open[shard.ref.digest] = shard.read_pixels()
        return found

    def _add(self, refs: Sequence[ShardRef | str]) -> None:
        for shard in find_shards(self._context, refs):
            self._by_partition[shard.ref.partition].append(shard)
            for key in shard.origins:
                self._by_key[key].append(shard)

    def _kept(self, shard: Shard) -> bool:
        """Make sure that housekeeping spares a shard that is used again; what the newest manifest names is safe."""
        if shard.ref.digest in self._named:
            return True
        try:
            self._context.artifacts.publish_again(shard.artifact, shard.artifact.info)
        except ArtifactMissingError:
            return False
        return True


def _named_by_manifest(context: StageContext, day: date) -> list[ShardRef]:
    manifest = context.artifacts.find("validated_manifest", day.isoformat())
    if manifest is None or "shards.json" not in manifest.files:
        return []
    try:
        return [ShardRef(*ref) for ref in manifest.json("shards.json")["shards"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []
