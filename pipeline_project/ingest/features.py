"""image_features: numeric measurements of each packed image."""

from datetime import date

import numpy as np

from pipeline_project.digests import canonical_json
from pipeline_project.imaging import FEATURE_NAMES
from pipeline_project.ingest.packs import open_pack
from pipeline_project.reuse import reusable
from pipeline_project.stage import StageContext, StepResult, Table
from pipeline_project.tables import frame_to_parquet


@reusable("image_features", inputs=["image_pack"])
def measure_images(context: StageContext, day: date) -> StepResult:
    """The measurements of each packed image, which were taken when it was decoded.

    Payload: features.parquet (image_id and one column for each of `FEATURE_NAMES`), origin.json (digests of pack and manifest).
    """
    import pandas as pd

    pack = open_pack(context.artifacts, context.artifacts.latest("image_pack", day.isoformat()))
    features = pd.DataFrame(pack.measurements(), columns=list(FEATURE_NAMES))
    features.insert(0, "image_id", np.array(pack.image_ids, dtype=object))
    artifact = context.artifacts.publish(
        "image_features",
        {
            "features.parquet": frame_to_parquet(features),
            "origin.json": canonical_json({"pack": pack.artifact.digest, "manifest": pack.manifest}),
        },
        partition=day.isoformat(),
    )
    summary = features.drop(columns="image_id").describe().T if len(features) else pd.DataFrame()
    table = [{"feature": str(name), **{str(k): round(float(v), 4) for k, v in row.items()}} for name, row in summary.iterrows()]
    return StepResult(artifact, {"images": len(features), "pack": pack.artifact.digest, "summary": Table(table)})
