"""What runs without being asked: a sensor that was switched on takes a new photo in; failures are told to the local sink."""

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest

from pipeline_project.monitoring.alerts import Alert, list_alerts
from pipeline_project.sample import product_photo
from pipeline_project_tests.graph.conftest import Platform

pytestmark = pytest.mark.slow
T = TypeVar("T")


def test_what_there_is_and_whether_it_is_on(platform: Platform) -> None:
    found = platform.ui.instigators()
    schedules = {name for name, state in found.items() if state["kind"] == "schedule"}
    assert {"daily_ingest", "daily_monitoring", "weekly_training"} <= schedules
    on = {name for name, state in found.items() if state["status"] == "RUNNING"}
    assert on == {"run_failures", "check_failures"}  # on a laptop nothing starts a run unasked; failures always speak


def test_the_daemon_takes_a_new_photo_in_by_itself(platform: Platform) -> None:
    ui, day = platform.ui, platform.days[1]
    before = platform.digest("raw_images", day)
    folder = platform.project.photos / day
    (folder / "images" / "late.jpg").write_bytes(product_photo("toys", np.random.default_rng(7)))
    labels = folder / "labels.csv"
    labels.write_text(labels.read_text() + "images/late.jpg,toys,A late toy,9.99,budget,eu\n")
    ui.switch("new_objects", on=True)
    try:
        run = until(lambda: next(iter(ui.runs(reason="new_objects")), None), 90)
        log = ui.wait(run["runId"])[0]
    finally:
        ui.switch("new_objects", on=False)
    assert ui.instigators()["new_objects"]["status"] == "STOPPED"
    assert log.status == "SUCCESS", log.why
    assert log.job == "ingest_day"
    assert log.tags["dagster/partition"] == day
    assert [name for name in log.materialized if name.startswith("raw_images")] == [f"raw_images[{day}]"]
    assert platform.digest("raw_images", day) != before
    tick = next(tick for tick in ui.ticks("new_objects") if tick["runIds"])
    assert tick["status"] == "SUCCESS"
    assert tick["runIds"] == [log.run_id]


def test_a_failed_run_leaves_an_alert(platform: Platform) -> None:
    refused = platform.first["refused"][0]
    alert = until(lambda: alert_of(platform, "run_failed", refused.run_id), 90)
    assert "deployed_endpoint" in alert.message
    assert "production_deployment" in alert.message
    assert alert.facts["next_step"].startswith("look at the change")
    assert refused.run_id in (platform.project.home / "logs" / "alerts.log").read_text()


def test_a_failed_check_leaves_an_alert(platform: Platform) -> None:
    warned = [name for log in platform.first["ingest"] + platform.first["refused"] for name, passed in log.checks.items() if not passed]
    assert warned, "the small project is meant to have a check that warns"
    asset, check = warned[0].split(".")
    alert = until(lambda: check_alert(platform, asset, check), 90)
    assert alert.severity == "warning"
    assert asset in alert.message


def alert_of(platform: Platform, name: str, run_id: str) -> Alert | None:
    alerts = [alert for _, alert in list_alerts(platform.context.artifacts.bytes) if alert.name == name]
    return next((alert for alert in alerts if alert.facts.get("run") == run_id), None)


def check_alert(platform: Platform, asset: str, check: str) -> Alert | None:
    alerts = [alert for _, alert in list_alerts(platform.context.artifacts.bytes) if alert.name == "check_failed"]
    return next((alert for alert in alerts if (alert.facts.get("asset"), alert.facts.get("check")) == (asset, check)), None)


def until(look: Callable[[], T | None], seconds: float) -> T:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < deadline, "nothing was found in time"
        time.sleep(0.3)
    return found
