"""Checks of the dossier."""

from pipeline_project.defs.common import asset_checks

audit_dossier_checks = asset_checks(
    "audit_dossier",
    "governance.checks:check_chain",
    {"chain_intact": "Every digest from the served package back to the days' manifests exists and re-computes."},
    blocking=frozenset({"chain_intact"}),
)
