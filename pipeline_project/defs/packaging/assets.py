"""model_package: what is served."""

import dagster as dg

from pipeline_project.defs.common import ML_TEAM, run_step
from pipeline_project.defs.training.assets import trained_model
from pipeline_project.digests import sources_digest


@dg.asset(
    deps=[trained_model],
    group_name="packaging",
    kinds={"onnx", "pytorch"},
    owners=[ML_TEAM],
    code_version=sources_digest("packaging"),
)
def model_package(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """The quantised graph with logits, pooled features and the last feature map; classes, temperature, checksums; signed."""
    from pipeline_project.packaging.build import build_package

    return run_step(context, build_package)
