"""Shards: the rows and pixels of a bucket of a day's objects, stored once under the digest of their contents.

A bucket is chosen by an object's key and the day's number of objects, so the same day is always cut alike. Beside the payload, which
depends on contents only, a shard says from which listed objects and by which recipe it was made: that is what later runs continue from.
"""

import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline_project.digests import canonical_json
from pipeline_project.imaging import FEATURE_NAMES
from pipeline_project.ingest.decoding.rows import Row
from pipeline_project.ingest.erasure import read_payload
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact, ArtifactMissingError, ArtifactStore
from pipeline_project.storage.overlapped import Overlapped

SHARD = "image_shard"
PIXELS, FACTS = "pixels.npy", "facts.parquet"
BUCKET = 256  # objects; about 38 MB at 224 pixels
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("image_id", pa.string()),
        ("size", pa.int64()),
        ("format", pa.string()),
        ("mode", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("notes", pa.string()),
        ("perceptual_hash", pa.string()),
        ("faces", pa.int64()),
        ("measured", pa.list_(pa.float64())),
        ("code", pa.string()),
        ("detail", pa.string()),
    ]
)
_OBJECTS = "objects.json"


@dataclass(frozen=True)
class ShardRef:
    """Names a shard: its partition ("<day>.<bits>-<bucket>") and digest."""

    partition: str
    digest: str


@dataclass(frozen=True)
class Origin:
    """What a row of a shard was made from: the object as listed (`etag` None: it changed while it was read), the SHA-256 of its bytes,
    and the store key of the repair that was taken instead of them."""

    size: int
    etag: str | None
    source_id: str | None
    repair: str | None


@dataclass(frozen=True)
class Shard:
    """A stored shard. `facts` has the columns of `SCHEMA`, sorted by key; `origins` has the same keys."""

    artifact: Artifact
    recipe: str
    facts: pa.Table
    origins: Mapping[str, Origin]

    @property
    def ref(self) -> ShardRef:
        """Its name."""
        return ShardRef(self.artifact.partition or "", self.artifact.digest)

    @cached_property
    def facts_of(self) -> dict[str, Row]:
        """{key: its row}."""
        return {fact["key"]: Row(**fact) for fact in self.facts.to_pylist()}

    @cached_property
    def rows(self) -> dict[str, int | None]:
        """{key: the row of its pixels}, None for a reject."""
        return rows_of(self.facts)

    def read_pixels(self) -> NDArray[np.uint8]:
        """(n, S, S, 3) uint8, a row an object, checked against the digest; zeros for rejects and erased images.

        Raises:
            ValueError, FileNotFoundError: the shard is not whole.
        """
        return pixels_of(read_payload(self.artifact, PIXELS))

    @property
    def stands(self) -> bool:
        """Whether its files are there; their bytes are not looked at."""
        return stands(self.artifact)


def bits_for(objects: int) -> int:
    """How many leading bits of a key's hash name its bucket."""
    return max(0, (objects - 1) // BUCKET).bit_length()


def bucket_of(key: str, bits: int) -> int:
    """The bucket of a key, 0 to 2^bits - 1."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> (64 - bits) if bits else 0


def partition_of(day: date, bits: int, bucket: int) -> str:
    """The partition of a bucket's shards."""
    return f"{day.isoformat()}.{bits:02d}-{bucket:05x}"


def publish_shard(
    context: StageContext, partition: str, recipe: str, facts: pa.Table, origins: Mapping[str, Origin], pixels: Path | bytes
) -> ShardRef:
    """Store a bucket's rows (sorted by key) and, in the same order, their pixels: a .npy file, or its bytes; zeros for rejects."""
    buffer = io.BytesIO()
    pq.write_table(facts, buffer, compression="zstd")
    objects = [[key, o.size, o.etag, o.source_id, o.repair] for key, o in origins.items()]
    artifact = context.artifacts.publish(
        SHARD,
        {PIXELS: pixels, FACTS: buffer.getvalue()},
        partition=partition,
        sidecars={_OBJECTS: canonical_json({"version": 1, "recipe": recipe, "objects": objects})},
    )
    return ShardRef(partition, artifact.digest)


def find_shards(context: StageContext, refs: Sequence[ShardRef | str]) -> list[Shard]:
    """The stored shards among these: a version for a reference, the newest for a partition. Missing and damaged ones are left out."""

    def find(ref: ShardRef | str) -> Shard | None:
        try:
            if isinstance(ref, str):
                artifact = context.artifacts.find(SHARD, ref)
            else:
                artifact = context.artifacts.version(SHARD, ref.digest, ref.partition)
            return None if artifact is None else _open(artifact)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    return [shard for shard in Overlapped().map(find, refs) if shard is not None]


def _open(artifact: Artifact) -> Shard:
    facts = pq.read_table(io.BytesIO(artifact.read(FACTS)))
    made: dict[str, Any] = json.loads(artifact.sidecar(_OBJECTS))
    origins = {key: Origin(size, etag, source_id, repair) for key, size, etag, source_id, repair in made["objects"]}
    return Shard(artifact, str(made["recipe"]), facts, origins)


def facts_of(artifacts: ArtifactStore, ref: ShardRef) -> pa.Table:
    """A shard's facts, with the columns of `SCHEMA`; row by row as its pixels lie.

    Raises:
        ValueError, FileNotFoundError: they are not whole, or gone.
    """
    return pq.read_table(io.BytesIO(artifacts.version(SHARD, ref.digest, ref.partition).read(FACTS)))


def measurements_of(artifact: Artifact) -> NDArray[np.float64]:
    """(n, F): the measurements of a shard's objects, NaN for rejects.

    Raises:
        ValueError, FileNotFoundError: its facts are not whole.
    """
    measured = pq.read_table(io.BytesIO(artifact.read(FACTS)), columns=["measured"])["measured"].to_pylist()
    nothing = [math.nan] * len(FEATURE_NAMES)
    return np.array([values or nothing for values in measured], np.float64).reshape(len(measured), -1)


def rows_of(facts: pa.Table) -> dict[str, int | None]:
    """{key: its row of the pixels, None where it has none} of a shard's facts."""
    codes = zip(facts["key"].to_pylist(), facts["code"].to_pylist(), strict=True)
    return {key: row if code is None else None for row, (key, code) in enumerate(codes)}


def stands(artifact: Artifact) -> bool:
    """Whether a shard's payload files are there."""
    return all(artifact.store.exists(f"{artifact.prefix}{file}") for file in artifact.files)


def shards_stand(context: StageContext, artifact: Artifact) -> bool:
    """Whether every shard that an artefact names in its shards.json (or pack.json) is there: the condition for using it again."""
    named = artifact.json("shards.json" if "shards.json" in artifact.files else "pack.json")["shards"]

    def there(ref: Sequence[str]) -> bool:
        try:
            return stands(context.artifacts.version(SHARD, ref[1], ref[0]))
        except ArtifactMissingError:
            return False

    return all(Overlapped().map(there, named))


def pixels_of(data: bytes) -> NDArray[np.uint8]:
    """The array of a shard's pixel file, without a copy. Raises `ValueError` where the bytes are no such array."""
    file = io.BytesIO(data)
    np.lib.format.read_magic(file)
    shape, fortran, kind = np.lib.format.read_array_header_1_0(file)
    if fortran or kind != np.uint8 or len(shape) != 4:
        raise ValueError(f"no array of images: {kind}, shape {shape}")
    return np.frombuffer(data, np.uint8, offset=file.tell()).reshape(shape)
