"""The processes of a runtime home, found by what they were started with: never by name alone, and never by a bare process id.

Whatever works on a Dagster instance has it in its environment. What our services start carries a mark besides, which all descendants
inherit: code servers, runs, servers of load tests. So what a SIGKILL leaves behind can be told from every other program.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "PIPELINE_SERVICE"
"""The environment variable that names the service a process belongs to."""

_SPAWN = "multiprocessing.spawn"
_STOP_S = 5.0


@dataclass(frozen=True)
class Member:
    """A living process on the Dagster instance of a runtime home. `service`: which of ours it belongs to; None: to none of them."""

    pid: int
    parent: int
    started: float
    command: str
    service: str | None

    @property
    def is_daemon(self) -> bool:
        """Whether it is the Dagster daemon."""
        return "dagster._daemon" in self.command

    @property
    def is_code_server(self) -> bool:
        """Whether it loads the assets for the daemon or a webserver, and starts runs."""
        return "dagster api grpc" in self.command

    @property
    def is_run(self) -> bool:
        """Whether it executes a run (or is about to)."""
        return _SPAWN in self.command and (self.service is None or self.service.startswith("dagster"))

    @property
    def is_load_test_server(self) -> bool:
        """Whether it is a server that a run started for a load test: the endpoints themselves carry no mark."""
        return "pipeline_project.serving" in self.command


def members(home: Path) -> dict[int, Member]:
    """{process id: process} of all that works on the Dagster instance of a runtime home, but this process itself."""
    instance = (home / "dagster").resolve()
    found = {}
    for process in psutil.process_iter(["ppid", "create_time", "cmdline", "environ"]):
        about = process.info
        environment = about["environ"] or {}  # None: it ended, or is somebody else's
        named = environment.get("DAGSTER_HOME")
        if named and about["cmdline"] and process.pid != os.getpid() and Path(named).resolve() == instance:
            command = " ".join(about["cmdline"])
            found[process.pid] = Member(process.pid, about["ppid"], about["create_time"], command, environment.get(MARK))
    return found


def may_execute_run(pid: int) -> bool:
    """Whether a process lives that could execute a run, but is not ours to look into, such as another user's."""
    try:
        about = psutil.Process(pid).as_dict(["environ", "cmdline", "status"], ad_value=None)
    except psutil.NoSuchProcess:
        return False
    closed = about["environ"] is None and about["status"] != psutil.STATUS_ZOMBIE
    return closed and (about["cmdline"] is None or _SPAWN in " ".join(about["cmdline"]))


def end(processes: Iterable[Member], wait_s: float = _STOP_S) -> list[Member]:
    """SIGTERM, and SIGKILL for those that are there after `wait_s` seconds. Returns those that were ended now."""
    asked: list[psutil.Process] = []
    ended = []
    for member in processes:
        try:
            process = psutil.Process(member.pid)
            if process.create_time() != member.started:
                continue  # the number is another program's by now
            process.terminate()
        except psutil.NoSuchProcess:
            continue
        asked.append(process)
        ended.append(member)
    _, left = psutil.wait_procs(asked, timeout=wait_s)
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=_STOP_S)
    return ended
