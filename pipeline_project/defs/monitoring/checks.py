"""Checks of the monitoring assets."""

from pipeline_project.defs.common import asset_checks

prediction_log_checks = asset_checks(
    "prediction_log",
    "monitoring.checks:check_prediction_log",
    {"no_gap": "No worker's sequence has a gap: no acknowledged prediction was lost."},
    blocking=frozenset({"no_gap"}),
    daily=True,
)

ground_truth_checks = asset_checks(
    "ground_truth", "monitoring.checks:check_ground_truth", {"domain": "True labels are known classes."}, daily=True
)

drift_report_checks = asset_checks(
    "drift_report",
    "monitoring.checks:check_drift_report",
    {
        "data_drift": "The measurements of requests are distributed as in training.",
        "prediction_drift": "Predicted classes are distributed as in training.",
        "feature_drift": "The model's pooled features are distributed as on validation.",
    },
    daily=True,
)

performance_report_checks = asset_checks(
    "performance_report",
    "monitoring.checks:check_performance_report",
    {
        "accuracy": "Accuracy is above its alert threshold.",
        "latency": "The 99th percentile is below its alert threshold.",
        "drift": "The drift score is below its alert threshold.",
    },
    daily=True,
)
