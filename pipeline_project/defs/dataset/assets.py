"""data_profile and dataset_splits: over all days."""

import dagster as dg

from pipeline_project.code_version import code_version
from pipeline_project.defs.automation.conditions import follow_upstream
from pipeline_project.defs.common import DATA_TEAM, DATASET_POOL, STORE_RETRIES, run_step
from pipeline_project.defs.ingest.assets import image_features, image_pack, validated_manifest


@dg.asset(
    deps=[validated_manifest, image_features, image_pack],
    group_name="dataset",
    automation_condition=follow_upstream(),
    retry_policy=STORE_RETRIES,
    kinds={"python", "pandas"},
    owners=[DATA_TEAM],
    code_version=code_version("dataset.profile"),
)
def data_profile(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """What a person should see before training: balance, missing values, outliers, suspected label noise, contact sheets."""
    from pipeline_project.dataset.profile import profile_data

    return run_step(context, profile_data)


@dg.asset(
    deps=[validated_manifest, image_features, image_pack],
    group_name="dataset",
    pool=DATASET_POOL,
    automation_condition=follow_upstream(),
    retry_policy=STORE_RETRIES,
    kinds={"python", "parquet"},
    owners=[DATA_TEAM],
    code_version=code_version("dataset.versions"),
)
def dataset_splits(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """The dataset version: {day: hash} of all good days, and the split of every image. Splits grow without moving an image."""
    from pipeline_project.dataset.versions import make_dataset_version

    return run_step(context, make_dataset_version)
