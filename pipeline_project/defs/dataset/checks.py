"""Checks of the dataset version."""

from pipeline_project.defs.common import asset_checks

dataset_splits_checks = asset_checks(
    "dataset_splits",
    "dataset.checks:check_splits",
    {
        "ratios": "The splits have their shares, up to a group of duplicates.",
        "no_leakage": "No image and no group of near duplicates lies in two splits.",
        "every_class": "Every class is in every split.",
        "stability": "No image moved since the version before.",
    },
    blocking=frozenset({"ratios", "no_leakage", "every_class"}),
)
