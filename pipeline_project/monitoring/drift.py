"""The drift report of a day (R171-R173): inputs by Evidently, predicted classes by KL divergence, the model's features by MMD."""

import base64
import binascii
import io
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.monitoring.alerts import fault, raise_alert
from pipeline_project.monitoring.data_drift import DataDrift, judge_data_drift, training_measurements, usable
from pipeline_project.monitoring.predictions import answered, read_predictions
from pipeline_project.monitoring.tracking import log_report
from pipeline_project.packaging.package import LoadedPackage, PackageError, load_package
from pipeline_project.plots import bars, contact_sheet
from pipeline_project.reuse import reusable
from pipeline_project.stage import Picture, StageContext, StepResult, Table
from pipeline_project.statistics.drift import class_drift, maximum_mean_discrepancy
from pipeline_project.storage import Artifact, ArtifactMissingError
from pipeline_project.tables import frame_to_parquet
from pipeline_project.trust.signing import UntrustedError

if TYPE_CHECKING:
    import pandas as pd

HTML_FILE = "evidently.html"
_SEED = 20_201
_NEIGHBOURS = 5
_GALLERY = 8
_MIN_REFERENCE = 30

MEASURED = "measured"
TOO_FEW = "too_few"
UNAVAILABLE = "unavailable"


def _complete(_: StageContext, report: Artifact) -> bool:
    """Whether nothing was out of reach when a stored report was made: neither a package or its data, nor MLflow."""
    found = report.json("drift.json")
    parts = [found["data"], *(package["prediction"] for package in found["packages"].values())]
    return bool(report.info["mlflow_run_id"]) and all(part["status"] != UNAVAILABLE for part in parts)


def _inputs(context: StageContext, day: date) -> dict[str, str]:
    """The rows that the report is about: our own probes, which every deployment adds to the log, do not make it anew."""
    context.artifacts.latest("prediction_log", day.isoformat())
    return {"answered requests": sha256_bytes(frame_to_parquet(answered(read_predictions(context.artifacts, [day], "production"))))}


@reusable(
    "drift_report",
    inputs=_inputs,
    settings=[f"monitoring.{name}" for name in ("drift_share", "kl_divergence", "min_predictions", "significance")],
    sound=_complete,
)
def report_drift(context: StageContext, day: date) -> StepResult:
    """Compare the answered requests of a day in production with what the served packages were trained on (asset drift_report).

    Below `monitoring.min_predictions` a part says `too_few` and gives no verdict (D11). Where a package or its dataset cannot be read a
    part says `unavailable` and why, and an alert is raised (R184).

    Payload: drift.json
        {day, predictions, min_predictions, status, data_drift_detected, drift_share (None without a verdict), drift_detected,
        data: {status, detail, measured, dataset, reference_rows, detected, drift_share, columns: {name: {psi, threshold, drifted}}},
        packages: {digest: {predictions, routes, prediction: {status, kl, p_value, threshold, detected, current, reference},
        feature: {status, mmd_squared, p_value, detected}}}}.
    Sidecar: evidently.html, where there is a verdict on the data.
    """
    settings = context.settings.monitoring
    rows = answered(read_predictions(context.artifacts, [day], "production"))
    packages: dict[str, Any] = {}
    loaded: dict[str, LoadedPackage] = {}
    for digest, part in rows.groupby("package", sort=True):
        packages[str(digest)], found = _judge_package(context, str(digest), part)
        if found is not None:
            loaded[str(digest)] = found
    data, evidently = _judge_data(context, rows, loaded)
    detected = data["detected"]
    kl = [p["prediction"]["kl"] for p in packages.values() if p["prediction"].get("kl") is not None]
    parts = [data, *(p[kind] for p in packages.values() for kind in ("prediction", "feature"))]
    report = {
        "day": day.isoformat(),
        "predictions": len(rows),
        "min_predictions": settings.min_predictions,
        "status": data["status"],
        "data_drift_detected": detected,
        "drift_share": data["drift_share"],
        "drift_detected": any(part["detected"] for part in parts),
        "data": data,
        "packages": packages,
    }
    payload = canonical_json(report)
    numbers: dict[str, float | None] = {
        "data_drift_detected": None if detected is None else float(detected),
        "drift_share": data["drift_share"],
        "kl_divergence": max(kl, default=None),
        "num_predictions": float(len(rows)),
    }
    run_id = log_report(context, f"drift-{day}", sha256_bytes(payload), numbers, {"day": day.isoformat(), "kind": "drift"})
    artifact = context.artifacts.publish(
        "drift_report",
        {"drift.json": payload},
        partition=day.isoformat(),
        sidecars={HTML_FILE: evidently.html} if evidently else {},
        info={**numbers, "status": data["status"], "data_drift_detected": detected, "mlflow_run_id": run_id},
    )
    for name, part in {"drift_data": data, **{f"package_{digest[:12]}": p["prediction"] for digest, p in packages.items()}}.items():
        if part["status"] == UNAVAILABLE:
            raise_alert(context.artifacts.bytes, day, fault(name, part["detail"]))
    metadata: dict[str, Any] = {
        "status": _verdict_in_words(report),
        "predictions": len(rows),
        "drift_share": "no verdict" if data["drift_share"] is None else data["drift_share"],
        "data_drift_detected": "no verdict" if detected is None else detected,
        "models": Table([_package_row(digest, p) for digest, p in packages.items()]),
        "mlflow_run_id": run_id or "not logged",
    }
    if evidently:
        metadata["evidently_report"] = f"{artifact.uri}sidecars/{HTML_FILE}"
        metadata["psi"] = bars(
            {name: c.psi for name, c in evidently.columns.items()}, title=f"PSI of {day}", y_label="PSI", threshold=settings.drift_share
        )
    gallery = _gallery(rows, loaded)
    if gallery is not None:
        metadata["what_moved"] = gallery
    return StepResult(artifact, metadata)


def _judge_data(
    context: StageContext, rows: "pd.DataFrame", loaded: Mapping[str, LoadedPackage]
) -> tuple[dict[str, Any], DataDrift | None]:
    """Drift of the inputs against the training images of the package that answered most requests."""
    settings = context.settings.monitoring
    current = usable(rows)
    data: dict[str, Any] = {"status": TOO_FEW, "detail": "", "measured": len(current), "detected": None, "drift_share": None, "columns": {}}
    if len(current) < settings.min_predictions:
        data["detail"] = f"{len(current)} measured requests; a verdict needs {settings.min_predictions}"
        return data, None
    served = [digest for digest in rows["package"].value_counts().index if digest in loaded]
    if not served:
        return data | {"status": UNAVAILABLE, "detail": "no served package can be read, so its training data is not known"}, None
    dataset = loaded[served[0]].manifest.dataset_version
    try:
        reference = training_measurements(context.artifacts, dataset)
    except (ArtifactMissingError, ValueError) as error:
        return data | {"status": UNAVAILABLE, "detail": f"training data of {served[0][:12]}: {error}"}, None
    drift = judge_data_drift(
        reference,
        current,
        threshold=settings.drift_share,
        drift_share=settings.drift_share,
        significance=settings.significance,
        seed=_SEED,
    )
    columns = {name: {"psi": c.psi, "threshold": c.threshold, "drifted": c.drifted} for name, c in drift.columns.items()}
    verdict = {"status": MEASURED, "detected": drift.detected, "drift_share": drift.share, "columns": columns}
    return data | verdict | {"dataset": dataset, "reference_rows": len(reference)}, drift


def _judge_package(context: StageContext, digest: str, rows: "pd.DataFrame") -> tuple[dict[str, Any], LoadedPackage | None]:
    """Drift of one package's predictions and features."""
    settings = context.settings.monitoring
    found: dict[str, Any] = {"predictions": len(rows), "routes": sorted(rows["route"].unique())}
    package = None
    try:
        package = load_package(context.artifacts, digest, context.settings.trusted_signers)
        problem = {"status": TOO_FEW, "detail": f"{len(rows)} predictions; a verdict needs {settings.min_predictions}", "detected": None}
    except (PackageError, UntrustedError) as error:
        problem = {"status": UNAVAILABLE, "detail": str(error), "detected": None}
    if package is None or len(rows) < settings.min_predictions:
        return found | {"prediction": problem, "feature": problem}, package
    return found | {"prediction": _judge_classes(context, package, rows), "feature": _judge_features(context, package, rows)}, package


def _judge_classes(context: StageContext, package: LoadedPackage, rows: "pd.DataFrame") -> dict[str, Any]:
    """KL divergence of predicted classes from the training distribution (R172): drift when large and not by chance (D11)."""
    settings = context.settings.monitoring
    classes = package.manifest.classes
    counts = rows["predicted_class"].value_counts().reindex(classes, fill_value=0).to_numpy()
    if counts.sum() == 0:
        return {"status": UNAVAILABLE, "detail": "the log names classes that the package does not have", "detected": None}
    drift = class_drift(counts, package.manifest.training_class_shares, seed=_SEED)
    return {
        "status": MEASURED,
        "kl": round(drift.kl_divergence, 6),
        "p_value": round(drift.p_value, 6),
        "threshold": settings.kl_divergence,
        "detected": drift.kl_divergence > settings.kl_divergence and drift.p_value < settings.significance,
        "current": {name: int(count) for name, count in zip(classes, counts, strict=True)},
        "reference": {name: round(share, 6) for name, share in zip(classes, package.manifest.training_class_shares, strict=True)},
    }


def _judge_features(context: StageContext, package: LoadedPackage, rows: "pd.DataFrame") -> dict[str, Any]:
    """MMD of the pooled features from the package's reference, the validation images as this model saw them."""
    settings = context.settings.monitoring
    reference = package.reference.features.astype(np.float64)
    features, _ = _features(rows, reference.shape[1])
    if len(features) < settings.min_predictions or len(reference) < _MIN_REFERENCE:
        needs = f"a verdict needs {settings.min_predictions} against {_MIN_REFERENCE}"
        detail = f"{len(features)} feature vectors against {len(reference)} of reference; {needs}"
        return {"status": TOO_FEW, "detail": detail, "detected": None}
    permutations = max(200, int(np.ceil(4 / settings.significance)))
    drift = maximum_mean_discrepancy(reference, features, seed=_SEED, permutations=permutations)
    return {
        "status": MEASURED,
        "mmd_squared": round(drift.mmd_squared, 5),
        "p_value": round(drift.p_value, 6),
        "rows": drift.current_rows,
        "detected": drift.p_value < settings.significance,
    }


def _features(rows: "pd.DataFrame", width: int) -> tuple[NDArray[np.float64], "pd.DataFrame"]:
    """Feature vectors (N, width) of the rows that have finite ones of this width, and those rows."""
    fits = [vector is not None and len(vector) == width and bool(np.isfinite(vector).all()) for vector in rows["features"]]
    kept = rows[fits]
    return (np.stack([np.asarray(v, np.float64) for v in kept["features"]]) if len(kept) else np.empty((0, width))), kept


def _gallery(rows: "pd.DataFrame", loaded: Mapping[str, LoadedPackage]) -> Picture | None:
    """The requests furthest from the reference in the model's feature space that have a thumbnail, by predicted class."""
    far: list[tuple[float, str, NDArray[np.uint8]]] = []
    for digest, package in loaded.items():
        reference = package.reference.features.astype(np.float64)
        shown = rows[(rows["package"] == digest) & rows["thumbnail"].notna()]
        features, shown = _features(shown, reference.shape[1])
        if not len(shown) or not len(reference):
            continue
        distance = _distance(features, reference)
        for index in np.argsort(-distance)[: 4 * _GALLERY]:
            pixels = _pixels(shown["thumbnail"].iloc[int(index)])
            if pixels is not None:
                far.append((float(distance[index]), shown["predicted_class"].iloc[int(index)], pixels))
    sheets: dict[str, list[NDArray[np.uint8]]] = {}
    for _, predicted, pixels in sorted(far, key=lambda item: -item[0])[: 3 * _GALLERY]:
        row = sheets.setdefault(predicted, [])
        if len(row) < _GALLERY:
            row.append(pixels)
    return contact_sheet(sheets) if sheets else None


def _distance(features: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean distance of each feature vector to its nearest reference vectors, features scaled by the reference's spread."""
    scale = reference.std(axis=0) + 1e-6
    a, b = features / scale, reference / scale
    squared = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T, 0)
    nearest = np.partition(squared, min(_NEIGHBOURS, len(b)) - 1, axis=1)[:, :_NEIGHBOURS]
    return np.asarray(np.sqrt(nearest).mean(axis=1))


def _pixels(thumbnail: str) -> NDArray[np.uint8] | None:
    """The pixels of a logged thumbnail (base64 of a picture file), or None when it is damaged."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(base64.b64decode(thumbnail.rpartition(",")[2], validate=True)), formats=["JPEG", "PNG"]) as image:
            return np.asarray(image.convert("RGB"))
    except (binascii.Error, OSError, ValueError):
        return None


def _package_row(digest: str, found: Mapping[str, Any]) -> dict[str, Any]:
    prediction, feature = found["prediction"], found["feature"]
    return {
        "package": digest[:12],
        "routes": ", ".join(found["routes"]),
        "predictions": found["predictions"],
        "kl": prediction.get("kl", prediction["status"]),
        "kl_p_value": prediction.get("p_value", ""),
        "prediction_drift": _word(prediction["detected"]),
        "mmd_squared": feature.get("mmd_squared", feature["status"]),
        "mmd_p_value": feature.get("p_value", ""),
        "feature_drift": _word(feature["detected"]),
    }


def _word(detected: bool | None) -> str:
    return "no verdict" if detected is None else ("drift" if detected else "none")


def _verdict_in_words(report: Mapping[str, Any]) -> str:
    data = report["data"]
    if data["status"] != MEASURED:
        return f"{data['status'].replace('_', ' ')}: {data['detail']}"
    moved = sorted((name for name, c in data["columns"].items() if c["drifted"]), key=lambda name: -data["columns"][name]["psi"])
    return f"data drift in {', '.join(moved)}" if data["detected"] else "no data drift"
