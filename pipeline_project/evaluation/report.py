"""evaluation_report: everything that can be said of a package from its answers to the test split."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline_project import plots
from pipeline_project.contracts import PackageManifest
from pipeline_project.digests import canonical_json
from pipeline_project.evaluation.explanations import choose_images, validate_explanations
from pipeline_project.evaluation.performance import rounded, score_predictions
from pipeline_project.evaluation.robustness import Pixels, adversarial_report, corruption_report
from pipeline_project.evaluation.slices import compare_slices, slice_labels, slice_rows
from pipeline_project.reuse import reusable
from pipeline_project.stage import Picture, StageContext, StepResult, Table
from pipeline_project.storage import Artifact
from pipeline_project.tables import frame_to_parquet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pipeline_project.dataset.reading import SplitArrays
    from pipeline_project.serving.engine import Engine

NAME = "evaluation_report"
_BATCH = 32
_SHOWN = 8
_SHEET_ROWS = 5


@dataclass(frozen=True)
class Judged:
    """The test split, and the package's probabilities (N, C) for it."""

    test: "SplitArrays"
    probabilities: NDArray[np.float64]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(N,) whether the most probable class is the true one."""
        right: NDArray[np.bool_] = self.probabilities.argmax(axis=1) == self.test.class_index
        return right


@reusable(
    NAME,
    inputs=["model_package", "dataset_splits"],
    settings=[
        "data.slice_columns",
        "evaluation.adversarial_epsilon",
        "evaluation.confidence",
        "evaluation.explained_images",
        "gates.max_slice_gap",
        "gates.min_slice_size",
        "image.mean",
        "image.std",
        "training.threads",
    ],
)
def evaluate_package(context: StageContext) -> StepResult:
    """Judge the newest package on the newest test split, through the engine that serves it.

    Payload: evaluation.json (every score, slice, corruption and explanation test; floats rounded to 6 places, no timings) and
    predictions.parquet (one row a test image). Sidecars: the plots.

    Raises:
        ValueError: the package is not trusted, or its classes or image size are not those of the dataset.
        ArtifactMissingError: an input was not made yet; the message names it.
    """
    from pipeline_project.dataset.reading import load_split
    from pipeline_project.packaging.package import load_package
    from pipeline_project.serving.engine import Engine
    from pipeline_project.training.artifact import load_network

    settings, artifacts = context.settings, context.artifacts
    dataset = artifacts.latest("dataset_splits")
    packaged = artifacts.latest("model_package")
    package = load_package(artifacts, packaged.digest, settings.trusted_signers)
    test = load_split(artifacts, "test", dataset)
    _require_fit(package.manifest, dataset.json("dataset.json")["classes"], test.images)
    engine = Engine(package, threads=settings.training.threads)

    def predict(pixels: Pixels) -> NDArray[np.float64]:
        return predict_in_batches(engine, pixels)

    context.log(f"judging package {package.digest[:12]} on {len(test.images)} test images")
    judged = Judged(test, predict(test.images))
    gates, confidence, classes = settings.gates, settings.evaluation.confidence, package.manifest.classes
    labels, missing = slice_labels(test.attributes, test.measurements, settings.data.slice_columns)
    slices = compare_slices(labels, judged.correct, min_size=gates.min_slice_size, max_gap=gates.max_slice_gap, confidence=confidence)
    context.log("corrupting and attacking test images")
    corrupted = corruption_report(predict, test.images, test.class_index)
    network, _, _ = load_network(artifacts, packaged.info.get("trained_model"))
    attacked = adversarial_report(
        predict,
        network,
        test.images,
        test.class_index,
        epsilon=settings.evaluation.adversarial_epsilon,
        image_settings=settings.image,
    )
    context.log("explaining, and testing the explanations")
    chosen = choose_images(test.class_index, settings.evaluation.explained_images)
    explanations, heats = validate_explanations(
        predict, lambda image: grad_cam(engine, image), test.images[chosen], [test.image_ids[row] for row in chosen]
    )
    report = rounded(
        {
            "version": 1,
            "package": package.digest,
            "dataset": dataset.digest,
            "images": len(test.images),
            "classes": classes,
            "confidence": confidence,
            "performance": score_predictions(test.class_index, judged.probabilities, classes, confidence),
            "slices": slices,
            "missing_slice_columns": missing,
            "robustness": corrupted | {"adversarial": attacked},
            "explanations": explanations,
        }
    )
    pictures = _pictures(report, judged, [(row, heat) for row, heat in zip(chosen, heats, strict=True)], classes)
    artifact = artifacts.publish(
        NAME,
        {"evaluation.json": canonical_json(report), "predictions.parquet": _predictions(judged, classes)},
        sidecars={f"{name}.{picture.media_type.split('/')[1]}": picture.data for name, picture in pictures.items()},
        info={"package": package.digest, "dataset": dataset.digest, "accuracy": report["performance"]["accuracy"]["value"]},
    )
    _log_to_training_run(context, packaged, report, pictures)
    return StepResult(artifact, _headline(report) | {"classes": class_table(report), "slices": Table(slice_rows(slices)), **pictures})


def _log_to_training_run(context: StageContext, package: Artifact, report: Mapping[str, Any], pictures: Mapping[str, Picture]) -> None:
    """The final metrics on the test split (R123, D2) and the explanations (R125), in the run that trained the model.

    MLflow out of reach costs a line of the log, never the report.
    """
    from pipeline_project.training.tracking import Tracker

    run_id = package.info.get("mlflow_run_id")
    if not run_id:
        return
    scores = report["performance"]
    classes = scores["classes"].values()
    final = {
        "final_accuracy": scores["accuracy"]["value"],
        "macro_precision": float(np.mean([c["precision"]["value"] for c in classes])),
        "macro_recall": float(np.mean([c["recall"]["value"] for c in classes])),
        "macro_f1": scores["macro_f1"]["value"],
    }
    try:
        tracker = Tracker(context.settings.tracking_uri, run_id)
        tracker.log_metrics(final)
        for name, picture in pictures.items():
            tracker.log_file(f"model_explainability_reports/test_{name}.{picture.media_type.split('/')[1]}", picture.data)
    except Exception as error:  # MLflow's clients raise their own, the database's and the network's errors
        context.log(f"MLflow did not take the final metrics: {error}")


def predict_in_batches(engine: "Engine", pixels: Pixels) -> NDArray[np.float64]:
    """The engine's probabilities (N, C) for (N, S, S, 3) uint8, a bounded number of images at a time."""
    batches = (np.ascontiguousarray(pixels[start : start + _BATCH]) for start in range(0, len(pixels), _BATCH))
    return np.concatenate([engine.predict(batch).probabilities for batch in batches]).astype(np.float64)


def grad_cam(engine: "Engine", image: Pixels) -> NDArray[np.float32]:
    """The server's heat map (S, S), 0-1, for the predicted class of one image (S, S, 3)."""
    from pipeline_project.serving.explanation import explain

    answer = engine.predict(np.ascontiguousarray(image[None]))
    return explain(answer.feature_map[0], engine.head, int(answer.probabilities[0].argmax()), image.shape[0])


def class_table(report: dict[str, Any]) -> Table:
    """Scores of every class as rows for people."""
    return Table(
        [
            {
                "class": name,
                "images": scores["support"],
                **{key: _shown(scores[key]) for key in ("precision", "recall", "f1", "roc_auc")},
            }
            for name, scores in report["performance"]["classes"].items()
        ]
    )


def _shown(estimate: dict[str, Any] | None) -> str:
    return "undefined" if estimate is None else f"{estimate['value']:.3f} ({estimate['low']:.3f}-{estimate['high']:.3f})"


def _headline(report: dict[str, Any]) -> dict[str, Any]:
    scores, robustness, explanations = report["performance"], report["robustness"], report["explanations"]
    names = ("accuracy", "macro_f1", "roc_auc_macro", "expected_calibration_error", "log_loss")
    gaps = {column: entry["gap"] for column, entry in report["slices"].items() if entry["gap"] is not None}
    return {
        "images": report["images"],
        **{name: scores[name]["value"] for name in names if scores[name] is not None},
        "accuracy_interval": [scores["accuracy"]["low"], scores["accuracy"]["high"]],
        "largest_slice_gap": max(gaps.values(), default=0.0),
        "unfair_columns": [column for column, entry in report["slices"].items() if entry["unfair"]],
        "corruption_accuracy": {name: entry["relative"] for name, entry in robustness["corruptions"].items()},
        "adversarial_accuracy": robustness["adversarial"]["accuracy"],
        "explanations_valid": explanations["valid"],
        "package": report["package"],
        "dataset": report["dataset"],
    }


def _require_fit(manifest: PackageManifest, classes: list[str], images: Pixels) -> None:
    if manifest.classes != classes:
        raise ValueError(f"model_package knows the classes {manifest.classes}, the dataset has {classes}. Train and package again.")
    if images.shape[1] != manifest.image_size:
        raise ValueError(f"model_package takes {manifest.image_size} pixels, the packs have {images.shape[1]}. Train and package again.")


def _predictions(judged: Judged, classes: Sequence[str]) -> bytes:
    import pandas as pd

    predicted = judged.probabilities.argmax(axis=1)
    table = pd.DataFrame(
        {
            "image_id": judged.test.image_ids,
            "key": judged.test.keys,
            "label": [classes[c] for c in judged.test.class_index],
            "predicted_class": [classes[c] for c in predicted],
            "confidence": judged.probabilities.max(axis=1).round(6),
        }
    )
    shares = pd.DataFrame(judged.probabilities.round(6), columns=[f"probability.{name}" for name in classes])
    return frame_to_parquet(pd.concat([table, shares], axis=1))


def _pictures(
    report: dict[str, Any], judged: Judged, explained: list[tuple[int, NDArray[np.float64]]], classes: Sequence[str]
) -> dict[str, Picture]:
    pictures = {
        "confusion_matrix": plots.confusion_matrix(np.array(report["performance"]["confusion_matrix"], np.int64), classes),
        "reliability": _reliability_diagram(report["performance"]["reliability"]),
        "explanations": _explanation_sheet(judged, explained, classes),
    }
    if not judged.correct.all():
        pictures["worst_mistakes"] = _mistake_sheet(judged, classes)
    return pictures


def _reliability_diagram(bins: list[dict[str, Any]]) -> Picture:
    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], linestyle="--", color="grey", label="calibrated")
        most = max(b["count"] for b in bins)
        axes.bar(
            [b["low"] for b in bins],
            [b["accuracy"] for b in bins],
            width=[b["high"] - b["low"] for b in bins],
            align="edge",
            color=[(0.3, 0.47, 0.66, 0.3 + 0.7 * b["count"] / most) for b in bins],
            edgecolor="white",
        )
        axes.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], marker="o", color="#e45756", label="measured")
        axes.set(xlabel="confidence", ylabel="accuracy", title="Reliability (darker: more images)", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="upper left")

    return plots.plot(draw, width=4.5, height=4)


def _mistake_sheet(judged: Judged, classes: Sequence[str]) -> Picture:
    """The most confident mistakes, one row for every pair of true and predicted class, the frequent pairs first."""
    predicted, confidence = judged.probabilities.argmax(axis=1), judged.probabilities.max(axis=1)
    pairs: dict[tuple[int, int], list[int]] = {}
    for row in np.flatnonzero(~judged.correct)[np.argsort(-confidence[~judged.correct], kind="stable")]:
        pairs.setdefault((int(judged.test.class_index[row]), int(predicted[row])), []).append(int(row))
    frequent = sorted(pairs.items(), key=lambda item: (-len(item[1]), item[0]))[:_SHEET_ROWS]
    sheet = {f"{classes[t][:8]}>{classes[p][:8]}": [judged.test.images[row] for row in rows[:_SHOWN]] for (t, p), rows in frequent}
    return plots.contact_sheet(sheet)


def _explanation_sheet(judged: Judged, explained: list[tuple[int, NDArray[np.float64]]], classes: Sequence[str]) -> Picture:
    """Images with the heat behind their predicted class, one row a predicted class."""
    from PIL import Image

    from pipeline_project.serving.explanation import overlay_png

    rows: dict[str, list[Pixels]] = {}
    for row, heat in explained:
        name = classes[int(judged.probabilities[row].argmax())]
        png = overlay_png(judged.test.images[row], heat.astype(np.float32), side=96)
        rows.setdefault(name, []).append(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")))
    return plots.contact_sheet({name: images[:_SHOWN] for name, images in sorted(rows.items())}, side=80)
