"""image_pack: which row of which shard holds each accepted image of a day, exactly as the server will see it. No pixel is copied."""

from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from pipeline_project.digests import canonical_json
from pipeline_project.ingest.decoding import ShardRef, shards_stand
from pipeline_project.ingest.decoding.shards import facts_of
from pipeline_project.ingest.packs import PACK_VERSION, open_pack
from pipeline_project.plots import contact_sheet
from pipeline_project.reuse import reusable
from pipeline_project.stage import StageContext, StepResult
from pipeline_project.storage import Artifact
from pipeline_project.storage.overlapped import Overlapped
from pipeline_project.tables import frame_to_parquet, parquet_to_frame

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 8  # images of each class


@reusable("image_pack", inputs=["validated_manifest"], sound=shards_stand)
def pack_images(context: StageContext, day: date) -> StepResult:
    """Say where the pixels of each accepted image lie, in the manifest's order.

    Payload: index.parquet (image_id, shard, row), pack.json (the manifest's digest, the size S, the shards by partition and digest).
    The pixels themselves are in the shards that validated_manifest made: (n, S, S, 3) uint8, memory-mappable.

    Raises:
        ArtifactMissingError: a shard is gone.
    """
    manifest = context.artifacts.latest("validated_manifest", day.isoformat())
    frame = parquet_to_frame(manifest.read("manifest.parquet"))
    named = manifest.json("shards.json")
    refs = [ShardRef(*ref) for ref in named["shards"]]
    index = _index(context, day, frame, refs)
    about = {"version": PACK_VERSION, "manifest": manifest.digest, "size": named["size"], "shards": named["shards"]}
    artifact = context.artifacts.publish(
        "image_pack", {"index.parquet": frame_to_parquet(index), "pack.json": canonical_json(about)}, partition=day.isoformat()
    )
    size = int(named["size"])
    return StepResult(
        artifact,
        {
            "images": len(index),
            "bytes": len(index) * size * size * 3,
            "shards": len(refs),
            "size": size,
            "manifest": manifest.digest,
            "contact_sheet": contact_sheet(_sheets(context, artifact, frame)),
        },
    )


def _index(context: StageContext, day: date, frame: "pd.DataFrame", refs: list[ShardRef]) -> "pd.DataFrame":
    """image_id, shard and row of each image of the manifest. Raises `ValueError` where a shard lacks one."""
    import pandas as pd

    places: dict[tuple[str, str], tuple[int, int]] = {}
    for number, facts in enumerate(Overlapped().map(lambda ref: facts_of(context.artifacts, ref), refs)):
        told = (facts[name].to_pylist() for name in ("key", "image_id", "code"))
        for row, (key, image_id, code) in enumerate(zip(*told, strict=True)):
            if code is None:
                places[key, image_id] = number, row
    wanted = list(zip(frame["key"], frame["image_id"], strict=True))
    lacking = [key for key, image_id in wanted if (key, image_id) not in places]
    if lacking:
        raise ValueError(f"{lacking[0]}: accepted, but its pixels are in no shard of {day} ({len(lacking)} such images). {_again(day)}")
    found = [places[place] for place in wanted]
    columns = {"image_id": frame["image_id"].tolist(), "shard": [shard for shard, _ in found], "row": [row for _, row in found]}
    return pd.DataFrame(columns).astype({"image_id": str, "shard": np.int64, "row": np.int64})


def _again(day: date) -> str:
    return f"Materialize validated_manifest of {day} with the tag recompute=true, then image_pack."


def _sheets(context: StageContext, artifact: Artifact, frame: "pd.DataFrame") -> dict[str, list[np.ndarray]]:
    pack = open_pack(context.artifacts, artifact)
    labels = frame["label"].to_numpy()
    return {label: list(pack.gather(np.flatnonzero(labels == label)[:_SHOWN])) for label in sorted(set(labels))}
