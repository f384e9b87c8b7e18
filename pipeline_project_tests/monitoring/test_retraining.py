"""Which days ask for training: alarming ones that no model has answered yet."""

from datetime import date, timedelta
from typing import Any

import pytest

from pipeline_project.digests import canonical_json
from pipeline_project.monitoring.retraining import days_of_drift, days_of_low_accuracy
from pipeline_project_tests.monitoring.conftest import World

DAY = date(2026, 11, 10)


def drift(world: World, day: date, *, data: bool | None = False, prediction: bool | None = False) -> None:
    report: dict[str, Any] = {"data": {"detected": data}, "packages": {"p": {"prediction": {"detected": prediction}}}}
    world.context.artifacts.publish("drift_report", {"drift.json": canonical_json(report)}, partition=day.isoformat())


def performance(world: World, day: date, *alerts: tuple[str, bool]) -> None:
    report = {"alerts": [{"name": name, "fired": fired} for name, fired in alerts]}
    world.context.artifacts.publish("performance_report", {"performance.json": canonical_json(report)}, partition=day.isoformat())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """When artefacts are published: an hour later with every call of `tick`."""
    from datetime import UTC, datetime

    class Clock(datetime):
        moment = datetime(2026, 11, 20, tzinfo=UTC)

        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return cls.moment

        @classmethod
        def tick(cls) -> None:
            cls.moment += timedelta(hours=1)

    monkeypatch.setattr("pipeline_project.storage.artifacts.datetime", Clock)
    return Clock


def test_drift_of_data_or_predictions_asks_and_no_verdict_does_not(world: World) -> None:
    drift(world, DAY, data=True)
    drift(world, DAY + timedelta(days=1), prediction=True)
    drift(world, DAY + timedelta(days=2), data=None, prediction=None)
    drift(world, DAY + timedelta(days=3))
    assert days_of_drift(world.context) == ["2026-11-10", "2026-11-11"]


def test_only_the_critical_accuracy_alert_asks(world: World) -> None:
    performance(world, DAY, ("accuracy", True))
    performance(world, DAY + timedelta(days=1), ("accuracy", False), ("p99_latency", True))
    assert days_of_low_accuracy(world.context) == ["2026-11-10"]


def test_old_days_do_not_ask(world: World) -> None:
    for n in range(9):
        drift(world, DAY + timedelta(days=n), data=n < 3)
    assert days_of_drift(world.context) == ["2026-11-12"]


def test_a_model_trained_since_answers(world: World, clock: Any) -> None:
    drift(world, DAY, data=True)
    performance(world, DAY, ("accuracy", True))
    clock.tick()
    world.context.artifacts.publish("trained_model", {"weights": b"w"})
    assert days_of_drift(world.context) == days_of_low_accuracy(world.context) == []
    clock.tick()
    drift(world, DAY + timedelta(days=1), data=True)
    assert days_of_drift(world.context) == ["2026-11-11"]
