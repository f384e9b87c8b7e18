"""The server of one environment on one machine: a supervisor with worker processes on one listening socket.

The supervisor answers no request and loads no model. It keeps the workers alive, ships their logs, and guards the canary. Started with
`run_supervisor`, or detached as `python -m pipeline_project.serving.supervisor ORDER` (see `process`).
"""

import fcntl
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from prometheus_client.multiprocess import mark_process_dead
from pydantic import BaseModel, ConfigDict

from pipeline_project.contracts import Environment
from pipeline_project.serving.documents import remove_report
from pipeline_project.serving.guard import guard_once
from pipeline_project.serving.ports import explain_bind_error
from pipeline_project.serving.prediction_log import Shipper, spool_folder
from pipeline_project.settings import Settings
from pipeline_project.storage import ByteStore, open_artifacts

SHIP_S = 3.0
GUARD_S = 1.0
DRAIN_S = 15.0
_BACKLOG = 1024
_FIRST_BACKOFF_S, _MAX_BACKOFF_S, _STABLE_S = 0.2, 10.0, 30.0


class ServerStartError(ValueError):
    """The server cannot start; the message says why and what to do."""


class SupervisorOrder(BaseModel):
    """What a detached supervisor is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings_file: Path
    environment: Environment
    port: int | None
    package_digest: str | None


class ServerState(BaseModel):
    """`run/serve-ENVIRONMENT.json` in the runtime home: which supervisor serves, and where."""

    pid: int
    port: int
    url: str
    started: datetime


def state_file(home: Path, environment: Environment) -> Path:
    """Where a running supervisor says its process id and port."""
    return home / "run" / f"serve-{environment}.json"


def run_supervisor(settings: Settings, environment: Environment, port: int | None = None, package_digest: str | None = None) -> None:
    """Serve an environment until SIGTERM or SIGINT, then let the workers finish what is under way.

    Args:
        port: instead of the settings' port; 0 takes a free one (the state file says which).
        package_digest: serve exactly this package, without documents, approvals and guard (load tests; use a runtime home of its own).

    Raises:
        ServerStartError: the port is taken, or another server of this environment runs on this runtime home.
    """
    wanted = settings.serving.staging if environment == "staging" else settings.serving.production
    run = settings.home / "run"
    run.mkdir(parents=True, exist_ok=True)
    with (run / f"serve-{environment}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerStartError(
                f"{environment} is served already from {settings.home}. Stop that server, or set PIPELINE_HOME to another folder."
            ) from None
        listener = _listen(settings.serving.host, wanted.port if port is None else port, environment)
        threads = max(1, int(min(wanted.cpu, len(os.sched_getaffinity(0))) // wanted.workers))
        supervisor = Supervisor(settings, environment, listener, workers=wanted.workers, threads=threads, package_digest=package_digest)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, supervisor.on_signal)
        supervisor.run()


class Supervisor:
    """Keeps `workers` worker processes serving on `listener` until it is told to stop."""

    def __init__(
        self,
        settings: Settings,
        environment: Environment,
        listener: socket.socket,
        *,
        workers: int,
        threads: int,
        package_digest: str | None,
    ) -> None:
        self._settings, self._environment, self._listener = settings, environment, listener
        self._threads, self._package_digest = threads, package_digest
        self._port = int(listener.getsockname()[1])
        self._store: ByteStore = open_artifacts(settings).bytes
        self._folder = settings.home / "run" / f"serve-{environment}"
        self._metrics, self._statistics = self._folder / "metrics", self._folder / "statistics"
        self._settings_file = self._folder / "settings.json"
        self._watch_end, self._own_end = os.pipe()
        self._stop = threading.Event()
        self._slots = [_Slot(f"{_host()}-{self._port}-{index}") for index in range(workers)]
        self._shipper = Shipper(spool_folder(settings.home, environment), self._store, environment)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Stop, gracefully."""
        self._stop.set()

    def run(self) -> None:
        """Serve until stopped. Leftover logs of an earlier server are shipped first."""
        shutil.rmtree(self._folder, ignore_errors=True)
        for folder in (self._metrics, self._statistics):
            folder.mkdir(parents=True)
        self._settings_file.write_text(self._settings.model_dump_json())
        self._write_state()
        chores = [self._chore(self._ship, SHIP_S, "ship")]
        if self._package_digest is None:
            chores.append(self._chore(self._guard, GUARD_S, "guard"))
        _say(f"serves {self._environment} on port {self._port} with {len(self._slots)} workers")
        try:
            while not self._stop.is_set():
                for slot in self._slots:
                    self._tend(slot)
                self._stop.wait(0.1)
        finally:
            self._stop.set()
            self._end_workers()
            for chore in chores:
                chore.join(timeout=DRAIN_S)
            try:
                self._ship()
            except Exception as error:  # what is not shipped stays in the spool for the next start
                _say(f"ship: {type(error).__name__}: {error}; the rest stays in the spool")
            for slot in self._slots:
                self._withdraw(slot)
            state_file(self._settings.home, self._environment).unlink(missing_ok=True)
            _say(f"has stopped serving {self._environment}")

    def _tend(self, slot: "_Slot") -> None:
        now = time.monotonic()
        if slot.process is not None:
            code = slot.process.poll()
            if code is None:
                return
            mark_process_dead(slot.process.pid, str(self._metrics))  # type: ignore[no-untyped-call]
            slot.note_death(now)
            _say(f"worker {slot.replica} (process {slot.process.pid}) ended with code {code}; starts again in {slot.backoff_s:g} s")
            slot.process = None
            threading.Thread(target=self._withdraw, args=(slot,), daemon=True).start()  # a slow store must not delay the restart
        if now >= slot.start_at:
            slot.started, slot.process = now, self._start(slot.replica)

    def _start(self, replica: str) -> "subprocess.Popen[bytes]":
        order = {
            "settings_file": str(self._settings_file),
            "environment": self._environment,
            "replica": replica,
            "socket_descriptor": self._listener.fileno(),
            "shared_socket": len(self._slots) > 1,
            "watch_descriptor": self._watch_end,
            "threads": self._threads,
            "metrics_folder": str(self._metrics),
            "statistics_folder": str(self._statistics),
            "package_digest": self._package_digest,
        }
        # prometheus_client reads its folder from the environment at import; `env` sets it and becomes the worker (same process id).
        return subprocess.Popen(
            [
                "env",
                f"PROMETHEUS_MULTIPROC_DIR={self._metrics}",
                sys.executable,
                "-m",
                "pipeline_project.serving.worker",
                json.dumps(order),
            ],
            pass_fds=(self._listener.fileno(), self._watch_end),
            stdin=subprocess.DEVNULL,
        )

    def _end_workers(self) -> None:
        living = [slot.process for slot in self._slots if slot.process is not None]
        for process in living:
            process.terminate()
        deadline = time.monotonic() + DRAIN_S
        for process in living:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _withdraw(self, slot: "_Slot") -> None:
        """A dead worker serves nothing: nobody shall count its last report."""
        if self._package_digest is None:
            try:
                remove_report(self._store, self._environment, slot.replica)
            except Exception as error:  # a store that is away; the report expires by itself
                _say(f"cannot withdraw the report of {slot.replica}: {type(error).__name__}: {error}")

    def _ship(self) -> None:
        self._shipper.ship()

    def _guard(self) -> None:
        written = guard_once(self._store, self._environment, self._statistics, self._settings.serving.guard)
        if written is not None:
            _say(f"guard: wrote document {written.number} of {self._environment}: {written.reason}")

    def _chore(self, work: Callable[[], None], period_s: float, name: str) -> threading.Thread:
        def loop() -> None:
            while True:
                try:
                    work()
                except Exception as error:  # a store that is away must not end the server; the next round tries again
                    _say(f"{name}: {type(error).__name__}: {error}; trying again")
                if self._stop.wait(period_s):
                    return

        thread = threading.Thread(target=loop, name=name, daemon=True)
        thread.start()
        return thread

    def _write_state(self) -> None:
        host = "127.0.0.1" if self._settings.serving.host in ("0.0.0.0", "") else self._settings.serving.host  # noqa: S104 not bound here
        state = ServerState(pid=os.getpid(), port=self._port, url=f"http://{host}:{self._port}", started=datetime.now(UTC))
        path = state_file(self._settings.home, self._environment)
        draft = path.with_name(f".{path.name}")
        draft.write_text(state.model_dump_json())
        draft.replace(path)


class _Slot:
    """A place for one worker: its process comes and goes, its replica name stays."""

    def __init__(self, replica: str) -> None:
        self.replica = replica
        self.process: subprocess.Popen[bytes] | None = None
        self.started = self.start_at = 0.0
        self.backoff_s = 0.0

    def note_death(self, now: float) -> None:
        """The first death restarts soon, a crash loop ever later."""
        stable = now - self.started >= _STABLE_S
        self.backoff_s = _FIRST_BACKOFF_S if stable or not self.backoff_s else min(2 * self.backoff_s, _MAX_BACKOFF_S)
        self.start_at = now + self.backoff_s


def _listen(host: str, port: int, environment: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ServerStartError(
            f"{environment}: cannot listen on {host}:{port}: the port {explain_bind_error(error, host, port)}. "
            f"Stop what uses the port, or set serving.{environment}.port in the settings to another one."
        ) from None
    return listener


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", platform.node()).strip("-.")[:60] or "host"


def _say(line: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} server: {line}", flush=True)  # noqa: T201 standard output is the server's log


def main() -> None:
    """Entry of a detached supervisor."""
    order = SupervisorOrder.model_validate_json(sys.argv[1])
    settings = Settings.model_validate_json(order.settings_file.read_bytes())
    try:
        run_supervisor(settings, order.environment, order.port, order.package_digest)
    except ServerStartError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
