"""New objects and the daily ingest, with the real definitions: what is asked for, what is not, and what a person is told."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from pipeline_project.defs.resources import project_settings
from pipeline_project.trust.approvals import record_approval
from pipeline_project.trust.signing import load_or_create_key
from pipeline_project_tests.defs.automation.shop import Shop, days_ago

pytestmark = pytest.mark.slow
TODAY, YESTERDAY, BEFORE = days_ago(0), days_ago(1), days_ago(4)


def asked(result: object) -> list[str]:
    return [request.partition_key for request in result.run_requests]  # type: ignore[attr-defined]


def tonight() -> datetime:
    return datetime.now(UTC).replace(hour=2, minute=0)


def test_an_empty_source_asks_for_nothing_and_says_so(shop: Shop) -> None:
    assert shop.sense("new_objects").skip_message == "every day of the source is as it was last taken in"
    assert f"nothing arrived for {YESTERDAY}" in shop.schedule("daily_ingest", tonight()).skip_message


def test_days_are_asked_for_until_they_are_taken_in(shop: Shop) -> None:
    shop.arrive(BEFORE)
    shop.arrive(TODAY)
    ticked = shop.sense("new_objects")
    assert asked(ticked) == [str(BEFORE), str(TODAY)]
    for request in ticked.run_requests:
        assert request.tags["reason"] == "new_objects"
        assert request.run_key == f"{request.partition_key}-{request.tags['fingerprint']}-{request.tags['attempt']}"
    assert all(result.success for result in shop.run("ingest_day", ticked.run_requests))
    assert not shop.sense("new_objects").run_requests
    shop.arrive(BEFORE, seed=1)
    assert asked(shop.sense("new_objects")) == [str(BEFORE)]


def test_the_daily_ingest_asks_for_late_days_and_leaves_today(shop: Shop) -> None:
    for day in (BEFORE, YESTERDAY, TODAY):
        shop.arrive(day)
    ticked = shop.schedule("daily_ingest", tonight())
    assert asked(ticked) == [str(BEFORE), str(YESTERDAY)]
    assert {request.tags["reason"] for request in ticked.run_requests} == {"daily_ingest"}


def test_the_daily_ingest_does_not_ask_for_what_the_sensor_has_under_way(shop: Shop) -> None:
    shop.arrive(YESTERDAY)
    shop.start(job="ingest_day", day=YESTERDAY)
    assert f"in flight: {YESTERDAY}" in shop.schedule("daily_ingest", tonight()).skip_message


@pytest.mark.parametrize("assets", [("raw_images", "validated_manifest"), ("image_features",)])
def test_a_day_that_a_person_started_in_the_ui_is_in_flight(shop: Shop, assets: tuple[str, ...]) -> None:
    shop.arrive(YESTERDAY)
    shop.arrive(BEFORE)
    shop.start(*assets, day=YESTERDAY)
    assert asked(shop.sense("new_objects")) == [str(BEFORE)]


def test_a_run_of_other_assets_on_that_day_does_not_matter(shop: Shop) -> None:
    shop.arrive(YESTERDAY)
    shop.start("drift_report", day=YESTERDAY)
    assert asked(shop.sense("new_objects")) == [str(YESTERDAY)]


def test_a_run_that_crashed_is_asked_for_again_later(shop: Shop) -> None:
    shop.arrive(YESTERDAY)
    request = shop.sense("new_objects").run_requests[0]
    run = shop.start(job="ingest_day", day=YESTERDAY, **request.tags)
    shop.instance.report_run_failed(run)
    ticked = shop.sense("new_objects")
    assert not ticked.run_requests
    assert f"{YESTERDAY} is tried again after" in ticked.skip_message


def test_bad_data_waits_for_a_person_until_it_changes(shop: Shop) -> None:
    shop.arrive(YESTERDAY, labels=False)
    results = shop.run("ingest_day", shop.sense("new_objects").run_requests)
    assert not results[0].success
    told = shop.sense("new_objects").skip_message
    assert f"{YESTERDAY} waits for a person: raw_images: the check" in told
    assert results[0].run_id in told
    shop.arrive(YESTERDAY)
    again = shop.sense("new_objects").run_requests
    assert [request.tags["attempt"] for request in again] == ["1"]
    assert shop.run("ingest_day", again)[0].success
    assert not shop.sense("new_objects").run_requests


def test_a_step_that_refuses_waits_for_a_person_and_is_tried_again_once_that_is_approved(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop.arrive(YESTERDAY)
    shop.run("ingest_day", shop.sense("new_objects").run_requests)
    moved = shop.source.rename(tmp_path / "moved")
    monkeypatch.setenv("PIPELINE__DATA__SOURCE", str(moved))
    project_settings.cache_clear()
    shop.source = moved
    shop.arrive(BEFORE)
    request = shop.sense("new_objects").run_requests[0]
    (refused,) = shop.run("ingest_day", [request])
    told = shop.sense("new_objects").skip_message
    assert f"{BEFORE} waits for a person: The data source changed" in told
    facts = refused.get_step_failure_events()[0].step_failure_data.user_failure_data.metadata
    assert facts["failure_kind"].value == "needs_approval"
    key = load_or_create_key(tmp_path / "ada.pem", shop.settings.trusted_approvers)
    subject = facts["approval_subject"].value
    record_approval(shop.context.artifacts.bytes, key, "data_source_modifications", subject, approver="Ada", reason="moved")
    assert f"{BEFORE} is tried again after" in shop.sense("new_objects").skip_message


def test_a_cancelled_day_is_left_to_the_person_who_cancelled_it(shop: Shop) -> None:
    shop.arrive(YESTERDAY)
    request = shop.sense("new_objects").run_requests[0]
    run = shop.start(job="ingest_day", day=YESTERDAY, **request.tags)
    shop.instance.report_run_canceled(run)
    assert f"{YESTERDAY} waits for a person: its run was cancelled" in shop.sense("new_objects").skip_message


def test_an_unreachable_source_is_a_failed_tick(shop: Shop) -> None:
    shop.source.rename(shop.source.with_name("moved"))
    with pytest.raises(Exception, match="is not a folder"):
        shop.sense("new_objects")


def test_monitoring_asks_for_the_day_that_ended(shop: Shop) -> None:
    (request,) = shop.schedule("daily_monitoring", tonight()).run_requests
    assert (request.partition_key, request.tags["reason"]) == (str(YESTERDAY), "daily_monitoring")
    start = datetime.combine(shop.settings.data.start_date, datetime.min.time(), UTC)
    assert "no day has ended yet" in shop.schedule("daily_monitoring", start + timedelta(hours=4)).skip_message


def test_weekly_training_does_not_start_beside_another(shop: Shop) -> None:
    (request,) = shop.schedule("weekly_training", tonight()).run_requests
    assert request.tags["reason"] == "weekly_training"
    run = shop.start("trained_model")
    assert shop.schedule("weekly_training", tonight()).skip_message == f"run {run.run_id} trains already"
    shop.instance.report_run_failed(run)
    assert shop.schedule("weekly_training", tonight()).run_requests


def test_tags_are_what_dagster_accepts(shop: Shop) -> None:
    shop.arrive(YESTERDAY)
    requests = [*shop.sense("new_objects").run_requests, *shop.schedule("daily_monitoring", tonight()).run_requests]
    for request in requests:
        assert all(len(value) <= 63 for value in request.tags.values())
        dg.RunRequest(tags=dict(request.tags))
