"""cross_validation_report: stratified folds (R91) over the training and validation images; the test split stays untouched."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline_project.contracts import Hyperparameters
from pipeline_project.dataset.reading import load_split
from pipeline_project.digests import canonical_json
from pipeline_project.plots import bars
from pipeline_project.reuse import reusable
from pipeline_project.stage import StageContext, StepResult, Table
from pipeline_project.storage import Artifact
from pipeline_project.training.recipe import FIT_SETTINGS, fit_inputs

_FOLD = "cross_validation_fold"


_SETTINGS = (*FIT_SETTINGS, "cross_validation.epochs", "cross_validation.folds")


def run_fold(context: StageContext, fold: int) -> Artifact:
    """`train_fold` by number."""
    return train_fold(context, f"fold-{fold}").artifact


@reusable(_FOLD, inputs=lambda context, _: fit_inputs(context, "dataset_splits", "tuned_hyperparameters"), settings=_SETTINGS)
def train_fold(context: StageContext, name: str) -> StepResult:
    """Train on all folds but one and score that one at its best epoch; near duplicates stay in one fold.

    Early stopping sees the fold that is scored, so the accuracy is slightly optimistic: it is for the spread, not for release.
    """
    from pipeline_project.training.data import fit_plan
    from pipeline_project.training.loop import ArrayDataset, fit

    settings, fold = context.settings, int(name.removeprefix("fold-"))
    dataset, tuned = context.artifacts.latest("dataset_splits"), context.artifacts.latest("tuned_hyperparameters")
    images, labels, groups = _pool(context, dataset)
    held_out = _fold_of(labels, groups, settings.cross_validation.folds, settings.training.seed, settings.data.classes) == fold
    chosen = Hyperparameters.model_validate(tuned.json("hyperparameters.json"))
    plan = fit_plan(settings, chosen, epochs=settings.cross_validation.epochs, seed_offset=1 + fold)
    result = fit(plan, ArrayDataset(images[~held_out], labels[~held_out]), ArrayDataset(images[held_out], labels[held_out]))
    best = result.history[result.best_epoch - 1]
    context.log(f"fold {fold + 1} of {settings.cross_validation.folds}: val_accuracy {best.val_accuracy:.3f} at epoch {best.epoch}")
    record = {
        "version": 1,
        "fold": fold,
        "dataset": dataset.digest,
        "tuned_hyperparameters": tuned.digest,
        "images": int(held_out.sum()),
        "accuracy": round(best.val_accuracy, 6),
        "loss": round(best.val_loss, 6),
        "best_epoch": best.epoch,
    }
    return StepResult(context.artifacts.publish(_FOLD, {"fold.json": canonical_json(record)}, partition=name))


def finish_folds(context: StageContext) -> StepResult:
    """Train the folds that no step has trained, and gather all; see `tuning.finish_study`."""
    for fold in folds_needed(context):
        run_fold(context, fold)
    return conclude_folds(context)


@reusable(
    "cross_validation_report", inputs=lambda context: fit_inputs(context, "dataset_splits", "tuned_hyperparameters"), settings=_SETTINGS
)
def conclude_folds(context: StageContext) -> StepResult:
    """Gather the folds. Payload: report.json (each fold, mean and standard deviation of the accuracy).

    Raises:
        ValueError: a fold is of another dataset version or other hyperparameters.
    """
    dataset, tuned = context.artifacts.latest("dataset_splits"), context.artifacts.latest("tuned_hyperparameters")
    folds: list[dict[str, Any]] = []
    for fold in range(context.settings.cross_validation.folds):
        record = context.artifacts.latest(_FOLD, f"fold-{fold}").json("fold.json")
        if record["dataset"] != dataset.digest or record["tuned_hyperparameters"] != tuned.digest:
            raise ValueError(f"Fold {fold} was trained on other inputs. Materialize cross_validation_report again, with all its steps.")
        folds.append(record)
    accuracies = [record["accuracy"] for record in folds]
    report: dict[str, Any] = {
        "version": 1,
        "folds": folds,
        "mean_accuracy": round(float(np.mean(accuracies)), 6),
        "std_accuracy": round(float(np.std(accuracies, ddof=1)), 6),
    }
    artifact = context.artifacts.publish("cross_validation_report", {"report.json": canonical_json(report)})
    shown = {f"fold {record['fold'] + 1}": record["accuracy"] for record in folds}
    return StepResult(
        artifact,
        {
            "mean_accuracy": report["mean_accuracy"],
            "std_accuracy": report["std_accuracy"],
            "dataset": dataset.digest,
            "tuned_hyperparameters": tuned.digest,
            "folds": Table([{k: r[k] for k in ("fold", "images", "accuracy", "loss", "best_epoch")} for r in folds]),
            "accuracy": bars(shown, title="Accuracy by fold", y_label="accuracy"),
        },
    )


def folds_needed(context: StageContext) -> list[int]:
    """The folds to train: none where the same report was made before."""
    recipe = conclude_folds.recipe(context)
    concluded = not context.recompute and conclude_folds.find(context, recipe) is not None
    return [] if concluded else list(range(context.settings.cross_validation.folds))


def _pool(context: StageContext, dataset: Artifact) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.str_]]:
    parts = [load_split(context.artifacts, split, dataset) for split in ("train", "validation")]
    return (
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.class_index for part in parts]),
        np.concatenate([np.array(part.groups) for part in parts]),
    )


def _fold_of(labels: NDArray[np.int64], groups: NDArray[np.str_], folds: int, seed: int, classes: Sequence[str] = ()) -> NDArray[np.int64]:
    """The fold of each image.

    Raises:
        ValueError: a class has fewer groups of images (near duplicates count once) than there are folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    names = list(classes) or [f"class {index}" for index in range(int(labels.max()) + 1)]
    distinct = {name: len(set(groups[labels == index])) for index, name in enumerate(names)}
    small = ", ".join(f"{name} ({count})" for name, count in distinct.items() if count < folds)
    if small:
        raise ValueError(
            f"Too few images for {folds} folds: {small}; every class needs at least {folds} in training and validation together (near "
            "duplicates count once). Add images of these classes, or lower cross_validation.folds."
        )
    result = np.empty(len(labels), np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(labels, labels, groups)):
        result[held_out] = fold
    return result
