"""When the reports ask for a new training run (R183)."""

from collections.abc import Callable
from typing import Any

from pipeline_project.stage import StageContext

_LOOK_BACK_DAYS = 7


def days_of_drift(context: StageContext) -> list[str]:
    """Recent days with data drift or prediction drift that no training run has answered yet, oldest first."""
    return _unanswered(context, "drift_report", lambda report: _drifted(report.json("drift.json")))


def days_of_low_accuracy(context: StageContext) -> list[str]:
    """Recent days whose critical accuracy alert fired and that no training run has answered yet, oldest first."""
    return _unanswered(context, "performance_report", lambda report: _inaccurate(report.json("performance.json")))


def _drifted(report: dict[str, Any]) -> bool:
    return bool(report["data"]["detected"] or any(p["prediction"]["detected"] for p in report["packages"].values()))


def _inaccurate(report: dict[str, Any]) -> bool:
    return any(alert["fired"] and alert["name"] == "accuracy" for alert in report["alerts"])


def _unanswered(context: StageContext, name: str, alarming: Callable[[Any], bool]) -> list[str]:
    """The days whose report alarms and is not older than the newest trained model."""
    model = context.artifacts.find("trained_model")
    recent = context.artifacts.partitions(name)[-_LOOK_BACK_DAYS:]
    reports = {day: context.artifacts.latest(name, day) for day in recent}
    return [day for day, report in reports.items() if (model is None or report.created >= model.created) and alarming(report)]
