"""audit_dossier: for the model in production."""

import dagster as dg

from pipeline_project.defs.common import OPS_TEAM, run_step
from pipeline_project.defs.release.assets import deployed_endpoint
from pipeline_project.digests import sources_digest


@dg.asset(
    deps=[deployed_endpoint],
    group_name="governance",
    kinds={"markdown"},
    owners=[OPS_TEAM],
    code_version=sources_digest("governance"),
)
def audit_dossier(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """What is in production and why: data, code, parameters, gates, approvals, deployments; every link verified."""
    from pipeline_project.governance.dossier import build_dossier

    return run_step(context, build_dossier)
