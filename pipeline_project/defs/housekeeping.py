"""Which runs of Dagster's event log may go, and removing them. A run takes its events with it, so what assets show last must stay."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import AssetKey, AssetRecordsFilter, DagsterEventType, DagsterInstance, RunsFilter

_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_UNFINISHED = [status for status in dg.DagsterRunStatus if status not in _FINISHED]
_PAGE = 200
_MIN_AGE = timedelta(days=1)
_KEYED_AGE = timedelta(days=30)
"""Sensors and schedules remember what they asked for by the runs' keys; that memory is never shorter than this."""
_RELATIVES = ("dagster/parent_run_id", "dagster/root_run_id")
_BACKFILL, _RUN_KEY = "dagster/backfill", "dagster/run_key"


@dataclass(frozen=True)
class RemovableRun:
    """A finished run that nothing needs any more. `ended` is UTC."""

    run_id: str
    job: str
    ended: datetime


def removable_runs(instance: DagsterInstance, keep: Collection[str], older_than: datetime) -> list[RemovableRun]:
    """The finished runs that may go, oldest first.

    Kept are: runs that ended at `older_than` or later, those in `keep`, the latest materialization of every asset and of every partition,
    relatives of runs that have not ended, members of backfills that have not ended, and for 30 days those that a sensor asked for by key.

    Args:
        keep: ids of the runs that made an artefact which is kept.
        older_than: UTC; a time less than a day ago counts as one day ago.
    """
    from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES  # slow to import, and rarely needed

    now = datetime.now(UTC)
    older_than = min(older_than, now - _MIN_AGE)
    needed = set(keep) | _latest_runs(instance) | _relatives_of_unfinished(instance)
    open_backfills = {b.backfill_id for b in instance.get_backfills() if b.status not in BULK_ACTION_TERMINAL_STATUSES}
    found = []
    cursor = None
    while records := instance.get_run_records(RunsFilter(statuses=_FINISHED), limit=_PAGE, cursor=cursor):
        cursor = records[-1].dagster_run.run_id
        for record in records:
            run = record.dagster_run
            ended = datetime.fromtimestamp(record.end_time, UTC) if record.end_time else record.update_timestamp.replace(tzinfo=UTC)
            oldest = min(older_than, now - _KEYED_AGE) if _RUN_KEY in run.tags else older_than
            if ended < oldest and run.run_id not in needed and run.tags.get(_BACKFILL) not in open_backfills:
                found.append(RemovableRun(run.run_id, run.job_name, ended))
    return sorted(found, key=lambda run: (run.ended, run.run_id))


def remove_runs(instance: DagsterInstance, runs: Sequence[RemovableRun]) -> list[str]:
    """Remove runs with their events and captured logs. Returns the ids of those removed.

    A run that has become the latest materialization since it was chosen is spared, and so is one that is gone already.
    """
    needed = _latest_runs(instance) | _relatives_of_unfinished(instance)
    removed = []
    for run in runs:
        found = instance.get_run_by_id(run.run_id)
        if run.run_id in needed or found is None or found.status not in _FINISHED:
            continue
        instance.compute_log_manager.delete_logs(prefix=[run.run_id])
        instance.delete_run(run.run_id)
        removed.append(run.run_id)
    return removed


def _latest_runs(instance: DagsterInstance) -> set[str]:
    """The runs that made the latest materialization of an asset, or of one of its partitions."""
    return {run for key in instance.all_asset_keys() for run in _latest_runs_of(instance, key)}


def _latest_runs_of(instance: DagsterInstance, key: AssetKey) -> set[str]:
    latest = instance.get_latest_materialization_event(key)
    runs = {latest.run_id} if latest else set()
    # The first is what the asset's own row remembers, also of a run that somebody deleted; the second what the events say.
    runs |= {record.run_id for record in instance.fetch_materializations(key, limit=1).records}
    by_partition = instance.get_latest_storage_id_by_partition(key, DagsterEventType.ASSET_MATERIALIZATION)
    ids = sorted(by_partition.values())
    for start in range(0, len(ids), _PAGE):
        some = ids[start : start + _PAGE]
        found = instance.fetch_materializations(AssetRecordsFilter(asset_key=key, storage_ids=some), limit=len(some))
        runs |= {record.run_id for record in found.records}
    return runs


def _relatives_of_unfinished(instance: DagsterInstance) -> set[str]:
    """The runs that an unfinished one continues: a retry reads what they made."""
    unfinished = instance.get_runs(RunsFilter(statuses=_UNFINISHED))
    return {run.tags[tag] for run in unfinished for tag in _RELATIVES if tag in run.tags}
