"""Checks of the package."""

from pipeline_project.defs.common import asset_checks

model_package_checks = asset_checks(
    "model_package",
    "packaging.checks:check_package",
    {
        "parity": "The package answers like the trained model.",
        "transform_parity": "The server's decoder and resizer give exactly the pixels that training saw.",
    },
    blocking=frozenset({"parity", "transform_parity"}),
)
