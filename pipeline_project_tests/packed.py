"""Packs for tests of what reads them: published as ingest does, from pixels that a test chooses."""

from collections.abc import Sequence
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipeline_project.contracts import ManifestRow
from pipeline_project.digests import canonical_json
from pipeline_project.imaging import FEATURE_NAMES, measure
from pipeline_project.ingest.decoding.pixel_file import npy_header
from pipeline_project.ingest.decoding.shards import SCHEMA, Origin, partition_of, publish_shard
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact
from pipeline_project.tables import frame_to_parquet


def publish_pack(context: StageContext, day: str, manifest: Artifact, rows: Sequence[ManifestRow], pixels: NDArray[np.uint8]) -> Artifact:
    """The image_pack of a manifest with these rows and, row by row, these pixels ((n, S, S, 3) uint8), over one shard."""
    order = sorted(range(len(rows)), key=lambda i: rows[i].key)
    facts = [
        {
            **{n: getattr(rows[i], n) for n in SCHEMA.names if hasattr(rows[i], n)},
            "notes": "[]",
            "faces": None,
            "measured": [measure(pixels[i], rows[i].width / rows[i].height)[name] for name in FEATURE_NAMES],
            "code": None,
            "detail": None,
        }
        for i in order
    ]
    origins = {rows[i].key: Origin(rows[i].size, "etag", rows[i].image_id, None) for i in order}
    size = pixels.shape[1]
    data = npy_header(len(order), size) + np.ascontiguousarray(pixels[order]).tobytes()
    shard = publish_shard(
        context, partition_of(date.fromisoformat(day), 0, 0), "recipe", pa.Table.from_pylist(facts, SCHEMA), origins, data
    )
    places = {i: place for place, i in enumerate(order)}
    index = pd.DataFrame({"image_id": [row.image_id for row in rows], "shard": 0, "row": [places[i] for i in range(len(rows))]})
    about = {"version": 2, "manifest": manifest.digest, "size": size, "shards": [[shard.partition, shard.digest]]}
    payload = {"index.parquet": frame_to_parquet(index), "pack.json": canonical_json(about)}
    return context.artifacts.publish("image_pack", payload, partition=day)
