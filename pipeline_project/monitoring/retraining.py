"""When the reports ask for a new training run (R183)."""

from pipeline_project.stage import StageContext

_LOOK_BACK_DAYS = 7


def reasons_to_retrain(context: StageContext) -> dict[str, str]:
    """{day: reason} of recent days with data drift, prediction drift or a fired performance alert; reasons are tag-safe words."""
    reasons: dict[str, str] = {}
    for day in context.artifacts.partitions("drift_report")[-_LOOK_BACK_DAYS:]:
        report = context.artifacts.latest("drift_report", day).json("drift.json")
        drifted = report["data"]["detected"] or any(p["prediction"]["detected"] for p in report["packages"].values())
        if drifted:
            reasons[day] = "drift"
    for day in context.artifacts.partitions("performance_report")[-_LOOK_BACK_DAYS:]:
        alerts = context.artifacts.latest("performance_report", day).json("performance.json")["alerts"]
        if any(alert["fired"] and alert["name"] == "accuracy" for alert in alerts):
            reasons[day] = "performance"
    return dict(sorted(reasons.items()))
