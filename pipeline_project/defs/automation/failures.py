"""Failures speak: a run or a check that failed is kept as an alert in the store, and is a line in logs/alerts.log."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from pipeline_project.defs.common import stage_context
from pipeline_project.defs.errors import FAILURE_KIND, NEEDS_APPROVAL, OUT_OF_REACH, WRONG_INPUT
from pipeline_project.defs.resources import project_settings
from pipeline_project.monitoring.alerts import Alert, Severity, failure, tell
from pipeline_project.stage import StageContext

_RUNS_A_TICK = 50
_WILL_RETRY = "dagster/will_retry"
_PARTITION = "dagster/partition"
_MESSAGE_LENGTH = 600
_ENDS = (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED)
_NEXT_STEPS = {
    OUT_OF_REACH: "bring back what did not answer, then re-execute the run from failure",
    WRONG_INPUT: "mend the input that the message names, then materialize again",
    NEEDS_APPROVAL: "look at the change, approve it as the message says, then materialize again",
}


def alerts_log() -> Path:
    """Where the lines for people are."""
    return project_settings().home / "logs" / "alerts.log"


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Tells of every run of this location that failed, once; a crashed run that is about to be started again is a warning only.",
)
def run_failures(context: dg.RunFailureSensorContext) -> None:
    """Tells of every run of this location that failed, once; a crashed run that is about to be started again is a warning only."""
    alert = run_alert(context.instance, context.dagster_run)
    tell(stage_context(context).artifacts.bytes, alerts_log(), _ended(context.instance, context.dagster_run), alert)


@dg.sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Tells of every check that failed, once its run has ended: critical where it blocks, else a warning.",
)
def check_failures(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Tells of every check that failed, once its run has ended: critical where it blocks, else a warning."""
    told, cursor = tell_failed_checks(context.instance, stage_context(context), context.cursor)
    context.update_cursor(cursor)
    return dg.SkipReason(f"{told} failed checks told; they stand in {alerts_log()}" if told else "no check failed since the last look")


def tell_failed_checks(instance: dg.DagsterInstance, context: StageContext, cursor: str | None) -> tuple[int, str]:
    """Tell of the failed checks of the runs that ended since.

    The ends of runs are followed, not the checks themselves: Dagster keeps no order of check evaluations that a cursor could rely on.

    Args:
        cursor: what the last call returned; None: from the first run on.

    Returns:
        How many were told, and the cursor for the next call.
    """
    seen = [int(part) for part in cursor.split(",")] if cursor else [0] * len(_ENDS)
    told = 0
    for place, end in enumerate(_ENDS):
        wanted = dg.RunStatusChangeRecordsFilter(event_type=end, after_storage_id=seen[place])  # type: ignore[arg-type]
        for record in instance.fetch_run_status_changes(wanted, limit=_RUNS_A_TICK, ascending=True).records:
            for moment, alert in failed_checks(instance, record.run_id):
                tell(context.artifacts.bytes, alerts_log(), moment, alert)
                told += 1
            seen[place] = record.storage_id
    return told, ",".join(map(str, seen))


def run_alert(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Alert:
    """The alert of a run that failed: its first failed step in the step's own words, and what to do."""
    step, message, kind = _first_failure(instance, run.run_id)
    retried = run.tags.get(_WILL_RETRY) == "true"
    facts = {
        **_place(run),
        **({"step": step} if step else {}),
        "next_step": "none: it is started again by itself" if retried else _NEXT_STEPS.get(kind, "open the run and read the failed step"),
    }
    return failure("run_failed", "warning" if retried else "critical", f"{_job(run)}: {message}", facts)


def failed_checks(instance: dg.DagsterInstance, run_id: str) -> Iterator[tuple[datetime, Alert]]:
    """When each failed check of a run was evaluated, and its alert."""
    run = instance.get_run_by_id(run_id)
    for record in instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records:
        event = record.event_log_entry.dagster_event
        if event is None or run is None or event.asset_check_evaluation_data.passed:
            continue
        check = event.asset_check_evaluation_data
        asset, day = check.asset_key.to_user_string(), check.partition
        stops = "it stopped what is downstream; " if check.blocking else ""
        facts = {
            **_place(run),
            "asset": asset,
            **({"partition": day} if day else {}),
            "check": check.check_name,
            "next_step": f"{stops}open the check, mend what it names, materialize {asset} again",
        }
        what = f"{asset}{f' of {day}' if day else ''}: {check.description or 'no reason given'}"
        severity: Severity = "critical" if check.blocking else "warning"
        yield datetime.fromtimestamp(record.event_log_entry.timestamp, UTC), failure("check_failed", severity, _short(what), facts)


def _first_failure(instance: dg.DagsterInstance, run_id: str) -> tuple[str | None, str, str]:
    """The step that failed first, what it said, and of which kind the failure is; without a failed step, what ended the run."""
    for record in instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        data = event.step_failure_data
        if data.user_failure_data is not None:
            kind = data.user_failure_data.metadata.get(FAILURE_KIND)
            return event.step_key, _short(data.user_failure_data.description or "no reason given"), str(kind.value) if kind else ""
        error = data.error.cause or data.error if data.error else None
        return event.step_key, _short(error.message if error else "no reason given"), ""
    for record in instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.RUN_FAILURE).records:
        event = record.event_log_entry.dagster_event
        if event is not None and event.message:
            return None, _short(event.message), ""
    return None, "the run failed outside of its steps", ""


def _place(run: dg.DagsterRun) -> dict[str, str]:
    """Who and where: facts of every alert."""
    facts = {"run": run.run_id, "job": _job(run), "page": f"/runs/{run.run_id}"}
    facts |= {"partition": run.tags[_PARTITION]} if _PARTITION in run.tags else {}
    facts |= {key: run.tags[key] for key in ("reason", "user") if key in run.tags}
    return facts


def _job(run: dg.DagsterRun) -> str:
    """The job's name; of what a person chose in the UI, the assets."""
    if not run.job_name.startswith("__"):
        return run.job_name
    names = sorted(key.to_user_string() for key in run.asset_selection or ())
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") or "materialize"


def _ended(instance: dg.DagsterInstance, run: dg.DagsterRun) -> datetime:
    """When a run ended, as the instance keeps it: the same however often one asks."""
    record = instance.get_run_record_by_id(run.run_id)
    return datetime.fromtimestamp(record.end_time if record and record.end_time else 0, UTC)


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _MESSAGE_LENGTH else f"{words[: _MESSAGE_LENGTH - 4]} ..."


FAILURE_SENSORS = [run_failures, check_failures]
