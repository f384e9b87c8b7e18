"""A small graph with the real condition, on a real Dagster instance: days, all days, blocking checks, and ticks between them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from pipeline_project.defs.automation.conditions import follow_upstream
from pipeline_project.defs.resources import project_settings
from pipeline_project_tests.defs.automation.shop import Shop

DAYS = dg.DailyPartitionsDefinition("2026-10-01", end_offset=1)
D = [f"2026-11-{day:02d}" for day in range(1, 21)]
Asked = set[tuple[str, str | None]]


@dataclass
class World:
    """What is bad, what fails, and what happens in the middle of a step or a check."""

    instance: dg.DagsterInstance
    bad: set[tuple[str, str | None]] = field(default_factory=set)
    broken: set[tuple[str, str | None]] = field(default_factory=set)
    during_check: dict[str, Callable[[], None]] = field(default_factory=dict)
    during_step: dict[str, Callable[[], None]] = field(default_factory=dict)
    cursor: Any = None

    def __post_init__(self) -> None:
        self.defs = self._define()
        assert self.tick() == set()  # the first look: what was before is no update

    def tick(self) -> Asked:
        """One tick of the sensor: what it asks for."""
        result = dg.evaluate_automation_conditions(self.defs, self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        return {(r.key.to_user_string(), day) for r in result.results for day in result.get_requested_partitions(r.key)}

    def run(self, *names: str, day: str | None = None) -> dg.ExecuteInProcessResult:
        """One run of these assets, with their checks."""
        job = self.defs.resolve_implicit_global_asset_job_def()
        keys = [dg.AssetKey(name) for name in names]
        return job.execute_in_process(instance=self.instance, asset_selection=keys, partition_key=day, raise_on_error=False)

    def obey(self, asked: Asked) -> None:
        """Run what was asked for: a run for each day."""
        for day in sorted({day for _, day in asked}, key=str):
            self.run(*sorted(name for name, asked_day in asked if asked_day == day), day=day)

    def settle(self) -> list[Asked]:
        """Ticks and runs until nothing more is asked for."""
        ticks = []
        while asked := self.tick():
            ticks.append(asked)
            assert len(ticks) < 10, f"it never comes to rest: {ticks}"
            self.obey(asked)
        assert self.tick() == set()
        return ticks

    def start(self, *names: str, day: str | None = None) -> dg.DagsterRun:
        """A run that has started and does not end."""
        job = self.defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={dg.AssetKey(name) for name in names})
        tags = {"dagster/partition": day} if day else {}
        return self.instance.create_run_for_job(
            job, asset_selection=frozenset(dg.AssetKey(n) for n in names), tags=tags, status=dg.DagsterRunStatus.STARTED
        )

    def run_without_checks(self, name: str, day: str) -> None:
        """The asset alone: a person deselected its checks in the UI."""
        job = self.defs.resolve_implicit_global_asset_job_def()
        subset = job.get_subset(asset_selection={dg.AssetKey(name)}, asset_check_selection=set())
        assert subset.execute_in_process(instance=self.instance, partition_key=day).success

    def check_again(self, name: str, day: str) -> None:
        """The check alone, as a person starts it in the UI."""
        job = self.defs.resolve_implicit_global_asset_job_def()
        check = dg.AssetCheckKey(dg.AssetKey(name), f"{name}_is_good")
        subset = job.get_subset(asset_selection=set(), asset_check_selection={check})
        assert subset.execute_in_process(instance=self.instance, partition_key=day).success

    def _asset(self, name: str, deps: Iterable[str] = (), *, daily: bool, follows: bool = True) -> dg.AssetsDefinition:
        @dg.asset(
            name=name,
            deps=list(deps),
            partitions_def=DAYS if daily else None,
            automation_condition=follow_upstream() if follows else None,
            backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=1) if daily else None,
        )
        def made(context: dg.AssetExecutionContext) -> None:
            if (name, context.partition_key if daily else None) in self.broken:
                raise RuntimeError("broken")
            if name in self.during_step:
                self.during_step.pop(name)()

        return made

    def _check(self, name: str, *, daily: bool = True) -> dg.AssetChecksDefinition:
        @dg.asset_check(asset=name, name=f"{name}_is_good", blocking=True, partitions_def=DAYS if daily else None)
        def checked(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
            if name in self.during_check:
                self.during_check[name]()
            return dg.AssetCheckResult(passed=(name, context.partition_key if daily else None) not in self.bad)

        return checked

    def _define(self) -> dg.Definitions:
        return dg.Definitions(
            assets=[
                self._asset("raw", daily=True, follows=False),
                self._asset("manifest", ["raw"], daily=True),
                self._asset("pack", ["manifest"], daily=True),
                self._asset("splits", ["manifest", "pack"], daily=False),
                self._asset("model", ["splits"], daily=False, follows=False),
                self._asset("dossier", ["model"], daily=False),
                self._asset("log", ["model"], daily=True, follows=False),
                self._asset("truth", ["model"], daily=True, follows=False),
                self._asset("drift", ["log", "splits"], daily=True),
                self._asset("performance", ["log", "truth", "drift"], daily=True),
                self._asset("ab", ["log", "truth"], daily=False),
            ],
            asset_checks=[self._check("raw"), self._check("manifest"), self._check("model", daily=False), self._check("log")],
            executor=dg.in_process_executor,
        )


@pytest.fixture
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """In memory, or (parameter "disk") as on a laptop: SQLite on disk, with a database for each run."""
    if getattr(request, "param", "memory") == "memory":
        with dg.DagsterInstance.ephemeral() as opened:
            yield opened
    else:
        with dg.DagsterInstance.local_temp(str(tmp_path)) as opened:
            yield opened


@pytest.fixture
def world(instance: dg.DagsterInstance) -> World:
    return World(instance)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """The real definitions, on an empty source."""
    source = tmp_path / "source"
    source.mkdir()
    monkeypatch.setenv("PIPELINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIPELINE__DATA__SOURCE", str(source))
    project_settings.cache_clear()
    try:
        (tmp_path / "dagster").mkdir()
        with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:  # schedules want one that can be found again
            yield Shop(source, instance)
    finally:
        project_settings.cache_clear()
