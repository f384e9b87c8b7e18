"""From days that changed to runs that take them in, and to a person where that does not help: what sensors and schedules share."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

import dagster as dg

from pipeline_project.defs.automation.failures import alerts_log
from pipeline_project.defs.automation.runs import ingest_requests, plan_ingest
from pipeline_project.ingest.asking import DayPlan, StuckDay
from pipeline_project.monitoring.alerts import failure, tell
from pipeline_project.stage import StageContext

if TYPE_CHECKING:  # what it stands on is loaded when a tick needs it, not with the graph
    from pipeline_project.ingest.scanning import ScanState


@dataclass(frozen=True)
class Asked:
    """The runs to ask for, and why other days are not asked for; empty where there is nothing to say."""

    requests: list[dg.RunRequest]
    others: str


def ask_for_changes(
    instance: dg.DagsterInstance, context: StageContext, state: "ScanState", reason: str, until: date | None = None
) -> Asked:
    """Plan the days that a scan found changed, up to a day where one is given; tell of those that wait for a person."""
    changes = {day: change.fingerprint for day, change in state.changes.items() if until is None or day <= until}
    plan = plan_ingest(instance, context, changes)
    tell_stuck_days(context, state, plan)
    return Asked(ingest_requests(plan, reason), "; ".join(filter(None, [plan.in_words(), state.in_words()])))


def sensor_result(context: dg.SensorEvaluationContext, asked: Asked, cursor: str, nothing: str) -> dg.SensorResult:
    """The outcome of a tick. Dagster keeps the cursor together with the requests: a process killed before asks for the same again."""
    if not asked.requests:
        return dg.SensorResult(skip_reason=asked.others or nothing, cursor=cursor)
    if asked.others:
        context.log.warning(asked.others)
    return dg.SensorResult(run_requests=asked.requests, cursor=cursor)


def tell_stuck_days(context: StageContext, state: "ScanState", plan: DayPlan) -> None:
    """An alert for each day that waits for a person, once for each state of it; and a note once such a day was taken in after all."""
    for day, stuck in plan.stuck.items():
        if state.told.get(day) != stuck.fingerprint:
            _tell(context, stuck.since, "day_stuck", f"{day} waits for a person: {stuck.why}", _facts(day, stuck))
            state.told[day] = stuck.fingerprint
    for day, fingerprint in list(state.told.items()):
        if day in plan.stuck or day in state.changes or day in state.waiting:
            continue
        taken = context.artifacts.find("raw_images", day.isoformat())
        if taken is not None:
            facts = {"partition": day.isoformat(), "state": fingerprint, "next_step": "none"}
            _tell(context, datetime.fromisoformat(taken.created), "day_recovered", f"{day} was taken in, or is as it was before", facts)
        del state.told[day]


def _facts(day: date, stuck: StuckDay) -> dict[str, str]:
    return {
        "partition": day.isoformat(),
        "state": stuck.fingerprint,
        "run": stuck.run_id,
        "page": f"/runs/{stuck.run_id}",
        "next_step": f"mend what the run names, then materialize {day}; a change of its data is asked for by itself",
    }


def _tell(context: StageContext, moment: datetime, name: str, message: str, facts: dict[str, str]) -> None:
    severity = "critical" if name == "day_stuck" else "pre_alert"
    tell(context.artifacts.bytes, alerts_log(), moment, failure(name, severity, message, facts))  # type: ignore[arg-type]
