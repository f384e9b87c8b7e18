"""prediction_log, ground_truth, drift_report, performance_report (a day each), ab_report."""

import dagster as dg

from pipeline_project.code_version import code_version
from pipeline_project.defs.automation.conditions import follow_upstream
from pipeline_project.defs.common import DAILY, ML_TEAM, OPS_TEAM, STORE_RETRIES, day_of, run_step
from pipeline_project.defs.release.assets import deployed_endpoint


@dg.asset(
    deps=[deployed_endpoint],
    group_name="monitoring",
    retry_policy=STORE_RETRIES,
    kinds={"fastapi", "parquet"},
    owners=[OPS_TEAM],
    code_version=code_version("monitoring.predictions"),
    **DAILY,
)
def prediction_log(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """The day's predictions of both environments, compacted from the workers' segments."""
    from pipeline_project.monitoring.predictions import compact_predictions

    return run_step(context, compact_predictions, day_of(context))


@dg.asset(
    deps=[deployed_endpoint],
    group_name="monitoring",
    retry_policy=STORE_RETRIES,
    kinds={"parquet"},
    owners=[OPS_TEAM],
    code_version=code_version("monitoring.predictions"),
    **DAILY,
)
def ground_truth(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """The true labels that arrived that day, by request id."""
    from pipeline_project.monitoring.predictions import collect_truth

    return run_step(context, collect_truth, day_of(context))


@dg.asset(
    deps=[prediction_log, "dataset_splits"],
    group_name="monitoring",
    automation_condition=follow_upstream(),
    retry_policy=STORE_RETRIES,
    kinds={"evidently", "mlflow"},
    owners=[ML_TEAM],
    code_version=code_version("monitoring.drift"),
    **DAILY,
)
def drift_report(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Data drift (Evidently), prediction drift (KL), drift of the model's pooled features, and what moved."""
    from pipeline_project.monitoring.drift import report_drift

    return run_step(context, report_drift, day_of(context))


@dg.asset(
    deps=[prediction_log, ground_truth, drift_report],
    group_name="monitoring",
    automation_condition=follow_upstream(),
    retry_policy=STORE_RETRIES,
    kinds={"python", "mlflow"},
    owners=[ML_TEAM],
    code_version=code_version("monitoring.performance"),
    **DAILY,
)
def performance_report(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Accuracy against the truth known so far, latency, errors, concept drift, alerts."""
    from pipeline_project.monitoring.performance import report_performance

    return run_step(context, report_performance, day_of(context))


@dg.asset(
    deps=[prediction_log, ground_truth],
    group_name="monitoring",
    automation_condition=follow_upstream(),
    retry_policy=STORE_RETRIES,
    kinds={"python", "mlflow"},
    owners=[ML_TEAM],
    code_version=code_version("monitoring.ab"),
)
def ab_report(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Champion against challenger: split, accuracy, latency, business metric, and a test that may be looked at any time."""
    from pipeline_project.monitoring.ab import report_ab

    return run_step(context, report_ab)
