"""What an engineer launches from the asset graph: a day, a range, one asset, all downstream, a check, twice at once."""

import pytest

from pipeline_project_tests.graph.conftest import INGEST, Platform

pytestmark = pytest.mark.slow
RECOMPUTE = {"recompute": "true"}


@pytest.fixture(scope="module")
def range_of_days(platform: Platform) -> str:
    """A backfill of two assets over all days. Dagster looks at backfills every 30 s: it runs beside the other cases."""
    return platform.ui.backfill(["image_pack", "image_features"], platform.days, tags=RECOMPUTE)


@pytest.fixture(scope="module", autouse=True)
def _launched_early(range_of_days: str) -> None:
    """Before the first case."""


def test_one_day_of_the_ingest_assets(platform: Platform) -> None:
    for day, log in zip(platform.days, platform.first["ingest"], strict=True):
        assert log.materialized == [f"{asset}[{day}]" for asset in INGEST]
        assert set(log.checks) >= {f"raw_images.{name}" for name in platform.ui.checks_of("raw_images")}
        for asset in INGEST:
            assert platform.ui.materializations(asset, day)[-1].run_id == log.run_id


def test_one_asset_alone_and_a_check_alone(platform: Platform) -> None:
    day, ui = platform.days[0], platform.ui
    before = platform.digest("image_features", day)
    alone, check = ui.wait(ui.materialize("image_features", partition=day), ui.run_checks("trained_model", "finite"))
    assert alone.status == "SUCCESS", alone
    assert alone.materialized == [f"image_features[{day}]"]
    assert platform.digest("image_features", day) == before
    assert check.status == "SUCCESS", check
    assert check.materialized == []
    assert check.checks["trained_model.finite"] is True
    assert ui.check_executions("trained_model", "finite")[0]["runId"] == check.run_id


def test_every_check_may_be_executed_without_materializing(platform: Platform) -> None:
    query = """{ assetNodes { assetKey { path } assetChecksOrError { ... on AssetChecks { checks { name canExecuteIndividually } } } } }"""
    nodes = platform.ui.ask(query)["assetNodes"]
    may = {check["canExecuteIndividually"] for node in nodes for check in node["assetChecksOrError"]["checks"]}
    assert may == {"CAN_EXECUTE"}  # otherwise the UI's button is grey


def test_a_check_of_one_day_alone(platform: Platform) -> None:
    day, ui = platform.days[1], platform.ui
    log = ui.wait(ui.run_checks("validated_manifest", partition=day))[0]
    assert log.status == "SUCCESS", log
    assert log.materialized == []
    assert set(log.checks) == {f"validated_manifest.{name}" for name in ui.checks_of("validated_manifest")}


def test_all_downstream_of_an_asset(platform: Platform) -> None:
    ui = platform.ui
    below = ui.downstream("evaluation_report")
    assert {"release_gate", "registered_model", "deployed_endpoint", "batch_predictions", "drift_report", "audit_dossier"} < set(below)
    log = ui.wait(ui.materialize(*below, partition=platform.days[-1]))[0]
    assert log.status == "SUCCESS", log.why
    assert {name.split("[")[0] for name in log.materialized} == set(below)
    assert {name for name in log.materialized if "[" in name} == {
        f"{asset}[{platform.days[-1]}]"
        for asset in ("batch_predictions", "prediction_log", "ground_truth", "drift_report", "performance_report")
    }


def test_a_second_run_computes_no_heavy_asset_and_says_why(platform: Platform) -> None:
    heavy = ("data_profile", "dataset_splits", "tuned_hyperparameters", "cross_validation_report", "trained_model", "model_package")
    judged = ("evaluation_report", "load_test_report")
    settled = platform.run(*heavy, *judged)  # what tests before changed
    assert settled.status == "SUCCESS", settled.why
    log = platform.run(*heavy, *judged)
    assert log.status == "SUCCESS", log.why
    assert not any(
        step.startswith(("tuned_hyperparameters.run_worker", "cross_validation_report.train_fold")) for step in log.steps_started
    )
    for asset in (*heavy, *judged):
        metadata = log.metadata[asset]
        assert metadata["reused"] is True, f"{asset}: {metadata['reuse_reason']}"
        assert metadata["reuse_reason"].startswith("reused: content, code and configuration are those of the result made")
        assert len(metadata["reuse_key"]) == 64


def test_nothing_is_shown_as_unsynced_after_runs_that_changed_nothing(platform: Platform) -> None:
    before = platform.digest("dataset_splits")
    log = platform.run("dataset_splits", "model_package", tags=RECOMPUTE)
    assert log.status == "SUCCESS", log.why
    assert platform.digest("dataset_splits") == before
    assert platform.ui.stale(platform.days) == {}


def test_two_runs_of_the_same_asset_at_once(platform: Platform) -> None:
    ui, day = platform.ui, platform.days[0]
    before = {asset: platform.digest(asset, day) for asset in INGEST}, platform.digest("dataset_splits")
    twins = [ui.materialize(*INGEST, partition=day, tags=RECOMPUTE) for _ in range(2)]
    twins += [ui.materialize("dataset_splits", tags=RECOMPUTE) for _ in range(2)]
    for log in ui.wait(*twins):
        assert log.status == "SUCCESS", log.why
    assert ({asset: platform.digest(asset, day) for asset in INGEST}, platform.digest("dataset_splits")) == before
    assert ui.claimed_slots() == {}


def test_a_range_of_days_is_a_run_for_each(platform: Platform, range_of_days: str) -> None:
    before = {(asset, day): platform.digest(asset, day) for asset in ("image_pack", "image_features") for day in platform.days}
    found = platform.ui.wait_backfill(range_of_days)
    assert found["status"] == "COMPLETED_SUCCESS", found
    logs = [platform.ui.log(run["runId"]) for run in found["runs"]]
    assert [log.status for log in logs] == ["SUCCESS"] * 3
    assert sorted(name for log in logs for name in log.materialized) == sorted(f"{asset}[{day}]" for asset, day in before)
    assert all(len(log.materialized) == 2 for log in logs)  # a run for each day
    assert {key: platform.digest(*key) for key in before} == before
