"""What happens when something changed: objects in the source (R41), assets upstream, alerts in the reports (R183)."""

import dagster as dg

from pipeline_project.defs.automation.arriving import ask_for_changes, sensor_result
from pipeline_project.defs.automation.conditions import ASKS
from pipeline_project.defs.automation.jobs import ingest_day, train_and_stage
from pipeline_project.defs.automation.runs import ALERT_DAY, REASON, asked_before, training_in_flight
from pipeline_project.defs.common import stage_context
from pipeline_project.defs.resources import project_settings

STATUS = dg.DefaultSensorStatus.RUNNING if project_settings().automation.default == "running" else dg.DefaultSensorStatus.STOPPED


@dg.sensor(
    job=ingest_day,
    minimum_interval_seconds=60,
    default_status=STATUS,
    description="Asks for the days whose objects or label rows differ from those last taken in (R41): new, changed and deleted ones.",
)
def new_objects(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Asks for the days whose objects or label rows differ from those last taken in (R41): new, changed and deleted ones.

    One tick lists a bounded number of keys (settings ingest.scan_keys, scan_seconds); the next goes on from the cursor. A failed day is
    asked for again after a while (settings automation.*), a day with bad data not before it changes. A source that cannot be read is a
    failed tick, and the cursor stays.
    """
    from pipeline_project.ingest.scanning import ScanLimits, ScanState, advance, scan_identity

    stage = stage_context(context)
    ingest = stage.settings.ingest
    state = ScanState.load(context.cursor, scan_identity(stage.settings))
    advance(stage, state, ScanLimits(ingest.scan_keys, ingest.scan_seconds))
    asked = ask_for_changes(context.instance, stage, state, "new_objects")
    return sensor_result(context, asked, state.dump(), "every day of the source is as it was last taken in")


@dg.sensor(
    job=ingest_day,
    minimum_interval_seconds=60,
    default_status=STATUS,
    description="Asks for the days that event notifications of the bucket name (setting ingest.notifications), listing only these days.",
)
def object_events(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Asks for the days that event notifications of the bucket name (setting ingest.notifications), listing only these days.

    For a bucket too large to list. The same requests as `new_objects` makes, so both may run; a queue that cannot be read is a failed tick.
    """
    from pipeline_project.ingest.notifications import take_notifications
    from pipeline_project.ingest.scanning import ScanState, scan_identity

    stage = stage_context(context)
    state = ScanState.load(context.cursor, scan_identity(stage.settings))
    taken = take_notifications(stage, state, stage.settings.ingest.scan_seconds)
    for why in taken.aside:
        context.log.warning(f"a message was put aside: {why}")
    asked = ask_for_changes(context.instance, stage, state, "object_events")
    nothing = taken.in_words() or "no message is on the queue"
    return sensor_result(context, asked, state.dump(), nothing)


@dg.sensor(
    job=train_and_stage,
    minimum_interval_seconds=300,
    default_status=STATUS,
    description="Retrains once for a day whose drift_report found drift, unless a model was trained since (R183).",
)
def drift_asks_for_training(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Retrains once for a day whose drift_report found drift, unless a model was trained since (R183)."""
    from pipeline_project.monitoring.retraining import days_of_drift

    return _ask_for_training(context, "drift", days_of_drift(stage_context(context)))


@dg.sensor(
    job=train_and_stage,
    minimum_interval_seconds=300,
    default_status=STATUS,
    description="Retrains once for a day whose performance_report raised the accuracy alert, unless a model was trained since (R183).",
)
def performance_asks_for_training(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Retrains once for a day whose performance_report raised the critical accuracy alert, unless a model was trained since (R183)."""
    from pipeline_project.monitoring.retraining import days_of_low_accuracy

    return _ask_for_training(context, "performance", days_of_low_accuracy(stage_context(context)))


def _ask_for_training(context: dg.SensorEvaluationContext, reason: str, days: list[str]) -> dg.SensorResult | dg.SkipReason:
    """One run for the newest alert day: it trains on all days, so it answers the older ones, too."""
    if not days:
        return dg.SkipReason(f"no {reason} alert since the last model was trained")
    day = days[-1]
    if running := training_in_flight(context.instance):
        return dg.SkipReason(f"{reason} alert of {day}: run {running} trains already")
    if before := asked_before(context.instance, reason, day):
        status = before.status.value.lower()
        return dg.SkipReason(f"{reason} alert of {day}: run {before.run_id} was asked for it and ended as {status}; a person must look")
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key=f"{reason}-{day}", tags={REASON: reason, ALERT_DAY: day})])


follow_upstream = dg.AutomationConditionSensorDefinition(
    ASKS,
    target=dg.AssetSelection.all(),
    run_tags={REASON: ASKS},
    default_status=STATUS,
    minimum_interval_seconds=30,
    description="Cheap, deterministic assets follow their upstream: each asset's automation condition says when.",
    emit_backfills=False,  # a run for each day: its tags say why, and one bad day stops no other
    use_user_code_server=True,  # the condition is our own: only this code location knows it
)

_EVENTS = [object_events] if project_settings().ingest.notifications else []
SENSORS = [new_objects, *_EVENTS, drift_asks_for_training, performance_asks_for_training, follow_upstream]
