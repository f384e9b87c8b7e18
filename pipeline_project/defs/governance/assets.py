"""audit_dossier: for the model in production."""

import dagster as dg

from pipeline_project.code_version import code_version
from pipeline_project.defs.automation.conditions import follow_upstream
from pipeline_project.defs.common import OPS_TEAM, STORE_RETRIES, run_step
from pipeline_project.defs.release.assets import deployed_endpoint


@dg.asset(
    deps=[deployed_endpoint],
    group_name="governance",
    retry_policy=STORE_RETRIES,
    automation_condition=follow_upstream(),
    kinds={"markdown"},
    owners=[OPS_TEAM],
    code_version=code_version("governance.dossier"),
)
def audit_dossier(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """What is in production and why: data, code, parameters, gates, approvals, deployments; every link verified."""
    from pipeline_project.governance.dossier import build_dossier

    return run_step(context, build_dossier)
