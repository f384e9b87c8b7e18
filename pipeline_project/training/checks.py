"""Checks of the training assets."""

import numpy as np

from pipeline_project.stage import CheckOutcome, StageContext, Table

_SIGNIFICANCE = 0.05
_MAX_OVERFIT = 0.15


def check_tuning(context: StageContext) -> list[CheckOutcome]:
    """trials_completed: the search ran as many trials as asked, and most were not pruned at once."""
    study = context.artifacts.latest("tuned_hyperparameters").json("study.json")
    wanted, got = context.settings.tuning.trials, len(study["trials"])
    complete = sum(row["state"] == "complete" for row in study["trials"])
    detail = f"{got} of {wanted} trials ran, {complete} to their end, {got - complete} pruned."
    return [CheckOutcome("trials_completed", got >= wanted and complete > 0, detail, {"trials": got, "complete": complete})]


def check_cross_validation(context: StageContext) -> list[CheckOutcome]:
    """spread: the folds agree with each other."""
    report = context.artifacts.latest("cross_validation_report").json("report.json")
    limit = context.settings.cross_validation.max_spread
    detail = f"accuracy {report['mean_accuracy']:.3f} +- {report['std_accuracy']:.3f} over the folds; the spread may be {limit:g}."
    return [CheckOutcome("spread", report["std_accuracy"] <= limit, detail, {"std_accuracy": report["std_accuracy"]})]


def check_trained_model(context: StageContext) -> list[CheckOutcome]:
    """finite, better_than_baselines (exact McNemar test on validation, Holm not needed: every baseline must be beaten) and overfit."""
    artifact = context.artifacts.latest("trained_model")
    record = artifact.json("training.json")
    return [_finite(artifact.read("weights.safetensors"), record), _better(record), _overfit(record)]


def _finite(weights: bytes, record: dict) -> CheckOutcome:  # type: ignore[type-arg]
    from safetensors.numpy import load

    bad = sorted(name for name, values in load(weights).items() if not np.isfinite(values).all())
    losses = [epoch["val_loss"] for epoch in record["history"]]
    detail = f"not finite: {', '.join(bad[:5])}. Lower the learning rate." if bad else "all weights and losses are finite."
    return CheckOutcome("finite", not bad and bool(np.isfinite(losses).all()), detail)


def _better(record: dict) -> CheckOutcome:  # type: ignore[type-arg]
    own = record["metrics"]["accuracy"]
    rows = [{"baseline": n, "accuracy": b["accuracy"], "p_value": b["p_value"]} for n, b in record["baselines"].items()]
    unbeaten = [row["baseline"] for row in rows if not (row["accuracy"] < own and row["p_value"] < _SIGNIFICANCE)]
    best = max(row["accuracy"] for row in rows)
    detail = f"validation accuracy {own:.3f}, best baseline {best:.3f}."
    if unbeaten:
        detail += f" Not significantly better than {', '.join(unbeaten)}: train longer, or use the baseline."
    return CheckOutcome("better_than_baselines", not unbeaten, detail, {"baselines": Table(rows)})


def _overfit(record: dict) -> CheckOutcome:  # type: ignore[type-arg]
    best = record["history"][record["best_epoch"] - 1]
    gap = best["train_accuracy"] - best["val_accuracy"]
    detail = f"training {best['train_accuracy']:.3f} (augmented), validation {best['val_accuracy']:.3f}; the gap may be {_MAX_OVERFIT:g}."
    return CheckOutcome("overfit", gap <= _MAX_OVERFIT, detail, {"gap": round(gap, 4)})
