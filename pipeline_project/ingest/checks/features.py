"""Checks of image_features."""

import math
from datetime import date

import numpy as np

from pipeline_project.imaging import FEATURE_NAMES
from pipeline_project.ingest.day_drift import check_feature_drift
from pipeline_project.stage import CheckOutcome, StageContext, Table
from pipeline_project.tables import parquet_to_frame


def check_features(context: StageContext, day: date) -> list[CheckOutcome]:
    """ranges: every feature finite and inside what its definition allows; feature_drift: distributed as on the days before."""
    frame = parquet_to_frame(context.artifacts.latest("image_features", day.isoformat()).read("features.parquet")).astype(
        dict.fromkeys(FEATURE_NAMES, float)
    )
    ingest = context.settings.ingest
    longest = math.log2(max(2, ingest.max_pixels / ingest.min_side**2))  # of all images that ingest accepts
    low = dict.fromkeys(FEATURE_NAMES, 0.0) | {"aspect": -longest}
    high = dict.fromkeys(FEATURE_NAMES, 1.0) | {"entropy": 6.0, "aspect": longest, "sharpness": 4.0}
    bad = [name for name in FEATURE_NAMES if not np.isfinite(frame[name]).all() or not frame[name].between(low[name], high[name]).all()]
    detail = f"all values of {len(frame)} images are in range."
    if bad:
        told = ", ".join(f"{n} ({frame[n].min():.4g} to {frame[n].max():.4g}; allowed {low[n]:.4g} to {high[n]:.4g})" for n in bad)
        detail = f"{day}: out of range: {told}. Materialize image_pack and image_features of the day again; look at its contact sheet."
    rows = [{"feature": name, "min": float(frame[name].min()), "max": float(frame[name].max())} for name in FEATURE_NAMES if len(frame)]
    return [CheckOutcome("ranges", not bad, detail, {"ranges": Table(rows)}), check_feature_drift(context, day)]
