"""registered_model, staging_endpoint, deployed_endpoint, batch_predictions. Each reads the verdict again before it acts."""

import dagster as dg

from pipeline_project.code_version import code_version
from pipeline_project.defs.common import DAILY, DEPLOYMENT_POOL, ML_TEAM, OPS_TEAM, STORE_RETRIES, day_of, run_step, stage_context
from pipeline_project.defs.evaluation.assets import release_gate
from pipeline_project.defs.ingest.assets import image_pack
from pipeline_project.governance import ledger


@dg.asset(
    deps=[release_gate],
    group_name="release",
    pool=DEPLOYMENT_POOL,
    retry_policy=STORE_RETRIES,
    kinds={"mlflow", "onnx"},
    owners=[ML_TEAM],
    code_version=code_version("release.registry"),
)
def registered_model(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """A version in the MLflow registry, only of a package whose verdict is yes."""
    from pipeline_project.release.registry import register_model

    return run_step(context, register_model)


@dg.asset(
    deps=[registered_model],
    group_name="release",
    kinds={"fastapi"},
    owners=[OPS_TEAM],
    code_version=code_version("release.rollout"),
    pool=DEPLOYMENT_POOL,
)
def staging_endpoint(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """The staging environment serves the registered package; automatic once the gate said yes."""
    from pipeline_project.release.rollout import deploy_to_staging

    return run_step(context, deploy_to_staging, lambda package: _record(context, "deployed_to_staging", package))


@dg.asset(
    deps=[staging_endpoint],
    group_name="release",
    kinds={"fastapi"},
    owners=[OPS_TEAM],
    code_version=code_version("release.rollout"),
    pool=DEPLOYMENT_POOL,
)
def deployed_endpoint(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Production serves the registered package: canary, steps, full. Refuses without a recorded approval."""
    from pipeline_project.release.rollout import deploy_to_production

    return run_step(context, deploy_to_production, lambda package: _record(context, "deployed_to_production", package))


@dg.asset(
    deps=[deployed_endpoint, image_pack],
    group_name="release",
    retry_policy=STORE_RETRIES,
    kinds={"onnx", "parquet"},
    owners=[ML_TEAM],
    code_version=code_version("release.batch"),
    **DAILY,
)
def batch_predictions(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """The champion's predictions for every image of a day."""
    from pipeline_project.release.batch import predict_batch

    return run_step(context, predict_batch, day_of(context))


def _record(context: dg.AssetExecutionContext, action: str, package: str) -> None:
    """An entry in the audit ledger: who started it is the run's tag, if an authenticating proxy set one."""
    actor = context.run.tags.get("user", "dagster")
    ledger.append(stage_context(context).artifacts.bytes, actor, action, package, {"dagster_run_id": context.run_id})
