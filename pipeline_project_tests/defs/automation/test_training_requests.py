"""The sensors that ask for training: once for an alert day, never beside another training run."""

from datetime import timedelta

import pytest

from pipeline_project.digests import canonical_json
from pipeline_project_tests.defs.automation.shop import Shop, days_ago

pytestmark = pytest.mark.slow
DAY = days_ago(3)


@pytest.fixture(params=["drift", "performance"])
def reason(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def alarm(shop: Shop, reason: str, ago: int = 3) -> None:
    day, publish = days_ago(ago).isoformat(), shop.context.artifacts.publish
    if reason == "drift":
        publish("drift_report", {"drift.json": canonical_json({"data": {"detected": True}, "packages": {}})}, partition=day)
    else:
        report = {"alerts": [{"name": "accuracy", "fired": True}]}
        publish("performance_report", {"performance.json": canonical_json(report)}, partition=day)


def test_no_alert_no_run(shop: Shop, reason: str) -> None:
    assert shop.sense(f"{reason}_asks_for_training").skip_message == f"no {reason} alert since the last model was trained"


def test_an_alert_day_is_asked_for_once(shop: Shop, reason: str) -> None:
    alarm(shop, reason)
    (request,) = shop.sense(f"{reason}_asks_for_training").run_requests
    assert (request.tags["reason"], request.tags["alert_day"]) == (reason, str(DAY))
    run = shop.start(job="train_and_stage", **request.tags)
    assert shop.sense(f"{reason}_asks_for_training").skip_message.endswith(f"run {run.run_id} trains already")
    shop.instance.report_run_failed(run)
    assert "ended as failure; a person must look" in shop.sense(f"{reason}_asks_for_training").skip_message
    alarm(shop, reason, ago=2)
    (request,) = shop.sense(f"{reason}_asks_for_training").run_requests
    assert request.tags["alert_day"] == str(DAY + timedelta(days=1))


def test_a_training_run_that_a_person_started_is_enough(shop: Shop, reason: str) -> None:
    alarm(shop, reason)
    shop.start("trained_model")
    assert not shop.sense(f"{reason}_asks_for_training").run_requests
