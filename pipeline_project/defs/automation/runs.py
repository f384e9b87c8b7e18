"""What schedules and sensors ask the instance about earlier runs, and the tags that say why a run was asked for."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime

import dagster as dg

from pipeline_project.defs.automation.jobs import ingest_day, train_and_stage
from pipeline_project.defs.errors import APPROVAL_KIND, APPROVAL_SUBJECT, FAILURE_KIND, OUT_OF_REACH
from pipeline_project.ingest.asking import DayPlan, PastRun, plan_days
from pipeline_project.stage import StageContext
from pipeline_project.trust.approvals import KINDS, find_approval

REASON, FINGERPRINT, ATTEMPT, ALERT_DAY = "reason", "fingerprint", "attempt", "alert_day"
"""Run tags of what is asked for without a person."""

_PARTITION = "dagster/partition"
_FINISHED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
UNFINISHED = [status for status in dg.DagsterRunStatus if status not in _FINISHED]
_INGEST_ASSETS = {dg.AssetKey(name) for name in ("raw_images", "validated_manifest", "image_pack", "image_features")}
_TRAINED_MODEL = dg.AssetKey("trained_model")
_DAYS_A_QUERY = 50


def plan_ingest(instance: dg.DagsterInstance, context: StageContext, changes: Mapping[date, str]) -> DayPlan:
    """What to do about each day of the source that differs from what was taken in ({day: fingerprint})."""
    return plan_days(changes, _past_runs(instance, context, changes), datetime.now(UTC), context.settings.automation)


def ingest_requests(plan: DayPlan, reason: str) -> list[dg.RunRequest]:
    """A run of `ingest_day` for each day asked for."""
    return [
        dg.RunRequest(
            run_key=asked.key,
            partition_key=asked.day.isoformat(),
            tags={REASON: reason, FINGERPRINT: asked.fingerprint, ATTEMPT: str(asked.attempt)},
        )
        for asked in plan.asked
    ]


def training_in_flight(instance: dg.DagsterInstance) -> str | None:
    """The id of a queued or running run that trains, whoever started it."""
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        if run.job_name == train_and_stage.name or _TRAINED_MODEL in (run.asset_selection or ()):
            return run.run_id
    return None


def asked_before(instance: dg.DagsterInstance, reason: str, day: str) -> dg.DagsterRun | None:
    """The run that was asked for because of an alert of that day."""
    return next(iter(instance.get_runs(dg.RunsFilter(tags={REASON: reason, ALERT_DAY: day}), limit=1)), None)


def _past_runs(instance: dg.DagsterInstance, context: StageContext, changes: Mapping[date, str]) -> dict[date, list[PastRun]]:
    """The runs that were to take in these days: of the job, and those that a person started in the UI."""
    found: dict[date, list[dg.RunRecord]] = defaultdict(list)
    days = sorted(changes)
    for first in range(0, len(days), _DAYS_A_QUERY):
        keys = [day.isoformat() for day in days[first : first + _DAYS_A_QUERY]]
        for record in instance.get_run_records(dg.RunsFilter(tags={_PARTITION: keys})):
            run = record.dagster_run
            if run.job_name == ingest_day.name or _INGEST_ASSETS & (run.asset_selection or set()):
                found[date.fromisoformat(run.tags[_PARTITION])].append(record)
    past = {}
    for day, records in found.items():
        mine = [r for r in records if r.dagster_run.tags.get(FINGERPRINT) == changes[day] and _ended(r) is not None]
        last = max(mine, key=lambda r: r.end_time or 0, default=None)  # only the last one's log is worth reading
        past[day] = [_past_run(instance, context, record, explain=record is last) for record in records]
    return past


def _past_run(instance: dg.DagsterInstance, context: StageContext, record: dg.RunRecord, *, explain: bool) -> PastRun:
    run = record.dagster_run
    attempt = run.tags.get(ATTEMPT, "")
    fault = _fault(instance, context, run) if explain else None
    return PastRun(
        run.run_id,
        run.tags.get(FINGERPRINT),
        int(attempt) if attempt.isdigit() else 1,
        _ended(record),
        fault,
        good=run.status == dg.DagsterRunStatus.SUCCESS and run.job_name == ingest_day.name,
    )


def _ended(record: dg.RunRecord) -> datetime | None:
    if record.dagster_run.status not in _FINISHED:
        return None
    return datetime.fromtimestamp(record.end_time, UTC) if record.end_time else record.update_timestamp.replace(tzinfo=UTC)


def _fault(instance: dg.DagsterInstance, context: StageContext, run: dg.DagsterRun) -> str | None:
    """Why the same data would fail again: a blocking check's verdict, an error that is for the user, a person who cancelled it."""
    if run.status == dg.DagsterRunStatus.SUCCESS:
        return None
    if run.status == dg.DagsterRunStatus.CANCELED:
        return "its run was cancelled; materialize the day to take it in after all"
    kinds = {dg.DagsterEventType.ASSET_CHECK_EVALUATION, dg.DagsterEventType.STEP_FAILURE}
    for record in instance.get_records_for_run(run.run_id, of_type=kinds).records:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed and check.blocking and not _could_not_look(check):
                return f"{check.asset_key.to_user_string()}: the check {check.check_name} failed: {check.description}"
        elif (failure := event.step_failure_data.user_failure_data) is not None:
            facts = {key: str(value.value) for key, value in failure.metadata.items()}
            if facts.get(FAILURE_KIND, OUT_OF_REACH) != OUT_OF_REACH and not _approved_since(context, facts):
                return failure.description or failure.label
    return None


def _approved_since(context: StageContext, facts: dict[str, str]) -> bool:
    """Whether what a step asked a person for has been approved meanwhile."""
    kind = next((kind for kind in KINDS if kind == facts.get(APPROVAL_KIND)), None)
    if kind is None:
        return False
    store, approvers = context.artifacts.bytes, context.settings.trusted_approvers
    return find_approval(store, approvers, kind, facts[APPROVAL_SUBJECT]) is not None


def _could_not_look(check: dg.AssetCheckEvaluation) -> bool:
    kind = check.metadata.get(FAILURE_KIND)
    return kind is not None and kind.value == OUT_OF_REACH
