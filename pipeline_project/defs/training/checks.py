"""Checks of the training assets."""

from pipeline_project.defs.common import asset_checks

tuned_hyperparameters_checks = asset_checks(
    "tuned_hyperparameters", "training.checks:check_tuning", {"trials_completed": "As many trials ran as were asked for."}
)

cross_validation_checks = asset_checks(
    "cross_validation_report", "training.checks:check_cross_validation", {"spread": "The folds agree with each other."}
)

trained_model_checks = asset_checks(
    "trained_model",
    "training.checks:check_trained_model",
    {
        "finite": "All weights and losses are finite.",
        "better_than_baselines": "Significantly better than every baseline on validation (exact McNemar test).",
        "overfit": "Training and validation accuracy are close.",
    },
    blocking=frozenset({"finite", "better_than_baselines"}),
)
