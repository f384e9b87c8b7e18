"""raw_images, validated_manifest, image_pack, image_features: one day a run."""

import dagster as dg

from pipeline_project.code_version import code_version
from pipeline_project.defs.automation.conditions import follow_upstream
from pipeline_project.defs.common import DAILY, DATA_TEAM, STORE_RETRIES, day_of, run_step


@dg.asset(
    group_name="ingest",
    retry_policy=STORE_RETRIES,
    kinds={"python", "s3"},
    owners=[DATA_TEAM],
    code_version=code_version("ingest.inventory"),
    **DAILY,
)
def raw_images(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """The day's photos and label rows as they arrived: an inventory, nothing decoded. Refuses a changed source without an approval."""
    from pipeline_project.ingest.inventory import take_inventory

    return run_step(context, take_inventory, day_of(context))


@dg.asset(
    deps=[raw_images],
    group_name="ingest",
    automation_condition=follow_upstream(),
    retry_policy=STORE_RETRIES,
    kinds={"python", "pillow", "parquet"},
    owners=[DATA_TEAM],
    code_version=code_version("ingest.manifest"),
    **DAILY,
)
def validated_manifest(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """One row an accepted image (id, label, size, perceptual hash); what was rejected and why; the day's verdict."""
    from pipeline_project.ingest.manifest import validate_images

    return run_step(context, validate_images, day_of(context))


@dg.asset(
    deps=[validated_manifest],
    group_name="ingest",
    automation_condition=follow_upstream(),
    retry_policy=STORE_RETRIES,
    kinds={"python", "pillow", "numpy"},
    owners=[DATA_TEAM],
    code_version=code_version("ingest.pack"),
    **DAILY,
)
def image_pack(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """The day's images decoded once, resized exactly as the server resizes: a uint8 array to map into memory."""
    from pipeline_project.ingest.pack import pack_images

    return run_step(context, pack_images, day_of(context))


@dg.asset(
    deps=[image_pack],
    group_name="ingest",
    automation_condition=follow_upstream(),
    retry_policy=STORE_RETRIES,
    kinds={"python", "numpy", "parquet"},
    owners=[DATA_TEAM],
    code_version=code_version("ingest.features"),
    **DAILY,
)
def image_features(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Numeric measurements of each image (brightness, contrast, sharpness ...): for drift, profiling and the feature store."""
    from pipeline_project.ingest.features import measure_images

    return run_step(context, measure_images, day_of(context))
