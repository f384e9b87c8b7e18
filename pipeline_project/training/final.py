"""trained_model: the final fit with the tuned values, its best weights, and the proof that it beats simple baselines."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline_project.contracts import Hyperparameters
from pipeline_project.dataset.reading import SplitArrays, load_split
from pipeline_project.digests import canonical_json
from pipeline_project.plots import bars, confusion_matrix, lines
from pipeline_project.provenance import environment, git_commit
from pipeline_project.reuse import reusable
from pipeline_project.settings import Settings
from pipeline_project.stage import StageContext, StepResult, Table
from pipeline_project.tables import arrays_to_npz
from pipeline_project.training.artifact import architecture_of
from pipeline_project.training.recipe import FIT_SETTINGS, fit_inputs
from pipeline_project.training.tracking import Tracker
from pipeline_project.trust.approvals import require_unchanged

if TYPE_CHECKING:
    from pipeline_project.training.loop import EpochReport, FitResult


OpenTracker = Callable[[], AbstractContextManager[Tracker]]
"""Opens the MLflow run of a training; called only when there is something to train."""


def train_model(context: StageContext, open_tracker: OpenTracker) -> StepResult:
    """Fit, keep the best weights (D2), compare with the baselines, log to MLflow (R120-R126); or reuse what an equal fit gave.

    Payload: weights.safetensors, training.json (architecture, hyperparameters, history, metrics), validation.npz (logits, class_index).

    Raises:
        ApprovalRequiredError: the architecture differs from the last accepted one (R198).
    """
    settings = context.settings
    architecture = architecture_of(settings.model.model_dump(mode="json"), len(settings.data.classes))
    accepted = require_unchanged(
        context.artifacts.bytes, settings.trusted_approvers, "model_architecture_changes", architecture, "The model's architecture"
    )
    result = _train(context, open_tracker)
    return StepResult(result.artifact, {**result.metadata, **accepted.metadata})


@reusable(
    "trained_model",
    inputs=lambda context, _: fit_inputs(context, "dataset_splits", "tuned_hyperparameters"),
    settings=[*FIT_SETTINGS, "image.size", "model.dropout", "training.epochs"],
)
def _train(context: StageContext, open_tracker: OpenTracker) -> StepResult:
    with open_tracker() as tracker:
        return _fit(context, tracker)


def _fit(context: StageContext, tracker: Tracker) -> StepResult:
    from pipeline_project.training.data import fit_plan
    from pipeline_project.training.loop import ArrayDataset, fit

    settings = context.settings
    dataset, tuned = context.artifacts.latest("dataset_splits"), context.artifacts.latest("tuned_hyperparameters")
    chosen = Hyperparameters.model_validate(tuned.json("hyperparameters.json"))
    train, validation = (load_split(context.artifacts, split, dataset) for split in ("train", "validation"))
    tracker.log_params(_params(settings, chosen))
    tracker.set_tags({"dataset_version": dataset.digest, "asset": "trained_model"})

    def report(epoch: "EpochReport") -> bool:
        curve = {"train_loss": epoch.train_loss, "train_accuracy": epoch.train_accuracy}
        tracker.log_metrics({**curve, "val_loss": epoch.val_loss, "val_accuracy": epoch.val_accuracy}, epoch.epoch)
        words = f"train {epoch.train_loss:.3f}/{epoch.train_accuracy:.3f}, validation {epoch.val_loss:.3f}/{epoch.val_accuracy:.3f}"
        context.log(f"epoch {epoch.epoch}/{settings.training.epochs}: {words} ({epoch.seconds:.1f} s)")
        return False

    result = fit(
        fit_plan(settings, chosen, epochs=settings.training.epochs),
        ArrayDataset(train.images, train.class_index),
        ArrayDataset(validation.images, validation.class_index),
        on_epoch=report,
    )
    logits = _validation_logits(settings, chosen, result, validation)
    record, matrix = _record(settings, chosen, result, logits, train, validation)
    payload = {
        "weights.safetensors": _weights_bytes(result),
        "training.json": canonical_json(record),
        "validation.npz": arrays_to_npz(logits=logits.astype(np.float32), class_index=validation.class_index),
    }
    seconds = [round(epoch.seconds, 3) for epoch in result.history]
    artifact = context.artifacts.publish(
        "trained_model",
        payload,
        sidecars={"environment.json": canonical_json({**environment(), "git_commit": git_commit(), "epoch_seconds": seconds})},
        info={
            "dataset": dataset.digest,
            "tuned_hyperparameters": tuned.digest,
            "mlflow_run_id": tracker.run_id,
            "git_commit": git_commit(),
        },
    )
    curves = {name: [getattr(epoch, name) for epoch in result.history] for name in ("train_accuracy", "val_accuracy")}
    losses = {name: [getattr(epoch, name) for epoch in result.history] for name in ("train_loss", "val_loss")}
    pictures = {
        "learning_curve": lines(curves, x_label="epoch", y_label="accuracy", title="Learning curve"),
        "loss_curve": lines(losses, x_label="epoch", y_label="cross-entropy", title="Loss"),
        "confusion_matrix": confusion_matrix(matrix, settings.data.classes),
        "feature_importance": bars(
            record["baselines"]["random_forest"]["importances"], title="Measurements' importance (random forest)", y_label="importance"
        ),
    }
    tracker.log_metrics(record["metrics"])
    for name, picture in pictures.items():
        tracker.log_file(f"{name}/{name}.png", picture.data)
    tracker.log_file("training_logs/training.json", payload["training.json"])
    tracker.log_file("trained_model/weights.safetensors", payload["weights.safetensors"])
    return StepResult(
        artifact,
        {
            **record["metrics"],
            **chosen.model_dump(),
            "best_epoch": result.best_epoch,
            "epochs": len(result.history),
            "stopped_because": result.stopped_because,
            "seconds": round(sum(seconds), 1),
            "dataset": dataset.digest,
            "tuned_hyperparameters": tuned.digest,
            "mlflow_run_id": tracker.run_id,
            "git_commit": git_commit(),
            "baselines": Table([{"baseline": name, "val_accuracy": b["accuracy"]} for name, b in record["baselines"].items()]),
            **pictures,
        },
    )


def _params(settings: Settings, chosen: Hyperparameters) -> dict[str, Any]:
    return {
        **chosen.model_dump(),
        "architecture": settings.model.architecture,
        "optimizer": "adam",
        "epochs": settings.training.epochs,
        "data_augmentation": settings.augmentation.model_dump_json(),
        "image_size": settings.image.size,
        "seed": settings.training.seed,
    }


def _validation_logits(settings: Settings, chosen: Hyperparameters, result: "FitResult", validation: SplitArrays) -> NDArray[np.float32]:
    from pipeline_project.training.loop import predict
    from pipeline_project.training.models import build_model

    network = build_model(settings.model, len(settings.data.classes), dropout=chosen.dropout)
    network.load_state_dict(result.best_state)
    return predict(network, validation.images, settings.image).logits


def _record(
    settings: Settings,
    chosen: Hyperparameters,
    result: "FitResult",
    logits: NDArray[np.float32],
    train: SplitArrays,
    validation: SplitArrays,
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    from pipeline_project.statistics.classification import class_scores, confusion_matrix, macro_f1
    from pipeline_project.statistics.paired import mcnemar
    from pipeline_project.training.baselines import fit_baselines

    best = result.history[result.best_epoch - 1]
    predicted = logits.argmax(axis=1)
    matrix = confusion_matrix(validation.class_index, predicted, len(settings.data.classes))
    scores = class_scores(matrix)
    baselines = {}
    for baseline in fit_baselines(train, validation):
        right = baseline.predicted == validation.class_index
        paired = mcnemar(predicted == validation.class_index, right)
        baselines[baseline.name] = {
            "accuracy": round(float(right.mean()), 6),
            "p_value": round(paired.p_value, 9),
            "importances": baseline.importances,
        }
    record = {
        "version": 1,
        "model": settings.model.model_dump(mode="json"),
        "classes": settings.data.classes,
        "image": settings.image.model_dump(mode="json"),
        "hyperparameters": chosen.model_dump(),
        "seed": settings.training.seed,
        "threads": settings.training.threads,
        "best_epoch": result.best_epoch,
        "stopped_because": result.stopped_because,
        "history": [
            {
                "epoch": e.epoch,
                **{
                    name: round(getattr(e, name), 6)
                    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")
                },
            }
            for e in result.history
        ],
        "metrics": {
            "accuracy": round(float((predicted == validation.class_index).mean()), 6),
            "precision": round(float(np.mean([s.precision for s in scores])), 6),
            "recall": round(float(np.mean([s.recall for s in scores])), 6),
            "f1_score": round(macro_f1(matrix), 6),
            "loss": round(best.train_loss, 6),
            "val_accuracy": round(best.val_accuracy, 6),
            "val_loss": round(best.val_loss, 6),
        },
        "baselines": baselines,
        "training_class_counts": np.bincount(train.class_index, minlength=len(settings.data.classes)).tolist(),
    }
    return record, matrix


def _weights_bytes(result: "FitResult") -> bytes:
    from safetensors.torch import save

    data: bytes = save(dict(sorted(result.best_state.items())))
    return data
