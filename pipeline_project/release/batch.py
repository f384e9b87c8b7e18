"""batch_predictions: the champion's predictions for every packed image of a day (R146)."""

from datetime import date

import numpy as np

from pipeline_project.digests import canonical_json
from pipeline_project.ingest.packs import open_pack
from pipeline_project.packaging.package import load_package
from pipeline_project.reuse import reusable
from pipeline_project.serving.documents import newest
from pipeline_project.stage import CheckOutcome, StageContext, StepResult, Table
from pipeline_project.tables import frame_to_parquet, parquet_to_frame

_BATCH = 64


def _champion(context: StageContext) -> str:
    document = newest(context.artifacts.bytes, "production")
    champion = next((r.package for r in document.routes if r.name == "champion"), None) if document else None
    if champion is None:
        raise ValueError("Production serves no package yet. Materialize deployed_endpoint first.")
    return champion


def _inputs(context: StageContext, day: date) -> dict[str, str]:
    return {"champion": _champion(context), "image_pack": context.artifacts.latest("image_pack", day.isoformat()).digest}


@reusable("batch_predictions", inputs=_inputs, settings=["training.threads"])
def predict_batch(context: StageContext, day: date) -> StepResult:
    """Predict the day's images with the package that production serves.

    Payload: predictions.parquet (image_id, predicted_class, confidence, a column p_<class> for each class), origin.json.

    Raises:
        ValueError: production serves nothing yet.
        ArtifactMissingError: the day has no image_pack.
    """
    import pandas as pd

    from pipeline_project.serving.engine import Engine

    champion = _champion(context)
    pack = open_pack(context.artifacts, context.artifacts.latest("image_pack", day.isoformat()))
    package = load_package(context.artifacts, champion, context.settings.trusted_signers)
    engine, classes = Engine(package, threads=context.settings.training.threads), package.manifest.classes
    parts = [engine.predict(pixels).probabilities for pixels in pack.batches(_BATCH)]
    probabilities = np.concatenate(parts) if parts else np.zeros((0, len(classes)), np.float32)
    frame = pd.DataFrame(np.round(probabilities.astype(np.float64), 6), columns=[f"p_{name}" for name in classes])
    frame.insert(0, "image_id", pack.image_ids)
    frame.insert(1, "predicted_class", [classes[i] for i in probabilities.argmax(axis=1)] if len(frame) else [])
    frame.insert(2, "confidence", np.round(probabilities.max(axis=1).astype(np.float64), 6) if len(frame) else [])
    artifact = context.artifacts.publish(
        "batch_predictions",
        {
            "predictions.parquet": frame_to_parquet(frame),
            "origin.json": canonical_json({"version": 1, "package": champion, "pack": pack.artifact.digest}),
        },
        partition=day.isoformat(),
    )
    counts = frame["predicted_class"].value_counts()
    return StepResult(
        artifact,
        {
            "images": len(frame),
            "package": champion,
            "pack": pack.artifact.digest,
            "mean_confidence": round(float(frame["confidence"].mean()), 4) if len(frame) else 0.0,
            "classes": Table([{"class": str(name), "images": int(count)} for name, count in counts.items()]),
        },
    )


def check_batch(context: StageContext, day: date) -> list[CheckOutcome]:
    """row_count: one prediction for each packed image."""
    artifact = context.artifacts.latest("batch_predictions", day.isoformat())
    rows = parquet_to_frame(artifact.read("predictions.parquet"))
    pack = context.artifacts.version("image_pack", artifact.json("origin.json")["pack"], day.isoformat())
    expected = open_pack(context.artifacts, pack).image_ids
    detail = f"{len(rows)} predictions for {len(expected)} images."
    return [CheckOutcome("row_count", rows["image_id"].tolist() == expected, detail)]
