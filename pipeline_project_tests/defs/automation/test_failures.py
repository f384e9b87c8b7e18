"""Failures speak: what stands in the store and in logs/alerts.log after a run or a check failed, once each."""

import dagster as dg
import pytest

from pipeline_project.defs.automation.failures import run_alert, run_failures
from pipeline_project.monitoring.alerts import list_alerts
from pipeline_project_tests.defs.automation.shop import Shop, days_ago

pytestmark = pytest.mark.slow
DAY = days_ago(1)


def fail(shop: Shop) -> dg.ExecuteInProcessResult:
    """A day without labels: its blocking checks fail, and the run with them."""
    shop.arrive(DAY, labels=False)
    (result,) = shop.run("ingest_day", shop.sense("new_objects").run_requests)
    assert not result.success
    return result


def tell_run_failure(shop: Shop, result: dg.ExecuteInProcessResult) -> None:
    event = next(event for event in result.all_events if event.event_type == dg.DagsterEventType.RUN_FAILURE)
    run = shop.instance.get_run_by_id(result.run_id)
    assert run is not None
    context = dg.build_run_status_sensor_context("run_failures", event, shop.instance, run)
    run_failures(context.for_run_failure())


def test_a_failed_blocking_check_is_told_once_and_says_where_and_what_next(shop: Shop) -> None:
    result = fail(shop)
    first = shop.sense("check_failures")
    lines = [line for line in shop.alerts if "check=missing_values" in line]
    assert len(lines) == 1
    for part in ("critical", f"raw_images of {DAY}", f"run={result.run_id}", "job=ingest_day", f"page=/runs/{result.run_id}", "next_step="):
        assert part in lines[0]
    told = list(shop.alerts)
    assert "failed checks told" in first.skip_message
    assert shop.sense("check_failures", first.cursor).skip_message == "no check failed since the last look"
    shop.sense("check_failures")  # a sensor that lost its cursor looks at everything again
    assert shop.alerts == told
    assert len(list_alerts(shop.context.artifacts.bytes)) == len(told)


def test_checks_that_only_report_are_warnings(shop: Shop) -> None:
    shop.arrive(DAY)
    photo = next((shop.source / str(DAY)).glob("*.jpg"))
    (photo.parent / "copy.jpg").write_bytes(photo.read_bytes())
    labels = photo.parent / "labels.csv"
    labels.write_text(labels.read_text() + "copy.jpg,toys\n")
    shop.run("ingest_day", shop.sense("new_objects").run_requests)
    shop.sense("check_failures")
    (line,) = [line for line in shop.alerts if "check=duplicates" in line]
    assert " warning " in line


def test_passed_checks_and_runs_say_nothing(shop: Shop) -> None:
    shop.arrive(DAY)
    assert shop.run("ingest_day", shop.sense("new_objects").run_requests)[0].success
    shop.sense("check_failures")
    assert shop.alerts == []


def test_a_failed_run_is_told_once_in_the_steps_own_words(shop: Shop) -> None:
    (result,) = shop.run("ingest_day", [dg.RunRequest(partition_key=str(days_ago(2)))])
    assert result.success, "an empty day is no failure"
    job = shop.repository.get_job("__ASSET_JOB")
    result = job.execute_in_process(
        instance=shop.instance, asset_selection=[dg.AssetKey("image_pack")], partition_key=str(DAY), raise_on_error=False
    )
    tell_run_failure(shop, result)
    tell_run_failure(shop, result)
    (line,) = shop.alerts
    for part in (
        "critical",
        "run_failed: image_pack:",
        "Materialize validated_manifest",
        f"partition={DAY}",
        f"page=/runs/{result.run_id}",
    ):
        assert part in line


def test_a_crashed_run_that_is_started_again_is_a_warning(shop: Shop) -> None:
    run = shop.start(job="ingest_day", day=DAY, **{"dagster/will_retry": "true"})
    shop.instance.report_run_failed(run, message="the worker is gone")
    alert = run_alert(shop.instance, run)
    assert (alert.severity, alert.facts["next_step"]) == ("warning", "none: it is started again by itself")
    assert "the worker is gone" in alert.message


def test_both_sensors_are_always_on(shop: Shop) -> None:
    assert shop.settings.automation.default == "stopped"
    for sensor in shop.repository.sensor_defs:
        on = sensor.default_status == dg.DefaultSensorStatus.RUNNING
        assert on == (sensor.name in ("run_failures", "check_failures"))
