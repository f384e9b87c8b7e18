"""What a SIGKILL or a power cut leaves in the Dagster instance, and how it is mended: dead runs, pool slots, orphaned processes.

A run's process tells its number in the run's log as it starts. It lives if that number is still a run process of this runtime home and
no later run has told the same one. Clocks play no part, so neither a recycled number nor an adjusted clock can deceive.
"""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
from dagster import DagsterInstance
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from pipeline_project.local.processes import Member, end, may_execute_run, members

_IN_PROGRESS = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_STARTED = "Started process for run (pid: "
_LAUNCH_S = 60.0


@dataclass(frozen=True)
class DeadRun:
    """A run that the instance takes for living, and why it is not."""

    run_id: str
    job: str
    status: str
    why: str


@dataclass(frozen=True)
class HeldSlot:
    """A place in a pool that is held for a run that has ended."""

    pool: str
    run_id: str


@dataclass
class Repairs:
    """What `repair` did."""

    runs: list[DeadRun] = field(default_factory=list)
    slots: list[HeldSlot] = field(default_factory=list)
    processes: list[Member] = field(default_factory=list)

    def __str__(self) -> str:
        said = [f"run {run.run_id[:8]} of {run.job} marked as ended: {run.why}" for run in self.runs]
        said += [f"pool {slot.pool}: slot of run {slot.run_id[:8]} freed" for slot in self.slots]
        said += [f"orphaned process {process.pid} ended" for process in self.processes]
        return "\n".join(said)


@contextmanager
def open_instance(home: Path) -> Iterator[DagsterInstance]:
    """The Dagster instance of a runtime home; its databases are made on first use.

    Raises:
        FileNotFoundError: the home has no dagster.yaml, so no service was ever started on it.
    """
    if not (home / "dagster" / "dagster.yaml").is_file():
        raise FileNotFoundError(f"{home}/dagster/dagster.yaml is not there. Start the services once: make dev.")
    with DagsterInstance.from_config(str(home / "dagster")) as instance:
        yield instance


def run_process(instance: DagsterInstance, run_id: str) -> int | None:
    """The process id that a run told as it last started, or None before that (it may be launched twice, by way of the queue)."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT, ascending=False).records
    for record in records:
        event = record.event_log_entry.dagster_event
        if event is not None and (event.message or "").startswith(_STARTED):
            return int(str(event.engine_event_data.metadata["pid"].value))
    return None


def worker_processes(instance: DagsterInstance) -> dict[str, int | None]:
    """{run in progress: its living process, None if that is gone}; runs that have not told their process yet are left out."""
    living = members(home_of(instance))
    told: dict[str, int] = {}
    for record in instance.get_run_records(dg.RunsFilter(statuses=_IN_PROGRESS), ascending=True):
        pid = run_process(instance, record.dagster_run.run_id)
        if pid is not None:
            told[record.dagster_run.run_id] = pid
    newest = {pid: run_id for run_id, pid in told.items()}  # in the order of creation: a recycled number is the later run's
    return {run_id: pid if _executes(living, pid) and newest[pid] == run_id else None for run_id, pid in told.items()}


def dead_runs(instance: DagsterInstance) -> list[DeadRun]:
    """Runs that are starting, started or being cancelled, but have no process. A run that is just being launched is not dead."""
    workers = worker_processes(instance)
    living = members(home_of(instance))
    launching = any(p.is_daemon for p in living.values()) or any(p.is_run for p in _unknown(living, workers))
    found = []
    for run in instance.get_runs(dg.RunsFilter(statuses=_IN_PROGRESS)):
        if run.run_id in workers:
            why = None if workers[run.run_id] else "its process was killed"
        else:
            why = None if launching else "it was killed before its process could start"
        now = instance.get_run_by_id(run.run_id)  # after the process: what it wrote last, it has written by now
        if why is not None and now is not None and now.status in _IN_PROGRESS:
            found.append(DeadRun(run.run_id, run.job_name, now.status.value, why))
    return found


def held_slots(instance: DagsterInstance) -> list[HeldSlot]:
    """Places in pools, taken or reserved, of runs that have ended or are unknown."""
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return []
    found = set()
    for pool, info in storage.get_concurrency_infos(sorted(storage.get_concurrency_keys())).items():
        found |= {(pool, slot.run_id) for slot in info.claimed_slots} | {(pool, step.run_id) for step in info.pending_steps}
    ended = {run_id: _ended(instance, run_id) for _, run_id in found}
    return [HeldSlot(pool, run_id) for pool, run_id in sorted(found) if ended[run_id]]


def orphans(instance: DagsterInstance) -> list[Member]:
    """Processes whose parent is gone and that work for no run in progress: of runs that were marked as ended, and load-test servers."""
    living = members(home_of(instance))
    workers = worker_processes(instance)
    starting = instance.get_runs_count(dg.RunsFilter(statuses=_IN_PROGRESS)) > len(workers)
    lost = [p for p in _unknown(living, workers) if p.parent not in living]
    lost = [p for p in lost if p.service is not None]  # somebody else's program is left alone
    return [p for p in lost if p.is_load_test_server or (p.is_run and not (starting and _age(p) < _LAUNCH_S))]


def repair(instance: DagsterInstance) -> Repairs:
    """Mark dead runs as failed (or cancelled), free their slots, end orphaned processes. Living runs are left alone.

    A run that failed this way is repeated by the daemon, from where it stopped, as `run_retries` in dagster.yaml says.
    """
    done = Repairs()
    for dead in dead_runs(instance):
        run = instance.get_run_by_id(dead.run_id)
        if run is None or run.is_finished:
            continue
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, f"Cancelled: {dead.why}.")
        else:
            instance.report_run_failed(run, f"This run stopped half-way: {dead.why}. What it had finished is kept.")
        done.runs.append(dead)
    done.processes = end(orphans(instance))
    done.slots = held_slots(instance)
    for run_id in sorted({slot.run_id for slot in done.slots}):
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    _hand_out(instance)
    return done


def repair_home(home: Path) -> Repairs:
    """`repair` for the instance of a runtime home. A new instance gets its databases here, by one process: webserver and daemon, which
    start at once, would make them twice."""
    with open_instance(home) as instance:
        assert instance.schedule_storage is not None  # made like the other two by being asked for
        return repair(instance)


def interrupt(pid: int) -> bool:
    """Ask a run's process to cancel itself, as its code server would. False when it is gone."""
    try:
        os.kill(pid, signal.SIGINT)
    except ProcessLookupError:
        return False
    return True


def silent_daemons(instance: DagsterInstance) -> dict[str, str]:
    """{part of the daemon that should beat and does not: what is known of it}."""
    found = {}
    for name, status in instance.get_daemon_statuses().items():
        if not status.healthy:
            beat = status.last_heartbeat
            said = f"last heart-beat {time.time() - beat.timestamp:.0f} s ago" if beat else "no heart-beat ever"
            errors = "; ".join(error.message.strip() for error in (beat.errors or [])) if beat else ""
            found[name.lower()] = f"{said}: {errors}" if errors else said
    return found


def home_of(instance: DagsterInstance) -> Path:
    """The runtime home of an instance."""
    return Path(instance.root_directory).parent


def _executes(living: Mapping[int, Member], pid: int) -> bool:
    return (pid in living and living[pid].is_run) or may_execute_run(pid)


def _unknown(living: Mapping[int, Member], workers: Mapping[str, int | None]) -> list[Member]:
    return [process for pid, process in living.items() if pid not in workers.values()]


def _ended(instance: DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is None or run.status in FINISHED_STATUSES


def _age(process: Member) -> float:
    return time.time() - process.started


def _hand_out(instance: DagsterInstance) -> None:
    """Give free places to steps that wait: a run killed between giving one up and handing it on leaves them waiting for ever."""
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage) or not storage.supports_global_concurrency_limits:
        return
    for pool, info in storage.get_concurrency_infos(sorted(storage.get_concurrency_keys())).items():
        waiting = [step for step in info.pending_steps if step.assigned_timestamp is None]
        reserved = len(info.pending_steps) - len(waiting)
        for _ in range(min(len(waiting), info.slot_count - reserved)):
            storage.assign_pending_steps([pool])
