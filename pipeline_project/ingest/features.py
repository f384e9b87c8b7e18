"""image_features: numeric measurements of each packed image."""

from datetime import date

import numpy as np

from pipeline_project.digests import canonical_json
from pipeline_project.imaging import FEATURE_NAMES, measure
from pipeline_project.plots import bars
from pipeline_project.reuse import reusable
from pipeline_project.stage import StageContext, StepResult, Table
from pipeline_project.tables import frame_to_parquet, parquet_to_frame


@reusable("image_features", inputs=["image_pack"])
def measure_images(context: StageContext, day: date) -> StepResult:
    """Measure each packed image. Payload: features.parquet (image_id and one column for each of `FEATURE_NAMES`)."""
    import pandas as pd

    pack = context.artifacts.latest("image_pack", day.isoformat())
    manifest = context.artifacts.version("validated_manifest", pack.json("rows.json")["manifest"], day.isoformat())
    frame = parquet_to_frame(manifest.read("manifest.parquet"))
    pixels = np.load(pack.path("pixels.npy"), mmap_mode="r", allow_pickle=False)
    aspects = (frame["width"] / frame["height"]).tolist()
    rows = [
        {"image_id": image_id, **measure(image, aspect)} for image_id, image, aspect in zip(frame["image_id"], pixels, aspects, strict=True)
    ]
    features = pd.DataFrame(rows, columns=["image_id", *FEATURE_NAMES])
    artifact = context.artifacts.publish(
        "image_features",
        {"features.parquet": frame_to_parquet(features), "origin.json": canonical_json({"pack": pack.digest, "manifest": manifest.digest})},
        partition=day.isoformat(),
    )
    summary = features.drop(columns="image_id").describe().T if len(features) else pd.DataFrame()
    table = [{"feature": str(name), **{str(k): round(float(v), 4) for k, v in row.items()}} for name, row in summary.iterrows()]
    means = {str(name): float(row["mean"]) for name, row in summary.iterrows()}
    return StepResult(
        artifact,
        {
            "images": len(features),
            "pack": pack.digest,
            "summary": Table(table),
            "means": bars(means, title=f"Feature means of {day}", y_label="mean"),
        },
    )
