"""model_package: what is served."""

import dagster as dg

from pipeline_project.code_version import code_version
from pipeline_project.defs.common import ML_TEAM, STORE_RETRIES, run_step
from pipeline_project.defs.training.assets import trained_model


@dg.asset(
    deps=[trained_model],
    group_name="packaging",
    retry_policy=STORE_RETRIES,
    kinds={"onnx", "pytorch"},
    owners=[ML_TEAM],
    code_version=code_version("packaging.build"),
)
def model_package(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """The quantised graph with logits, pooled features and the last feature map; classes, temperature, checksums; signed."""
    from pipeline_project.packaging.build import build_package

    return run_step(context, build_package)
