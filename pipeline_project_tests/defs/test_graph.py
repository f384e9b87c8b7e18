"""The asset graph against its golden snapshot, and the properties that every asset must have.

After a wanted change of the graph: `python -m pytest pipeline_project_tests/defs/test_graph.py --update-snapshots`, and read the diff.
"""

import json
import re
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import pipeline_project

SNAPSHOT = Path(__file__).parent / "graph.json"
FIXED_TABLE = {  # the names that the design fixes
    "ingest": {"raw_images", "validated_manifest", "image_features", "image_pack"},
    "dataset": {"data_profile", "dataset_splits"},
    "training": {"tuned_hyperparameters", "cross_validation_report", "trained_model"},
    "packaging": {"model_package"},
    "evaluation": {"evaluation_report", "load_test_report", "release_gate"},
    "release": {"registered_model", "staging_endpoint", "deployed_endpoint", "batch_predictions"},
    "monitoring": {"prediction_log", "ground_truth", "drift_report", "performance_report", "ab_report"},
    "governance": {"audit_dossier"},
}


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    from pipeline_project.definitions import defs

    return defs()


@pytest.fixture(scope="module")
def specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def describe(definitions: dg.Definitions) -> dict[str, Any]:
    graph = definitions.resolve_asset_graph()
    assets = {}
    for key in sorted(graph.materializable_asset_keys, key=str):
        node = graph.get(key)
        assets[key.to_user_string()] = {
            "group": node.group_name,
            "deps": sorted(parent.to_user_string() for parent in node.parent_keys),
            "partitioned": node.partitions_def is not None,
            "kinds": sorted(tag.removeprefix("dagster/kind/") for tag in node.tags if tag.startswith("dagster/kind/")),
            "owners": sorted(node.owners),
            "checks": {check.name: "blocking" if graph.get_check_spec(check).blocking else "reports" for check in sorted(node.check_keys)},
            "condition": node.automation_condition.get_label() if node.automation_condition else None,
            "steps": steps_of(graph.get(key).assets_def),
        }
    repository = definitions.get_repository_def()
    return {
        "assets": assets,
        "jobs": {
            job.name: sorted(key.to_user_string() for key in job.asset_layer.executable_asset_keys)
            for job in repository.get_all_jobs()
            if not job.name.startswith("__")
        },
        "schedules": {s.name: [s.cron_schedule, s.job_name, s.default_status.value] for s in repository.schedule_defs},
        "sensors": {
            s.name: [s.sensor_type.value, *(t.job_name for t in s.targets), s.default_status.value] for s in repository.sensor_defs
        },
    }


def steps_of(asset: dg.AssetsDefinition) -> dict[str, dict[str, Any]]:
    """The pool and the retries of each step: one of a plain asset, several of one with dynamic steps."""
    ops = asset.node_def.iterate_op_defs() if isinstance(asset.node_def, dg.GraphDefinition) else [asset.op]
    return {op.name: {"pool": op.pool, "retries": op.retry_policy and [op.retry_policy.max_retries, op.retry_policy.delay]} for op in ops}


def test_the_graph_is_the_snapshot(definitions: dg.Definitions, request: pytest.FixtureRequest) -> None:
    now = json.dumps(describe(definitions), indent=1, sort_keys=True) + "\n"
    if request.config.getoption("--update-snapshots"):
        SNAPSHOT.write_text(now)
    assert now == SNAPSHOT.read_text(), "the graph changed; if wanted, run again with --update-snapshots and read the diff"


def test_every_asset_of_the_design_is_there_in_its_group(specs: dict[str, dg.AssetSpec]) -> None:
    found: dict[str, set[str]] = {}
    for name, spec in specs.items():
        found.setdefault(str(spec.group_name), set()).add(name)
    assert found == FIXED_TABLE


def test_every_asset_says_what_it_is_and_whose(specs: dict[str, dg.AssetSpec]) -> None:
    for name, spec in specs.items():
        assert spec.description, f"{name} has no description"
        assert spec.owners, f"{name} has no owner"
        assert spec.kinds, f"{name} has no kind"
        assert spec.code_version, f"{name} has no code version"


def test_every_gate_of_r197_blocks(definitions: dg.Definitions) -> None:
    checks = describe(definitions)["assets"]["release_gate"]["checks"]
    assert set(checks.values()) == {"blocking"}
    assert len(checks) == 5


def test_today_is_a_partition() -> None:
    from datetime import UTC, datetime

    from pipeline_project.defs.common import DAYS

    assert DAYS.get_partition_keys()[-1] == datetime.now(UTC).date().isoformat()


def test_every_schedule_and_sensor_says_what_it_does(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    for definition in [*repository.schedule_defs, *repository.sensor_defs]:
        assert definition.description, f"{definition.name} shows no text on the automation page"


def test_every_check_names_a_function_of_a_stage() -> None:
    from pipeline_project.defs.common import stage_check

    named = [
        name
        for file in (Path(pipeline_project.__file__).parent / "defs").glob("*/checks.py")
        for name in re.findall(r'"([\w.]+:\w+)"', file.read_text("utf-8"))
    ]
    assert len(named) >= 18
    assert all(callable(stage_check(name)) for name in named)
