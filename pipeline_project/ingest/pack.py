"""image_pack and image_features: the day's pixels, exactly as the server will see them, and their measurements."""

import io
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import numpy as np
from numpy.typing import NDArray

from pipeline_project.digests import canonical_json
from pipeline_project.imaging import FEATURE_NAMES, DecodeLimits, decode_image, measure, to_pixels
from pipeline_project.ingest.sources import open_source
from pipeline_project.plots import bars, contact_sheet
from pipeline_project.stage import StageContext, StepResult, Table
from pipeline_project.tables import frame_to_parquet, parquet_to_frame


def pack_images(context: StageContext, day: date) -> StepResult:
    """Decode and resize the accepted images of a day into one uint8 array, in the manifest's order.

    Payload: pixels.npy ((N, S, S, 3) uint8, memory-mappable), rows.json (image ids in order, the manifest's digest, the size).

    Raises:
        ValueError: an image's bytes changed since it was validated.
    """
    manifest = context.artifacts.latest("validated_manifest", day.isoformat())
    frame = parquet_to_frame(manifest.read("manifest.parquet"))
    source, size = open_source(context.settings), context.settings.image.size
    limits = DecodeLimits.from_settings(context.settings.ingest)

    def work(key: str) -> NDArray[np.uint8]:
        return to_pixels(decode_image(source.read(key), limits).image, size)

    pixels = np.zeros((len(frame), size, size, 3), np.uint8)
    with ThreadPoolExecutor(context.settings.training.threads) as workers:
        for row, image in enumerate(workers.map(work, frame["key"])):
            pixels[row] = image
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    rows = {"manifest": manifest.digest, "size": size, "image_ids": frame["image_id"].tolist()}
    artifact = context.artifacts.publish(
        "image_pack", {"pixels.npy": buffer.getvalue(), "rows.json": canonical_json(rows)}, partition=day.isoformat()
    )
    sheets = {label: list(pixels[np.flatnonzero((frame["label"] == label).to_numpy())[:8]]) for label in sorted(frame["label"].unique())}
    return StepResult(
        artifact,
        {"images": len(frame), "bytes": pixels.nbytes, "size": size, "contact_sheet": contact_sheet(sheets)},
    )


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
        {"images": len(features), "summary": Table(table), "means": bars(means, title=f"Feature means of {day}", y_label="mean")},
    )
