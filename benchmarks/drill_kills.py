"""`make drill-kills`: SIGKILL at random moments, and in the end the same results as without.

A small project is taken from photos to production once undisturbed. Then again in a fresh runtime home, while runs, the daemon, code
servers and the webserver are killed at random moments (seeded); what was killed is started again as `make demo` does, and what failed
is launched again, until everything is made. Then the payload digests must be equal, and no run, pool slot, lock or process may be
left behind. The last line is one JSON object; the exit status is 0 only if all of that holds.
"""

import argparse
import collections
import json
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import httpx

from benchmarks.platform import endpoints, payload_digests
from benchmarks.report import say
from pipeline_project.defs.instance import held_slots, home_of, worker_processes
from pipeline_project.ingest.sources import open_source
from pipeline_project.local import demo, project, services
from pipeline_project.local.dagster_client import DagsterClient, DagsterError
from pipeline_project.local.processes import members
from pipeline_project.sample.catalogue import generate_catalogue
from pipeline_project.settings import Settings, load_settings
from pipeline_project.stage import StageContext

DAYS = 2
IMAGES_A_DAY = 120
SHARES = {"run": 10, "daemon": 4, "daemon's code server": 3, "webserver": 2, "webserver's code server": 1}
_MEAN_GAP_S = 6.0
_INTO_RUN_S = 12.0
_PATIENCE_S = 1500.0
_IN_PROGRESS = [s for s in dg.DagsterRunStatus if s.value not in ("SUCCESS", "FAILURE", "CANCELED")]


def main() -> None:
    """Parse arguments, run the drill, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the two runtime homes; default: a temporary one, removed afterwards")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="drill-kills-") as folder:
        report = drill(arguments.keep or Path(folder), kills=arguments.kills, seed=arguments.seed)
    print(json.dumps(report))
    sys.exit(0 if report["ok"] else 1)


def drill(folder: Path, *, kills: int, seed: int = 0) -> dict[str, Any]:
    """The whole drill in a folder. Returns the figures; "ok" says whether everything held."""
    photos = folder / "photos"
    today = datetime.now(UTC).date()
    generate_catalogue(photos, seed=3, days=[today - timedelta(days=n) for n in range(DAYS, 0, -1)], images_per_day=IMAGES_A_DAY)
    calm = Operator(*make_project(folder / "calm", photos))
    say("undisturbed")
    expected, calm_s, _ = calm.work_through(None)
    say(f"undisturbed: {calm_s:.0f} s, {len(expected)} payload digests; now with {kills} kills")
    rough = Operator(*make_project(folder / "rough", photos))
    chance = random.Random(seed)
    killer = Killer(rough.settings, plan(kills, chance), chance)
    found, rough_s, left = rough.work_through(killer)
    different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    ok = not different and not any(left.values()) and sum(killer.done.values()) == kills
    return {
        "drill": "kills",
        "ok": ok,
        "equal": not different,
        "different": different,
        "digests": len(expected),
        "kills": sum(killer.done.values()),
        "by_target": dict(killer.done),
        "seed": seed,
        "left_behind": left,
        "launched": rough.launched,
        "runs": rough.statuses,
        "seconds_undisturbed": round(calm_s, 1),
        "seconds_with_kills": round(rough_s, 1),
        "cpus": os.cpu_count(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def plan(kills: int, chance: random.Random) -> list[str]:
    """What to kill: the targets by their shares, in random order."""
    whole = [target for target, share in SHARES.items() for _ in range(share)]
    few = whole[:: max(1, len(whole) // kills)][:kills]
    targets = few if kills < len(whole) else [whole[n % len(whole)] for n in range(kills)]
    chance.shuffle(targets)
    return targets


def make_project(home: Path, photos: Path) -> tuple[Path, Settings]:
    """A fresh small project over the photos, with ports of its own and gates without hurdles: what matters here is that it gets there."""
    ports = free_ports(3)
    days = sorted(path.name for path in photos.iterdir())
    values: dict[str, object] = {
        "extends": "sample",
        "name": home.name,
        "data": {"source": str(photos), "start_date": datetime.fromisoformat(days[0]).date()},
        "image": {"size": 32},
        "training": {"epochs": 10, "learning_rate": 0.001},
        "tuning": {"trials": 4, "workers": 2, "epochs": 2, "batch_size": [16], "learning_rate": [0.001, 0.002]},
        "cross_validation": {"folds": 2, "epochs": 2},
        "evaluation": {"load_test_s": 1, "explained_images": 4},
        "local": {"dagster_port": ports[0]},
        "serving": {"production": {"port": ports[1], "workers": 1, "step_seconds": 0}, "staging": {"port": ports[2], "workers": 1}},
        "gates": {
            "accuracy": 0.1,
            "precision_per_class": 0.0,
            "recall_per_class": 0.0,
            "macro_f1": 0.0,
            "max_slice_gap": 1.0,
            "min_slice_size": 5,
            "max_expected_calibration_error": 1.0,
            "min_corruption_accuracy": 0.0,
            "throughput_rps": 1,
            "p99_latency_ms": 60_000,
        },
    }
    config = home / "settings.yaml"
    project.write_settings(config, values)
    return config, load_settings(config, environment={"PIPELINE_HOME": str(home)})


class Operator:
    """Does what a user does: starts what does not run, launches what is not made yet, and has patience."""

    def __init__(self, config: Path, settings: Settings) -> None:
        self.config, self.settings = config, settings
        self.context = StageContext.open(settings)
        self.launched = 0
        self.statuses: dict[str, int] = {}
        self._deadline = time.monotonic() + _PATIENCE_S

    def work_through(self, killer: "Killer | None") -> tuple[dict[str, str], float, dict[str, list[str]]]:
        """Take the project from photos to production. Returns the payload digests, the seconds, and what was left behind."""
        begin = time.monotonic()
        left: dict[str, list[str]] = {}
        try:
            self.start_services()
            endpoints(self.settings)
            with dg.DagsterInstance.from_config(str(self.settings.home / "dagster")) as instance:
                with killer.at_work(instance) if killer else nullcontext():
                    self._make_everything(instance)
                    while killer is not None and not killer.finished:  # everything was made before the last kill: once more
                        self._make_everything(instance)
                self._await_end(instance)
                digests, seconds = payload_digests(self.settings), time.monotonic() - begin
                left |= self._left_in(instance)
                self.statuses = dict(collections.Counter(run.status.value for run in instance.get_runs()))
        finally:
            services.stop_all(self.settings)
        left["processes"] = [process.command[:120] for process in members(self.settings.home).values()]
        return digests, seconds, left

    def start_services(self) -> DagsterClient:
        """Start what does not run, and wait until runs can be launched."""
        while True:
            self._check_patience()
            try:
                started = services.dagster_services(self.settings)
                for service in started:
                    services.start(self.settings, service, self.config)
                for service in started:
                    services.wait_ready(self.settings, service)
                client = DagsterClient(started[0].url, lambda _: None)
                client.wait_loaded(30)
                return client
            except (services.ServiceError, DagsterError, httpx.HTTPError, OSError):
                time.sleep(1)  # killed while it started: again

    def _make_everything(self, instance: dg.DagsterInstance) -> None:
        days = sorted({o.key.split("/")[0] for o in open_source(self.settings).list_all()})
        self._make(instance, [("ingest_day", day) for day in days])
        self._make(instance, [("train_and_stage", None)])
        demo.approve_for_demo(self.context, lambda _: None)
        self._make(instance, [("deploy", None)])
        self._make(instance, [("predict_day", days[-1])])

    def _make(self, instance: dg.DagsterInstance, wanted: Sequence[tuple[str, str | None]]) -> None:
        """Launch runs, together, until each has succeeded once."""
        left = list(wanted)
        while left:
            self._check_patience()
            launched = {order: self._launch(*order) for order in left}
            for order, run_id in launched.items():
                if run_id is not None and self._succeeds(instance, run_id):
                    left.remove(order)

    def _launch(self, job: str, day: str | None) -> str | None:
        client = self.start_services()
        try:
            self.launched += 1
            return client.launch(job, partition=day).run_id
        except (DagsterError, httpx.HTTPError):
            time.sleep(2)  # the webserver or its code server was killed
            return None

    def _succeeds(self, instance: dg.DagsterInstance, run_id: str) -> bool:
        """Follow a run, and the run that repeats it after a crash; meanwhile start what was killed."""
        while True:
            self._check_patience()
            run = instance.get_run_by_id(run_id)
            if run is None:
                return False
            if run.status == dg.DagsterRunStatus.FAILURE and run.tags.get("dagster/will_retry") == "true":
                run_id = run.tags.get("dagster/auto_retry_run_id", run_id)
            elif run.status not in _IN_PROGRESS:
                return run.status == dg.DagsterRunStatus.SUCCESS
            for service in services.dagster_services(self.settings):
                with suppress(services.ServiceError, OSError):
                    services.start(self.settings, service, self.config)
            time.sleep(0.5)

    def _await_end(self, instance: dg.DagsterInstance) -> None:
        """Nothing is killed any more: wait until nothing runs, and what crashed was repeated."""
        while instance.get_runs_count(dg.RunsFilter(statuses=_IN_PROGRESS)) or held_slots(instance):
            if time.monotonic() > self._deadline:
                return  # what is left is reported
            self.start_services()
            time.sleep(1)

    def _left_in(self, instance: dg.DagsterInstance) -> dict[str, list[str]]:
        storage = instance.event_log_storage
        slots = []
        for pool, info in storage.get_concurrency_infos(sorted(storage.get_concurrency_keys())).items():
            slots += [f"{pool} {slot.run_id}" for slot in info.claimed_slots]
            slots += [f"{pool} {step.run_id}" for step in info.pending_steps]
        runs = instance.get_runs(dg.RunsFilter(statuses=_IN_PROGRESS))
        locks = sorted(path.name for path in (home_of(instance) / "studies").glob("*") if path.suffix != ".journal")
        return {"runs": [f"{run.job_name} {run.status.value} {run.run_id}" for run in runs], "slots": slots, "locks": locks}

    def _check_patience(self) -> None:
        if time.monotonic() > self._deadline:
            raise TimeoutError(f"not done after {_PATIENCE_S:.0f} s; read {self.settings.home}/logs")


@dataclass
class Killer:
    """Kills what the plan names, one after the other, at random moments."""

    settings: Settings
    plan: Sequence[str]
    chance: random.Random
    done: "collections.Counter[str]" = field(default_factory=collections.Counter)
    _stop: threading.Event = field(default_factory=threading.Event)

    @property
    def finished(self) -> bool:
        """Whether all kills are done."""
        return sum(self.done.values()) >= len(self.plan)

    @contextmanager
    def at_work(self, instance: dg.DagsterInstance) -> Iterator[None]:
        """Kill in the background."""
        thread = threading.Thread(target=self._work, args=(instance,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _work(self, instance: dg.DagsterInstance) -> None:
        """Kill the targets of the plan, each at a random moment; a run at a random moment of its life."""
        for number, target in enumerate(self.plan, 1):
            if self._stop.wait(self.chance.expovariate(1 / _MEAN_GAP_S)):
                return
            while not self._kill(instance, target):
                if self._stop.wait(0.2):
                    return
            self.done[target] += 1
            say(f"kill {number} of {len(self.plan)}: {target}")

    def _kill(self, instance: dg.DagsterInstance, target: str) -> bool:
        if target == "run" and self._find(instance, target):
            self._stop.wait(self.chance.uniform(0, _INTO_RUN_S))
        pids = self._find(instance, target)
        if not pids:
            return False
        try:
            os.kill(self.chance.choice(pids), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def _find(self, instance: dg.DagsterInstance, target: str) -> list[int]:
        if target == "run":
            return sorted(pid for pid in worker_processes(instance).values() if pid is not None)
        state = services.running(self.settings, services.DAEMON if target.startswith("daemon") else services.WEBSERVER)
        if state is None:
            return []
        if target in ("daemon", "webserver"):
            return [state.pid]
        return sorted(p.pid for p in members(self.settings.home).values() if p.parent == state.pid and p.is_code_server)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    main()
