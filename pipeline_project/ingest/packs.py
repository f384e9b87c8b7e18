"""Reading packed pixels: an index over the shards of a day, opened by memory maps, so that nothing is copied and nothing read in vain."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline_project.imaging import FEATURE_NAMES
from pipeline_project.ingest.decoding.shards import PIXELS, SHARD, ShardRef, measurements_of
from pipeline_project.ingest.erasure import erased, verify_payload
from pipeline_project.storage import Artifact, ArtifactStore
from pipeline_project.tables import parquet_to_frame

PACK_VERSION = 2


class ErasedImagesError(ValueError):
    """A pack holds images that were erased since; `image_ids` names those that were asked for."""

    def __init__(self, partition: str | None, image_ids: list[str]) -> None:
        named = ", ".join(image_id[:12] for image_id in image_ids[:3]) + (" and others" if len(image_ids) > 3 else "")
        super().__init__(
            f"image_pack of {partition}: {len(image_ids)} of its images were erased ({named}). "
            f"Materialize validated_manifest and image_pack of {partition} again."
        )
        self.image_ids = image_ids


@dataclass(frozen=True)
class PackReader:
    """The pixels of an image_pack, row by row in the manifest's order.

    `manifest` is the digest of the validated_manifest that it packs, `size` the side of its square images in pixels, `erased` those of
    its images that may not be read any more.
    """

    artifacts: ArtifactStore
    artifact: Artifact
    manifest: str
    size: int
    shards: tuple[ShardRef, ...]
    image_ids: list[str]
    erased: frozenset[str]
    _shard_of: NDArray[np.int64]
    _row_in: NDArray[np.int64]
    _open: dict[int, NDArray[np.uint8]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.image_ids)

    def gather(self, rows: NDArray[np.integer]) -> NDArray[np.uint8]:
        """(n, S, S, 3) uint8 RGB pixels of these rows, in this order; only the rows asked for are read.

        Raises:
            ErasedImagesError: one of them was erased.
            FileNotFoundError: a shard is gone.
        """
        rows = np.asarray(rows, np.intp)
        if self._erased_rows.size and (gone := np.intersect1d(rows, self._erased_rows)).size:
            raise ErasedImagesError(self.artifact.partition, [self.image_ids[row] for row in gone])
        found = np.empty((len(rows), self.size, self.size, 3), np.uint8)
        shards = self._shard_of[rows]
        for shard in np.unique(shards):
            places = np.flatnonzero(shards == shard)
            inside = self._row_in[rows[places]]
            order = np.argsort(inside, kind="stable")  # as the file lies
            found[places[order]] = self._pixels(int(shard))[inside[order]]
        return found

    def batches(self, count: int = 256) -> Iterator[NDArray[np.uint8]]:
        """All rows in order, `count` at a time."""
        for start in range(0, len(self), count):
            yield self.gather(np.arange(start, min(start + count, len(self))))

    def measurements(self) -> NDArray[np.float64]:
        """(N, F) measurements, a column for each of `imaging.FEATURE_NAMES`, taken when the images were decoded.

        Raises:
            ValueError, FileNotFoundError: a shard's facts are not whole.
        """
        found = np.full((len(self), len(FEATURE_NAMES)), np.nan)
        for number, ref in enumerate(self.shards):
            measured = measurements_of(self.artifacts.version(SHARD, ref.digest, ref.partition))
            rows = np.flatnonzero(self._shard_of == number)
            found[rows] = measured[self._row_in[rows]]
        return found

    def verify(self) -> list[str]:
        """Compare every shard with its digest. Returns what is wrong, for people; nothing where all is well."""
        problems = []
        for number, ref in enumerate(self.shards):
            try:
                verify_payload(self.artifacts.version(SHARD, ref.digest, ref.partition))
                held = self._row_in[self._shard_of == number]
                if held.size and held.max() >= len(self._pixels(number)):
                    problems.append(f"shard {ref.partition}: holds {len(self._pixels(number))} images, the index names row {held.max()}")
            except (ValueError, FileNotFoundError) as error:
                problems.append(f"shard {ref.partition}: {error}")
        return problems

    @cached_property
    def _erased_rows(self) -> NDArray[np.intp]:
        return np.flatnonzero(np.isin(np.asarray(self.image_ids, dtype=str), sorted(self.erased))) if self.erased else np.empty(0, np.intp)

    def _pixels(self, shard: int) -> NDArray[np.uint8]:
        if shard not in self._open:
            ref = self.shards[shard]
            path = self.artifacts.version(SHARD, ref.digest, ref.partition).path(PIXELS)
            self._open[shard] = np.load(path, mmap_mode="r", allow_pickle=False)
        return self._open[shard]


def open_pack(artifacts: ArtifactStore, artifact: Artifact) -> PackReader:
    """Read an image_pack's index.

    Raises:
        ValueError: the pack was made by an older version of this program, or its bytes were changed.
    """
    if "pack.json" not in artifact.files or (about := artifact.json("pack.json"))["version"] != PACK_VERSION:
        raise ValueError(
            f"image_pack of {artifact.partition}: version {artifact.digest[:24]} was made by another version of this program. "
            f"Materialize raw_images, validated_manifest and image_pack of {artifact.partition} again."
        )
    index = parquet_to_frame(artifact.read("index.parquet"))
    ids = index["image_id"].tolist()
    return PackReader(
        artifacts,
        artifact,
        about["manifest"],
        about["size"],
        tuple(ShardRef(*ref) for ref in about["shards"]),
        ids,
        erased(artifacts.bytes) & frozenset(ids),
        index["shard"].to_numpy(np.int64),
        index["row"].to_numpy(np.int64),
    )
