"""Which runs leave the event log: a real instance on disk, real materializations; time is given, not waited for."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster import AssetRecordsFilter, DagsterInstance

from pipeline_project.defs.housekeeping import RemovableRun, removable_runs, remove_runs

DAYS = dg.StaticPartitionsDefinition(["mon", "tue"])


@dg.asset
def plain() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"n": 1})


@dg.asset(partitions_def=DAYS)
def daily() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult()


@dg.asset_check(asset=plain)
def fine() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@dg.asset
def broken() -> None:
    raise dg.Failure("bad data", allow_retries=False)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"telemetry": {"enabled": False}}) as found:
        yield found


def run(instance: DagsterInstance, *assets: dg.AssetsDefinition, partition: str | None = None, tags: dict[str, str] | None = None) -> str:
    return dg.materialize(list(assets), instance=instance, partition_key=partition, tags=tags, raise_on_error=False).run_id


def ids(runs: list[RemovableRun]) -> list[str]:
    return [found.run_id for found in runs]


@pytest.fixture(autouse=True)
def _later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run of a test is over a year old."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=400)

    monkeypatch.setattr("pipeline_project.defs.housekeeping.datetime", Later)


def long_after() -> datetime:
    return datetime.now(UTC) + timedelta(days=300)


def test_the_latest_materialization_of_an_asset_and_of_each_partition_stays(instance: DagsterInstance) -> None:
    first, second = run(instance, plain), run(instance, plain)
    monday, tuesday, again = (run(instance, daily, partition=day) for day in ("mon", "tue", "tue"))
    failed = run(instance, broken)
    chosen = removable_runs(instance, set(), long_after())
    assert ids(chosen) == [first, tuesday, failed]
    assert remove_runs(instance, chosen) == [first, tuesday, failed]
    assert {record.dagster_run.run_id for record in instance.get_run_records()} == {second, monday, again}
    latest = instance.get_latest_materialization_event(dg.AssetKey("plain"))
    assert latest is not None
    assert latest.run_id == second
    assert latest.asset_materialization is not None
    assert latest.asset_materialization.metadata["n"].value == 1
    assert instance.get_materialized_partitions(dg.AssetKey("daily")) == {"mon", "tue"}
    found = instance.fetch_materializations(AssetRecordsFilter(asset_key=dg.AssetKey("daily")), limit=10).records
    assert {record.run_id for record in found} == {monday, again}
    assert instance.all_logs(first) == []
    assert instance.all_logs(second)
    assert removable_runs(instance, set(), long_after()) == []


def test_runs_that_made_what_is_kept_and_young_runs_stay(instance: DagsterInstance) -> None:
    first, second, _ = (run(instance, plain) for _ in range(3))
    assert ids(removable_runs(instance, {first}, long_after())) == [second]
    assert removable_runs(instance, set(), datetime.now(UTC) - timedelta(hours=1)) == []


def test_no_age_is_less_than_a_day(instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    run(instance, plain)
    run(instance, plain)
    assert removable_runs(instance, set(), long_after()) == []


def test_what_has_not_ended_and_what_it_continues_stays(instance: DagsterInstance) -> None:
    failed = run(instance, broken)
    other = run(instance, broken)
    job = dg.define_asset_job("again", [broken]).resolve(asset_graph=dg.Definitions(assets=[broken]).resolve_asset_graph())
    waiting = instance.create_run_for_job(job, tags={"dagster/parent_run_id": failed, "dagster/root_run_id": failed})
    assert waiting.status == dg.DagsterRunStatus.NOT_STARTED
    assert ids(removable_runs(instance, set(), long_after())) == [other]


def test_the_memory_of_sensors_stays_for_a_month(instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, _ = run(instance, plain, tags={"dagster/run_key": "2026-01-01-x"}), run(instance, plain)

    def chosen_after(days: int) -> list[str]:
        class Later(datetime):
            @classmethod
            def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
                return datetime.now(UTC) + timedelta(days=days)

        monkeypatch.setattr("pipeline_project.defs.housekeeping.datetime", Later)
        return ids(removable_runs(instance, set(), long_after()))

    assert chosen_after(20) == []
    assert chosen_after(40) == [asked]


def test_a_run_that_became_the_latest_is_spared(instance: DagsterInstance) -> None:
    first, second = run(instance, plain), run(instance, plain)
    chosen = removable_runs(instance, set(), long_after())
    assert ids(chosen) == [first]
    instance.delete_run(second)
    assert remove_runs(instance, chosen) == []
    assert instance.get_run_by_id(first) is not None


def test_check_results_outlive_their_run(instance: DagsterInstance) -> None:
    checked = dg.materialize([plain, fine], instance=instance).run_id
    run(instance, plain)
    chosen = removable_runs(instance, set(), long_after())
    assert ids(chosen) == [checked]
    remove_runs(instance, chosen)
    key = dg.AssetCheckKey(dg.AssetKey("plain"), "fine")
    assert [r.status.value for r in instance.event_log_storage.get_asset_check_execution_history(key, limit=5)] == ["SUCCEEDED"]
