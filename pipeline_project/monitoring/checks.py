"""Checks of the monitoring assets: over what was published, so each can be run alone."""

from datetime import date

from pipeline_project.monitoring.alerts import Alert
from pipeline_project.stage import CheckOutcome, MetadataValue, StageContext


def check_prediction_log(context: StageContext, day: date) -> list[CheckOutcome]:
    """no_gap: no worker's sequence has a hole, so no logged prediction was lost (R181)."""
    summary = context.artifacts.latest("prediction_log", day.isoformat()).json("summary.json")
    gaps: dict[str, list[list[int]]] = summary["gaps"]
    lost = sum(last - first + 1 for holes in gaps.values() for first, last in holes)
    if not gaps:
        detail = f"{summary['records']} records, every worker's sequence is whole."
    else:
        named = "; ".join(f"{worker} lacks {', '.join(f'{a}-{b}' for a, b in holes[:5])}" for worker, holes in list(gaps.items())[:5])
        detail = f"{lost} records are lost: {named}. Look for their segments in the worker's spool folder, then materialize this day again."
    return [CheckOutcome("no_gap", not gaps, detail, {"lost_records": lost, "workers_with_gaps": len(gaps)})]


def check_ground_truth(context: StageContext, day: date) -> list[CheckOutcome]:
    """domain: every true label received is a known class."""
    summary = context.artifacts.latest("ground_truth", day.isoformat()).json("summary.json")
    unknown: dict[str, int] = summary["unknown_labels"]
    named = ", ".join(f"{label!r} ({count})" for label, count in list(unknown.items())[:10])
    known = ", ".join(context.settings.data.classes)
    detail = (
        f"{named}: not among {known}. Correct them at their source; they count as wrong."
        if unknown
        else f"{summary['records']} labels, all known."
    )
    return [CheckOutcome("domain", not unknown, detail, {"labels": summary["records"], "unknown": sum(unknown.values())})]


def check_drift_report(context: StageContext, day: date) -> list[CheckOutcome]:
    """data_drift, prediction_drift, feature_drift: nothing has moved. Too few predictions pass and say so; unreadable inputs fail."""
    report = context.artifacts.latest("drift_report", day.isoformat()).json("drift.json")
    data = report["data"]
    moved = [name for name, column in data["columns"].items() if column["drifted"]]
    text = f"{len(moved)} of {len(data['columns'])} features have moved: {', '.join(moved) or 'none'}."
    if data["status"] != "measured":
        text = f"{data['status'].replace('_', ' ')}: {data['detail']}"
    share = -1.0 if data["drift_share"] is None else data["drift_share"]
    measured = {"drift_share": share} if share >= 0 else {}
    outcomes = [CheckOutcome("data_drift", data["status"] != "unavailable" and not data["detected"], text, measured)]
    for kind, number in (("prediction", "kl"), ("feature", "mmd_squared")):
        parts = {digest: package[kind] for digest, package in report["packages"].items()}
        lines = []
        for digest, part in parts.items():
            if part["status"] == "measured":
                verdict = "drift" if part["detected"] else "no drift"
                lines.append(f"{digest[:12]}: {verdict}, {number} {part[number]:g}, p {part['p_value']:g}")
            else:
                lines.append(f"{digest[:12]}: {part['status'].replace('_', ' ')}: {part['detail']}")
        passed = all(part["status"] != "unavailable" and not part["detected"] for part in parts.values())
        values = {digest[:12]: part[number] for digest, part in parts.items() if number in part}
        outcomes.append(CheckOutcome(f"{kind}_drift", passed, "; ".join(lines) or "No predictions.", values))
    return outcomes


def check_performance_report(context: StageContext, day: date) -> list[CheckOutcome]:
    """accuracy, latency, drift: the alerts of R176-R178 have not fired. The accuracy check's metadata names the other alerts that have."""
    report = context.artifacts.latest("performance_report", day.isoformat()).json("performance.json")
    alerts = {alert.name: alert for alert in map(Alert.model_validate, report["alerts"])}
    exact = {"accuracy": "accuracy", "p99_latency": "latency", "drift_score": "drift"}
    others = [f"{alert.severity}: {alert.name}" for name, alert in alerts.items() if alert.fired and name not in exact]
    outcomes = []
    for name, check in exact.items():
        metadata: dict[str, MetadataValue] = {
            "threshold": alerts[name].threshold,
            **_value(alerts[name]),
            **({"also_fired": others} if check == "accuracy" else {}),
        }
        outcomes.append(CheckOutcome(check, not alerts[name].fired, alerts[name].message, metadata))
    return outcomes


def _value(alert: Alert) -> dict[str, float]:
    return {} if alert.value is None else {"value": alert.value}
