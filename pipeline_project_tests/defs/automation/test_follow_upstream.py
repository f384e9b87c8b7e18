"""The sensor follow_upstream on the real definitions: which assets follow, in which runs, and with which tags."""

import dagster as dg
import pytest

from pipeline_project_tests.defs.automation.shop import Shop, days_ago

pytestmark = pytest.mark.slow
DAY, LATE = days_ago(2), days_ago(9)
FOLLOWERS = {
    "validated_manifest",
    "image_pack",
    "image_features",
    "data_profile",
    "dataset_splits",
    "drift_report",
    "performance_report",
    "ab_report",
    "audit_dossier",
}


class Ticker:
    """Ticks of the sensor, each with the cursor of the one before."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.cursor: str | None = None
        assert self.tick() == []

    def tick(self) -> list[dg.RunRequest]:
        result = self.shop.sense("follow_upstream", self.cursor)
        self.cursor = result.cursor
        return list(result.run_requests or [])


def assets_of(request: dg.RunRequest) -> set[str]:
    return {key.to_user_string() for key in request.asset_selection or ()}


def materialize(shop: Shop, *names: str, day: str | None = None) -> dg.ExecuteInProcessResult:
    job = shop.repository.get_job("__ASSET_JOB")
    keys = [dg.AssetKey(name) for name in names]
    return job.execute_in_process(instance=shop.instance, asset_selection=keys, partition_key=day, raise_on_error=False)


def test_cheap_assets_follow_and_no_others(shop: Shop) -> None:
    graph = shop.defs.resolve_asset_graph()
    found = {key.to_user_string() for key in graph.materializable_asset_keys if graph.get(key).automation_condition}
    assert found == FOLLOWERS


def test_a_day_taken_in_by_its_job_is_followed_by_the_assets_of_all_days_only(shop: Shop) -> None:
    ticker = Ticker(shop)
    shop.arrive(DAY)
    shop.run("ingest_day", shop.sense("new_objects").run_requests)
    (request,) = ticker.tick()
    assert assets_of(request) == {"data_profile", "dataset_splits"}
    assert request.tags["reason"] == "follow_upstream"
    assert ticker.tick() == []


def test_an_inventory_made_by_hand_is_followed_by_one_run_of_its_day_then_by_all_days(shop: Shop) -> None:
    ticker = Ticker(shop)
    for day in (LATE, DAY):
        shop.arrive(day)
        assert materialize(shop, "raw_images", day=str(day)).success
    requests = ticker.tick()
    assert {request.partition_key for request in requests} == {str(LATE), str(DAY)}
    for request in requests:
        assert assets_of(request) == {"validated_manifest", "image_pack", "image_features"}
        assert materialize(shop, *assets_of(request), day=request.partition_key).success
    (request,) = ticker.tick()
    assert assets_of(request) == {"data_profile", "dataset_splits"}


def test_a_bad_day_is_not_followed(shop: Shop) -> None:
    ticker = Ticker(shop)
    shop.arrive(DAY, labels=False)
    assert not materialize(shop, "raw_images", day=str(DAY)).success
    assert ticker.tick() == []
    assert ticker.tick() == []


def test_late_truth_is_followed_by_the_report_of_the_day_it_arrived_on(shop: Shop) -> None:
    ticker = Ticker(shop)
    assert materialize(shop, "prediction_log", "ground_truth", day=str(LATE)).success
    requests = ticker.tick()
    by_day = {request.partition_key: assets_of(request) for request in requests}
    assert by_day == {str(LATE): {"drift_report", "performance_report"}, None: {"ab_report"}}
    for day, names in by_day.items():
        materialize(shop, *names, day=day)
    assert ticker.tick() == []
    assert materialize(shop, "ground_truth", day=str(LATE)).success
    assert {r.partition_key: assets_of(r) for r in ticker.tick()} == {str(LATE): {"performance_report"}, None: {"ab_report"}}


def test_the_dossier_follows_what_was_deployed_but_not_what_failed_its_checks(shop: Shop) -> None:
    ticker = Ticker(shop)
    deployed = dg.AssetKey("deployed_endpoint")
    shop.instance.report_runless_asset_event(dg.AssetMaterialization(deployed))
    assert ticker.tick() == [], "its checks have not looked yet"
    (target,) = shop.instance.fetch_materializations(deployed, limit=1).records
    for name, passed in {"approval": True, "smoke_test": False, "observed_split": True}.items():
        evaluate(shop, name, target, passed=passed)
    assert ticker.tick() == []
    evaluate(shop, "smoke_test", target, passed=True)
    (request,) = ticker.tick()
    assert assets_of(request) == {"audit_dossier"}


def evaluate(shop: Shop, name: str, target: dg.EventLogRecord, *, passed: bool) -> None:
    from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

    looked_at = AssetCheckEvaluationTargetMaterializationData(
        run_id=target.run_id, storage_id=target.storage_id, timestamp=target.timestamp
    )
    shop.instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("deployed_endpoint"),
            check_name=name,
            passed=passed,
            blocking=True,
            target_materialization_data=looked_at,
        )
    )
