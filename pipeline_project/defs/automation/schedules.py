"""What happens at a time of day or week (R40, R95, R171)."""

from datetime import timedelta

import dagster as dg

from pipeline_project.defs.automation.arriving import ask_for_changes
from pipeline_project.defs.automation.jobs import ingest_day, monitor_day, train_and_stage
from pipeline_project.defs.automation.runs import REASON, training_in_flight
from pipeline_project.defs.common import DAYS, stage_context
from pipeline_project.defs.resources import project_settings

_settings = project_settings()
STATUS = dg.DefaultScheduleStatus.RUNNING if _settings.automation.default == "running" else dg.DefaultScheduleStatus.STOPPED


@dg.schedule(
    job=ingest_day,
    cron_schedule=_settings.ingest.schedule,
    execution_timezone="UTC",
    default_status=STATUS,
    description="The day that ended (R40), and each earlier one that changed since it was taken in: late photos, corrected labels.",
)
def daily_ingest(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
    """The day that ended (R40), and each earlier one that changed since it was taken in: late photos, corrected labels.

    A source that one tick cannot list goes on in the next night; the day that ended is looked at every night.
    """
    from pipeline_project.ingest.arrivals import keep_nightly, nightly_scan

    yesterday = context.scheduled_execution_time.date() - timedelta(days=1)
    stage = stage_context(context)
    state = nightly_scan(stage, yesterday)
    asked = ask_for_changes(context.instance, stage, state, "daily_ingest", until=yesterday)
    keep_nightly(stage, state)
    if not asked.requests:
        return dg.SkipReason(asked.others or f"nothing arrived for {yesterday}, and no earlier day changed")
    if asked.others:
        context.log.warning(asked.others)
    return asked.requests


@dg.schedule(
    job=monitor_day,
    cron_schedule=_settings.monitoring.schedule,
    execution_timezone="UTC",
    default_status=STATUS,
    description="The day that ended: prediction log, truth, drift, performance (R171).",
)
def daily_monitoring(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """The day that ended: prediction log, truth, drift, performance (R171).

    One run is enough for truth that comes late: it stands in the ground_truth of the day that it arrived on, and the performance_report of
    that day counts accuracy anew for each of the last `monitoring.late_truth_days` days, with all truth known by then.
    """
    keys = DAYS.get_partition_keys(current_time=context.scheduled_execution_time)
    if len(keys) < 2:
        return dg.SkipReason(f"no day has ended yet: data.start_date is {_settings.data.start_date}")
    day = keys[-2]  # the last key is today, still running
    return dg.RunRequest(run_key=f"daily_monitoring-{day}", partition_key=day, tags={REASON: "daily_monitoring"})


@dg.schedule(
    job=train_and_stage,
    cron_schedule=_settings.training.schedule,
    execution_timezone="UTC",
    default_status=STATUS,
    description="Retrain on all good days (R95, R183); production still needs a person.",
)
def weekly_training(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Retrain on all good days (R95, R183); production still needs a person."""
    running = training_in_flight(context.instance)
    if running:
        return dg.SkipReason(f"run {running} trains already")
    week = context.scheduled_execution_time.date().isoformat()
    return dg.RunRequest(run_key=f"weekly_training-{week}", tags={REASON: "weekly_training"})


SCHEDULES = [daily_ingest, daily_monitoring, weekly_training]
