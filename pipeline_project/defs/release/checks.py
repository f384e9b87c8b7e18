"""Checks of the endpoints, through their HTTP API."""

from pipeline_project.defs.common import asset_checks

_SMOKE = "Answers through the API equal the package's own."
_SPLIT = "Requests are routed with the document's weights."

staging_endpoint_checks = asset_checks(
    "staging_endpoint",
    "release.checks:check_staging",
    {"smoke_test": _SMOKE, "observed_split": _SPLIT},
    blocking=frozenset({"smoke_test", "observed_split"}),
)

deployed_endpoint_checks = asset_checks(
    "deployed_endpoint",
    "release.checks:check_production",
    {
        "approval": "Every package that production serves was approved by a person.",
        "smoke_test": _SMOKE,
        "observed_split": _SPLIT,
        "registry_alias": "The alias champion names what production serves.",
    },
    blocking=frozenset({"approval", "smoke_test", "observed_split"}),
)

batch_predictions_checks = asset_checks(
    "batch_predictions", "release.batch:check_batch", {"row_count": "One prediction for each image of the day."}, daily=True
)
