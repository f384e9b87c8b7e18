"""evaluation_report, load_test_report, release_gate: the evidence and the verdict."""

import dagster as dg

from pipeline_project.code_version import code_version
from pipeline_project.defs.common import ML_TEAM, STORE_RETRIES, run_step
from pipeline_project.defs.dataset.assets import dataset_splits
from pipeline_project.defs.packaging.assets import model_package


@dg.asset(
    deps=[model_package, dataset_splits],
    group_name="evaluation",
    retry_policy=STORE_RETRIES,
    kinds={"onnx", "python"},
    owners=[ML_TEAM],
    code_version=code_version("evaluation.report"),
)
def evaluation_report(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """The package on the test split: metrics with intervals, confusion matrix, slices, robustness, validated explanations."""
    from pipeline_project.evaluation.report import evaluate_package

    return run_step(context, evaluate_package)


@dg.asset(
    deps=[model_package, dataset_splits],
    group_name="evaluation",
    retry_policy=STORE_RETRIES,
    kinds={"fastapi", "onnx"},
    owners=[ML_TEAM],
    code_version=code_version("evaluation.load_test", "serving"),
)
def load_test_report(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """The package behind the real server: latency, throughput, memory, cost, and its answers to hostile requests."""
    from pipeline_project.evaluation.load_test import load_test_package

    return run_step(context, load_test_package)


@dg.asset(
    deps=[evaluation_report, load_test_report],
    group_name="evaluation",
    retry_policy=STORE_RETRIES,
    kinds={"python"},
    owners=[ML_TEAM],
    code_version=code_version("evaluation.gates"),
)
def release_gate(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """The verdict: every quality gate with its numbers, thresholds and evidence, bound to the package, data and settings."""
    from pipeline_project.evaluation.gates import judge

    return run_step(context, judge)
