"""Checks of the dossier."""

from pipeline_project.defs.common import asset_checks
from pipeline_project.governance.checks import check_chain

audit_dossier_checks = asset_checks(
    "audit_dossier",
    check_chain,
    {"chain_intact": "Every digest from the served package back to the days' manifests exists and re-computes."},
    blocking=frozenset({"chain_intact"}),
)
