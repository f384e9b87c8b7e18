"""After a SIGKILL: dead runs are found and marked, living ones are left alone, places in pools are free again, orphans are ended."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.events import EngineEventData
from dagster._core.launcher import LaunchRunContext, WorkerStatus
from dagster._core.test_utils import create_run_for_test

from pipeline_project.defs.instance import dead_runs, held_slots, open_instance, orphans, repair, repair_home
from pipeline_project.defs.launcher import LocalRunLauncher
from pipeline_project.local.processes import MARK, members
from pipeline_project.local.services import DAEMON, prepare_home
from pipeline_project.settings import load_settings

Status = dg.DagsterRunStatus
RUN, DAEMON_COMMAND = "multiprocessing.spawn", "dagster._daemon"
SLEEP = "import time; time.sleep(600)"
# The child's command is taken apart, so that it does not stand in the parent's own command line.
PARENT = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", {code!r}, "".join({command!r})], stdout=subprocess.DEVNULL).pid, flush=True)
{then}
"""


def new_home(home: Path) -> Path:
    prepare_home(load_settings("sample", environment={"PIPELINE_HOME": str(home)}))
    return home


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with empty databases, to be copied: making them takes seconds."""
    home = new_home(tmp_path_factory.mktemp("fresh") / "home")
    repair_home(home)
    return home


@pytest.fixture
def home(tmp_path: Path, fresh: Path) -> Path:
    return Path(shutil.copytree(fresh, tmp_path / "home"))


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance(home) as opened:
        yield opened


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Start a process as the daemon would: with the instance and our mark in its environment, unless told otherwise."""
    started = []

    def run(command: str = RUN, instance_of: Path = home, mark: str | None = DAEMON, code: str = SLEEP) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "DAGSTER_HOME": str(instance_of / "dagster"), **({MARK: mark} if mark else {})}
        process = subprocess.Popen([sys.executable, "-c", code, command], env=environment, stdout=subprocess.PIPE)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


@pytest.fixture
def orphan(start: Callable[..., "subprocess.Popen[bytes]"]) -> Iterator[Callable[..., psutil.Process]]:
    """Start a process whose parent is gone."""
    made = []

    def run(command: str = RUN, **arguments: object) -> psutil.Process:
        parent = start("parent", code=PARENT.format(code=SLEEP, command=list(command), then=""), **arguments)
        made.append(psutil.Process(int(parent.stdout.readline())))  # type: ignore[union-attr]
        parent.wait()
        return made[-1]

    yield run
    for process in made:
        if process.is_running():
            process.kill()


def a_run(instance: dg.DagsterInstance, status: Status, pid: int | None = None, job: str = "job") -> str:
    run: dg.DagsterRun = create_run_for_test(instance, job_name=job, status=status)
    if pid is not None:
        instance.report_engine_event(f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid))
    return run.run_id


def status_of(instance: dg.DagsterInstance, run_id: str) -> Status:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def kill(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def test_living_run_is_left_alone_and_a_killed_one_is_marked(
    instance: dg.DagsterInstance, start: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    living, killed = start(), start()
    one, other = a_run(instance, Status.STARTED, living.pid), a_run(instance, Status.STARTED, killed.pid)
    assert dead_runs(instance) == []
    kill(killed)
    assert [(dead.run_id, dead.status) for dead in dead_runs(instance)] == [(other, "STARTED")]
    done = repair(instance)
    assert [dead.run_id for dead in done.runs] == [other]
    assert status_of(instance, other) == Status.FAILURE
    assert status_of(instance, one) == Status.STARTED
    assert living.poll() is None
    run = instance.get_run_by_id(other)
    assert run is not None
    assert run.tags["dagster/will_retry"] == "true", "the daemon repeats it from where it stopped"
    assert repair(instance).runs == [], "once is enough"


def test_recycled_process_id_is_not_the_run(
    home: Path, instance: dg.DagsterInstance, start: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    stranger, of_other_home = start("some program"), start(instance_of=home / "elsewhere")
    runs = [a_run(instance, Status.STARTED, process.pid) for process in (stranger, of_other_home)]
    later_owner = start()
    early, late = (a_run(instance, Status.STARTED, later_owner.pid) for _ in range(2))
    assert {dead.run_id for dead in dead_runs(instance)} == {*runs, early}
    repair(instance)
    assert status_of(instance, late) == Status.STARTED
    assert [process.poll() for process in (stranger, of_other_home, later_owner)] == [None, None, None]


def test_run_that_was_launched_again_lives_in_its_newest_process(
    instance: dg.DagsterInstance, start: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    first, second = start(), start()
    run_id = a_run(instance, Status.STARTED, first.pid)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    instance.report_engine_event(f"Started process for run (pid: {second.pid}).", run, EngineEventData.in_process(second.pid))
    kill(first)
    assert dead_runs(instance) == []
    kill(second)
    assert [dead.run_id for dead in dead_runs(instance)] == [run_id]


def test_run_that_lives_is_not_launched_twice(instance: dg.DagsterInstance, start: Callable[..., "subprocess.Popen[bytes]"]) -> None:
    run_id = a_run(instance, Status.STARTING, start().pid)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))  # to launch it would need a workspace
    assert any("goes on in the process" in (entry.message or "") for entry in instance.all_logs(run_id))


def test_run_of_another_program_on_the_instance_lives(
    instance: dg.DagsterInstance, start: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    by_hand = start(mark=None)  # such as `dagster dev` with this DAGSTER_HOME
    a_run(instance, Status.STARTED, by_hand.pid)
    assert dead_runs(instance) == []


def test_run_being_launched_is_dead_only_when_nobody_launches(
    instance: dg.DagsterInstance, start: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    run_id = a_run(instance, Status.STARTING)
    daemon = start(DAEMON_COMMAND)
    assert dead_runs(instance) == []
    kill(daemon)
    on_its_way = start()  # it was started, and has not told its number yet
    assert dead_runs(instance) == []
    kill(on_its_way)
    assert [dead.run_id for dead in dead_runs(instance)] == [run_id]
    repair(instance)
    assert status_of(instance, run_id) == Status.FAILURE


def test_dead_run_that_was_being_cancelled_is_cancelled(
    instance: dg.DagsterInstance, start: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    process = start()
    run_id = a_run(instance, Status.CANCELING, process.pid)
    kill(process)
    repair(instance)
    assert status_of(instance, run_id) == Status.CANCELED


def test_finished_runs_are_none_of_its_business(instance: dg.DagsterInstance) -> None:
    runs = {a_run(instance, status): status for status in (Status.SUCCESS, Status.FAILURE, Status.CANCELED)}
    assert str(repair(instance)) == ""
    assert {run_id: status_of(instance, run_id) for run_id in runs} == runs


def test_places_of_dead_runs_go_to_those_who_wait(instance: dg.DagsterInstance, start: Callable[..., "subprocess.Popen[bytes]"]) -> None:
    storage, pool = instance.event_log_storage, "deployment"
    storage.set_concurrency_slots(pool, 1)
    holder, waiter = start(), start()
    held, waits = a_run(instance, Status.STARTED, holder.pid), a_run(instance, Status.STARTED, waiter.pid)
    assert storage.claim_concurrency_slot(pool, held, "step").is_claimed
    assert not storage.claim_concurrency_slot(pool, waits, "step").is_claimed
    assert held_slots(instance) == []
    kill(holder)
    done = repair(instance)
    assert {(slot.pool, slot.run_id) for slot in done.slots} == {(pool, held)}
    assert storage.claim_concurrency_slot(pool, waits, "step").is_claimed
    assert held_slots(instance) == []


def test_step_that_nobody_handed_its_place_gets_it(instance: dg.DagsterInstance, start: Callable[..., "subprocess.Popen[bytes]"]) -> None:
    storage, pool = instance.event_log_storage, "deployment"
    storage.set_concurrency_slots(pool, 1)
    waits = a_run(instance, Status.STARTED, start().pid)
    storage.add_pending_step(pool, waits, "step")  # type: ignore[attr-defined] # the place was given up, and its giver killed before this
    assert not storage.claim_concurrency_slot(pool, waits, "step").is_claimed
    repair(instance)
    assert storage.claim_concurrency_slot(pool, waits, "step").is_claimed


def test_orphans_without_a_run_are_ended(
    home: Path, instance: dg.DagsterInstance, start: Callable[..., "subprocess.Popen[bytes]"], orphan: Callable[..., psutil.Process]
) -> None:
    of_ended_run, load_test = orphan(), orphan("pipeline_project.serving.supervisor")
    a_run(instance, Status.FAILURE, of_ended_run.pid)
    working = orphan()  # its code server was killed; the run goes on
    a_run(instance, Status.STARTED, working.pid)
    others = [orphan(instance_of=home / "elsewhere"), orphan(mark=None), orphan("some program")]
    code_server = start("dagster api grpc", code=PARENT.format(code=SLEEP, command=list(RUN), then=SLEEP))
    others.append(psutil.Process(int(code_server.stdout.readline())))  # type: ignore[union-attr]
    assert {process.pid for process in orphans(instance)} == {of_ended_run.pid, load_test.pid}
    repair(instance)
    assert not of_ended_run.is_running()
    assert not load_test.is_running()
    assert all(process.is_running() for process in (working, *others))
    others[-1].kill()


def test_launcher_tells_the_living_from_the_dead(
    instance: dg.DagsterInstance, start: Callable[..., "subprocess.Popen[bytes]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline_project.defs.launcher._REPORT_S", 0.0)
    launcher = instance.run_launcher
    assert isinstance(launcher, LocalRunLauncher), "dagster.yaml names it"
    assert launcher.supports_check_run_worker_health
    process = start()
    run = instance.get_run_by_id(a_run(instance, Status.STARTED, process.pid))
    assert run is not None
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    kill(process)
    assert launcher.check_run_worker_health(run).status == WorkerStatus.NOT_FOUND


def test_run_without_its_code_server_can_be_cancelled(
    instance: dg.DagsterInstance, start: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    process, gone = start(), start()
    socket = '{"host": "localhost", "socket": "/nowhere/socket"}'
    runs = [a_run(instance, Status.STARTED, one.pid) for one in (process, gone)]
    for run_id in runs:
        instance.add_run_tags(run_id, {".dagster/grpc_info": socket})
    kill(gone)
    assert [instance.run_launcher.terminate(run_id) for run_id in runs] == [True, True]
    assert process.wait(30) == -signal.SIGINT or process.returncode == 1, "it was interrupted, as its code server would"
    assert status_of(instance, runs[0]) == Status.CANCELING, "the run itself says when it has ended"
    assert status_of(instance, runs[1]) == Status.CANCELED


def test_new_home_gets_its_databases(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home")
    assert not (home / "dagster" / "history").exists()
    assert str(repair_home(home)) == ""
    assert (home / "dagster" / "history" / "runs.db").is_file()
    assert (home / "dagster" / "schedules" / "schedules.db").is_file()


def test_home_without_a_dagster_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Start the services once"), open_instance(tmp_path):
        pass


def test_members_are_found_by_their_environment(home: Path, start: Callable[..., "subprocess.Popen[bytes]"]) -> None:
    ours, by_hand, other = start(), start(mark=None), start(instance_of=home / "elsewhere")
    found = members(home)
    assert {ours.pid, by_hand.pid} <= found.keys()
    assert other.pid not in found
    assert os.getpid() not in found
    assert (found[ours.pid].service, found[by_hand.pid].service) == (DAEMON, None)
    link = home.parent / "link"
    link.symlink_to(home)
    assert ours.pid in members(link), "a home has one identity, whatever it is called"
