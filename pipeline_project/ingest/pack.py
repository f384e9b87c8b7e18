"""image_pack: the day's pixels, exactly as the server will see them."""

import io
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import numpy as np
from numpy.typing import NDArray

from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.imaging import DecodeLimits, decode_image, to_pixels
from pipeline_project.imaging.decode import DECODE_SETTINGS
from pipeline_project.ingest.sources import open_source
from pipeline_project.plots import contact_sheet
from pipeline_project.reuse import reusable
from pipeline_project.stage import StageContext, StepResult
from pipeline_project.tables import parquet_to_frame


@reusable("image_pack", inputs=["validated_manifest"], settings=[*DECODE_SETTINGS, "image.size"])
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

    def work(key: str, image_id: str) -> NDArray[np.uint8]:
        data = source.read(key)
        if sha256_bytes(data) != image_id:
            raise ValueError(
                f"{key}: its bytes in {context.settings.data.source} changed after it was validated. "
                f"Materialize raw_images of {day} and what follows it again."
            )
        return to_pixels(decode_image(data, limits).image, size)

    pixels = np.zeros((len(frame), size, size, 3), np.uint8)
    with ThreadPoolExecutor(context.settings.training.threads) as workers:
        for row, image in enumerate(workers.map(work, frame["key"], frame["image_id"])):
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
        {"images": len(frame), "bytes": pixels.nbytes, "size": size, "manifest": manifest.digest, "contact_sheet": contact_sheet(sheets)},
    )
