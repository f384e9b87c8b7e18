"""What runs by itself: daily ingest and monitoring, weekly training, new objects in the source, drift asking for retraining.

Jobs name the usual selections, for schedules, sensors, the command line and people; the UI's "Materialize" needs none of them.
"""

from collections.abc import Iterator

import dagster as dg

from pipeline_project.defs.common import DAYS, stage_context
from pipeline_project.defs.resources import project_settings

_MAX_DAYS_A_TICK = 10
_settings = project_settings()

INGEST = dg.AssetSelection.groups("ingest")
TRAIN = dg.AssetSelection.groups("dataset", "training", "packaging", "evaluation") | dg.AssetSelection.assets(
    "registered_model", "staging_endpoint"
)
MONITOR = dg.AssetSelection.groups("monitoring", "governance")

ingest_day = dg.define_asset_job("ingest_day", INGEST, description="Take in, validate, pack and measure one day.")
train_and_stage = dg.define_asset_job("train_and_stage", TRAIN, description="From all good days to a judged package that serves staging.")
deploy = dg.define_asset_job(
    "deploy", dg.AssetSelection.assets("deployed_endpoint"), description="Serve the registered package in production, if approved."
)
monitor_day = dg.define_asset_job(
    "monitor_day", MONITOR, description="One day's predictions, truth, drift and performance; the A/B report and the dossier."
)

predict_day = dg.define_asset_job(
    "predict_day", dg.AssetSelection.assets("batch_predictions"), description="The champion's predictions for one day's images."
)

JOBS = [ingest_day, train_and_stage, deploy, monitor_day, predict_day]


@dg.schedule(job=ingest_day, cron_schedule=_settings.ingest.schedule, execution_timezone="UTC")
def daily_ingest(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """The day that ended, and is complete (R40)."""
    return _yesterday(context, "daily_ingest")


@dg.schedule(job=monitor_day, cron_schedule=_settings.monitoring.schedule, execution_timezone="UTC")
def daily_monitoring(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """The day that ended: prediction log, truth, drift, performance (R171)."""
    return _yesterday(context, "daily_monitoring")


@dg.schedule(job=train_and_stage, cron_schedule=_settings.training.schedule, execution_timezone="UTC")
def weekly_training(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Retrain on all good days (R95, R183); production still needs a person."""
    return dg.RunRequest(tags={"reason": "weekly_training"})


@dg.sensor(job=ingest_day, minimum_interval_seconds=60)
def new_objects(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Asks for the days whose objects or label files differ from those last taken in (R41): new, changed and deleted ones."""
    from pipeline_project.ingest.arrivals import changed_days

    changes = changed_days(stage_context(context))
    if not changes:
        return dg.SkipReason("every day of the source is as it was last taken in")
    attempts = {str(day): fingerprint for day, fingerprint in list(changes.items())[:_MAX_DAYS_A_TICK]}
    requests = [
        dg.RunRequest(run_key=f"{day}-{fingerprint}", partition_key=day, tags={"reason": "new_objects", "fingerprint": fingerprint})
        for day, fingerprint in attempts.items()
    ]
    return dg.SensorResult(run_requests=requests)


@dg.sensor(job=train_and_stage, minimum_interval_seconds=300)
def drift_asks_for_training(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Retrains once for each day whose drift or performance report raised an alert (R183); off until an operator turns it on."""
    from pipeline_project.monitoring.retraining import reasons_to_retrain

    reasons = reasons_to_retrain(stage_context(context))
    if not reasons:
        yield dg.SkipReason("no drift or performance alert")
    for day, reason in reasons.items():
        yield dg.RunRequest(run_key=f"retrain-{day}", tags={"reason": reason, "alert_day": day})


def _yesterday(context: dg.ScheduleEvaluationContext, reason: str) -> dg.RunRequest:
    keys = DAYS.get_partition_keys(current_time=context.scheduled_execution_time)
    day = keys[-2] if len(keys) > 1 else keys[-1]  # the last key is today, still running
    return dg.RunRequest(run_key=f"{reason}-{day}", partition_key=day, tags={"reason": reason})


SCHEDULES = [daily_ingest, daily_monitoring, weekly_training]
SENSORS = [new_objects, drift_asks_for_training]
