"""Checks of the evidence and of the verdict."""

from pipeline_project.defs.common import asset_checks

evaluation_report_checks = asset_checks(
    "evaluation_report",
    "evaluation.checks:check_evaluation",
    {
        "performance": "Accuracy, precision, recall and F1 reach their thresholds.",
        "slices": "No slice is treated markedly worse than another.",
        "robustness": "Accuracy holds under mild corruptions.",
        "explanations": "Masking what an explanation points at matters more than masking at random.",
        "calibration": "Probabilities mean what they say.",
    },
)

load_test_report_checks = asset_checks(
    "load_test_report",
    "evaluation.checks:check_load_test",
    {
        "latency": "The 99th percentile is within its limit.",
        "throughput": "Enough requests a second.",
        "memory": "The server stays within its memory.",
        "cost": "A prediction costs less than its limit.",
        "errors": "No request failed.",
        "hostile_input": "Hostile requests are answered with 4xx, and the server lives.",
    },
)

release_gate_checks = asset_checks(
    "release_gate",
    "evaluation.checks:check_release_gate",
    {
        "data_validation_passes": "Every day that trained the model has a good verdict.",
        "model_performance_meets_threshold": "R100-R103, and robustness.",
        "bias_fairness_tests_pass": "Accuracy over slices.",
        "security_scans_clear": "The package's files and the server's answers to hostile requests.",
        "load_testing_successful": "R105-R108.",
    },
    blocking=frozenset(
        {
            "data_validation_passes",
            "model_performance_meets_threshold",
            "bias_fairness_tests_pass",
            "security_scans_clear",
            "load_testing_successful",
        }
    ),
)
