"""image_features: numeric measurements of each packed image."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

from pipeline_project.digests import canonical_json
from pipeline_project.imaging import FEATURE_NAMES, measure
from pipeline_project.ingest.packs import PackReader, open_pack
from pipeline_project.plots import bars
from pipeline_project.reuse import reusable
from pipeline_project.stage import StageContext, StepResult, Table
from pipeline_project.tables import frame_to_parquet, parquet_to_frame

_BATCH = 256


@reusable("image_features", inputs=["image_pack"])
def measure_images(context: StageContext, day: date) -> StepResult:
    """Measure each packed image. Payload: features.parquet (image_id and one column for each of `FEATURE_NAMES`)."""
    import pandas as pd

    pack = open_pack(context.artifacts, context.artifacts.latest("image_pack", day.isoformat()))
    manifest = context.artifacts.version("validated_manifest", pack.manifest, day.isoformat())
    frame = parquet_to_frame(manifest.read("manifest.parquet"))
    aspects = (frame["width"] / frame["height"]).tolist()
    rows = list(_measured(pack, aspects, context.settings.training.threads))
    features = pd.DataFrame(rows, columns=["image_id", *FEATURE_NAMES])
    artifact = context.artifacts.publish(
        "image_features",
        {
            "features.parquet": frame_to_parquet(features),
            "origin.json": canonical_json({"pack": pack.artifact.digest, "manifest": manifest.digest}),
        },
        partition=day.isoformat(),
    )
    summary = features.drop(columns="image_id").describe().T if len(features) else pd.DataFrame()
    table = [{"feature": str(name), **{str(k): round(float(v), 4) for k, v in row.items()}} for name, row in summary.iterrows()]
    means = {str(name): float(row["mean"]) for name, row in summary.iterrows()}
    return StepResult(
        artifact,
        {
            "images": len(features),
            "pack": pack.artifact.digest,
            "summary": Table(table),
            "means": bars(means, title=f"Feature means of {day}", y_label="mean"),
        },
    )


def _measured(pack: PackReader, aspects: Sequence[float], threads: int) -> Iterator[dict[str, Any]]:
    """A row an image, in the pack's order; a batch of pixels is in memory at a time."""
    with ThreadPoolExecutor(threads) as workers:
        for number, images in enumerate(pack.batches(_BATCH)):
            span = slice(number * _BATCH, number * _BATCH + len(images))
            found = workers.map(measure, images, aspects[span])
            yield from ({"image_id": image_id, **values} for image_id, values in zip(pack.image_ids[span], found, strict=True))
