"""When a cheap, deterministic asset follows its upstream by itself.

Dagster's own conditions do not do for this graph: `eager()` ignores failed checks and all days but the newest; with
`all_deps_blocking_checks_passed()` an asset of all days waits for ever on a day that is empty, and forgets a failed day when another
passes: they remember updates for a day of the asset, not for a day of its dependency. `FollowsUpstream` asks the event log itself, and
remembers in its cursor which updates wait for what.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg

ASKS = "follow_upstream"
"""The sensor that evaluates these conditions, and the reason that its runs carry."""


_DAYS_A_QUERY = 500


@dataclass(frozen=True)
class _Update:
    """One materialization of a dependency that the asset has not followed yet."""

    dependency: str
    day: str | None
    storage_id: int
    run_id: str
    since: float
    """Only a run of the asset that began after this (seconds since 1970) has surely seen it, with its checks passed."""


@dataclass(frozen=True)
class _State:
    """Between two ticks: up to where the event log was read, what waits, and what would be settled by a run if one was asked for."""

    read_to: int
    waiting: tuple[_Update, ...] = ()
    asked: tuple[_Update, ...] = ()

    def dump(self) -> str:
        return json.dumps({"read_to": self.read_to, "waiting": _rows(self.waiting), "asked": _rows(self.asked)})

    @classmethod
    def load(cls, text: str) -> "_State":
        value = json.loads(text)
        return cls(value["read_to"], tuple(_Update(*row) for row in value["waiting"]), tuple(_Update(*row) for row in value["asked"]))


class FollowsUpstream(dg.AutomationCondition[dg.AssetKey]):
    """True for a day (or for an asset of all days) with an update upstream that is good and that no run has followed or will follow.

    An update is a materialization of a dependency since the condition was first evaluated, of any day, however late. It is good when on its
    day every dependency exists and the blocking checks of each passed on its newest materialization. An update whose own run planned the
    asset, too, is that run's business, also when it fails. What is not good yet waits: for its checks, or for being repaired.

    An asset with a partition a day follows dependencies with the same days only: an update of one of all days would ask for every day
    there ever was. Where such a dependency is itself asked for in this tick, the asset joins it in the same run.
    """

    @property
    def name(self) -> str:
        """What the UI shows of this condition."""
        return "good_update_upstream"

    @property
    def description(self) -> str:
        """What the UI shows of this condition."""
        return "A dependency was updated, its blocking checks passed, and no run has followed it yet"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        """What to ask for now; called by Dagster on every tick of the sensor."""
        log = _Log(context)
        if context.cursor is None:  # what happened before the asset was first looked at is no update
            return dg.AutomationResult(context, context.get_empty_subset(), cursor=_State(log.newest).dump())
        state = _State.load(context.cursor)
        settled = _settled(context, state.asked)
        updates: dict[tuple[str, str | None], _Update | None] = {(u.dependency, u.day): u for u in state.waiting if u not in settled}
        updates |= log.updates_after(state.read_to)
        joined = log.days_asked_for() if context.partitions_def else set()
        log.days = {update.day for update in updates.values() if update} | joined
        log.oldest = min((update.storage_id for update in updates.values() if update), default=log.newest)
        ready, waiting = [], []
        for update in filter(None, updates.values()):
            if not log.is_good(update, joined):
                waiting.append(replace(update, since=context.evaluation_time.timestamp()))
            elif not log.was_followed(update):
                ready.append(update)
        state = _State(log.newest, waiting=(*waiting, *ready), asked=tuple(ready))
        if context.partitions_def is None:
            wanted = context.candidate_subset if ready and not log.days_asked_for() else context.get_empty_subset()
        else:
            days = {update.day for update in ready if update.day} | {day for day in joined if day and log.is_good_day(day, joined)}
            wanted = context.candidate_subset.compute_intersection_with_partition_keys(days)
        return dg.AutomationResult(context, wanted, cursor=state.dump())


def follow_upstream() -> dg.AutomationCondition[dg.AssetKey]:
    """A good update upstream; no dependency in progress (a burst of days is followed once), nor the asset itself."""
    busy = dg.AutomationCondition.any_deps_in_progress() | dg.AutomationCondition.in_progress()
    return (FollowsUpstream() & ~busy).with_label(ASKS)


@dataclass
class _Log:
    """The event log as one tick sees it, for one asset."""

    context: dg.AutomationContext[dg.AssetKey]
    days: set[str | None] = field(default_factory=set)
    """Those that this tick looks at."""
    oldest: int = 0
    """No update that this tick looks at is older than this event."""
    _good: dict[dg.AssetKey, set[str | None]] = field(default_factory=dict)
    _planned: dict[str, bool] = field(default_factory=dict)
    _runs: dict[str | None, list[tuple[str, float]]] | None = None

    def __post_init__(self) -> None:
        self.instance = self.context.asset_graph_view.instance
        self.newest = self.context.max_storage_id or 0
        self.daily = self.context.partitions_def is not None
        graph = self.context.asset_graph
        parents = sorted(graph.get(self.context.key).parent_keys)
        self.dependencies = [key for key in parents if not self.daily or graph.get(key).partitions_def is not None]

    def updates_after(self, storage_id: int) -> dict[tuple[str, str | None], _Update | None]:
        """The newest materialization of each dependency and day since then; None where its run planned this asset, too."""
        updates: dict[tuple[str, str | None], _Update | None] = {}
        for key in self.dependencies:
            records = self.instance.get_asset_event_summary_records(
                dg.DagsterEventType.ASSET_MATERIALIZATION,
                asset_key=key,
                after_storage_id=storage_id,
                before_storage_id=self.newest + 1,
                ascending=True,
            )
            newest = {record.partition: record for record in records}
            for day, record in newest.items():
                name, run_id = key.to_user_string(), record.run_id or ""
                update = _Update(name, day, record.storage_id, run_id, record.timestamp)
                updates[name, day] = None if self._has_planned(run_id) else update
        return updates

    def days_asked_for(self) -> set[str | None]:
        """Days (None: all days) of dependencies that are asked for in this very tick."""
        asked = (self.context.request_subsets_by_key.get(key) for key in self.dependencies)
        found = (subset.expensively_compute_asset_partitions() for subset in asked if subset is not None)
        return {partition.partition_key for partitions in found for partition in partitions}

    def is_good(self, update: _Update, joined: set[str | None]) -> bool:
        """Whether the dependencies of the update's day are good, or of all days where the updated one has no days."""
        return self.is_good_day(update.day, joined)

    def is_good_day(self, day: str | None, joined: set[str | None]) -> bool:
        """Whether every dependency with (or without) days exists on that day and passed its blocking checks, or is asked for now."""
        graph = self.context.asset_graph
        alike = [key for key in self.dependencies if (graph.get(key).partitions_def is None) == (day is None)]
        asked = {key for key in alike if day in joined and self._is_asked_for(key, day)}
        return all(key in asked or self._passed(key, day) for key in alike)

    def was_followed(self, update: _Update) -> bool:
        """Whether the asset's step began after the update, in any run, and came to its end."""
        if self._runs is None:
            self._runs = defaultdict(list)
            for record in self.instance.get_asset_event_summary_records(
                dg.DagsterEventType.ASSET_MATERIALIZATION, asset_key=self.context.key, after_storage_id=self.oldest
            ):
                self._runs[record.partition].append((record.run_id or "", record.timestamp))
        followed = self._runs.get(update.day if self.daily else None, [])
        return any(ended > update.since and self._began(run, ended) > update.since for run, ended in followed)

    def _is_asked_for(self, key: dg.AssetKey, day: str | None) -> bool:
        subset = self.context.request_subsets_by_key.get(key)
        return subset is not None and any(p.partition_key == day for p in subset.expensively_compute_asset_partitions())

    def _passed(self, key: dg.AssetKey, day: str | None) -> bool:
        if key not in self._good:
            self._good[key] = self._without_days(key) if day is None else self._good_days(key)
        return day in self._good[key]

    def _without_days(self, key: dg.AssetKey) -> set[str | None]:
        """{None} where an asset of all days exists and its blocking checks passed."""
        exists = self.instance.get_latest_materialization_event(key) is not None
        return {None} if exists and self._blocking(key) <= {info.check_key for info in self._passes(key, None)} else set()

    def _good_days(self, key: dg.AssetKey) -> set[str | None]:
        """Those of the days that are looked at on which an asset exists and its blocking checks passed; asked for many days at once."""
        good: set[str | None] = set()
        wanted = sorted(day for day in self.days if day)
        for first in range(0, len(wanted), _DAYS_A_QUERY):
            days = wanted[first : first + _DAYS_A_QUERY]
            made = self.instance.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION, set(days))
            passed = defaultdict(set)
            for info in self._passes(key, days):
                passed[info.partition_key].add(info.check_key)
            good |= {day for day in made if self._blocking(key) <= passed[day]}
        return good

    def _blocking(self, key: dg.AssetKey) -> set[dg.AssetCheckKey]:
        graph = self.context.asset_graph
        return {check for check in graph.get(key).check_keys if graph.get(check).blocking}

    def _passes(self, key: dg.AssetKey, days: list[str] | None) -> list[Any]:
        """The blocking checks whose newest execution is a pass that looked at the newest materialization."""
        blocking = sorted(self._blocking(key))
        found = self.instance.event_log_storage.get_asset_check_partition_info(blocking, partition_keys=days) if blocking else ()
        return [info for info in found if info.latest_execution_status.value == "SUCCEEDED" and info.is_current]

    def _has_planned(self, run_id: str) -> bool:
        if run_id and run_id not in self._planned:
            planned = self.instance.get_asset_event_summary_records(
                dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, asset_key=self.context.key, run_id=run_id, limit=1
            )
            self._planned[run_id] = bool(planned)
        return self._planned.get(run_id, False)

    def _began(self, run_id: str, ended: float) -> float:
        """When the asset's step began in a run: what was updated while it ran may have been missed."""
        step = self.context.key.to_python_identifier()
        if run_id:
            for record in self.instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_START).records:
                if record.event_log_entry.step_key == step:
                    return record.event_log_entry.timestamp
        return ended


def _settled(context: dg.AutomationContext[dg.AssetKey], asked: tuple[_Update, ...]) -> set[_Update]:
    """Those of the last tick's good updates for which a run was in fact asked for: not so where something was in progress."""
    requested = context.get_previous_requested_subset(context.key)
    if requested is None or requested.is_empty:
        return set()
    if context.partitions_def is None:
        return set(asked)
    days = requested.expensively_compute_partition_keys()
    return {update for update in asked if update.day in days}


def _rows(updates: tuple[_Update, ...]) -> list[list[object]]:
    return [[u.dependency, u.day, u.storage_id, u.run_id, u.since] for u in updates]
