"""Start, watch and stop a server from another process: for the CLI, load tests and tests. Assets never start the endpoint."""

import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from pipeline_project.contracts import Environment
from pipeline_project.serving.supervisor import ServerStartError, ServerState, SupervisorOrder, state_file
from pipeline_project.settings import Settings

_START_S = 60.0
_STOP_S = 25.0


class ServerHandle:
    """A server that was started by `start_server`. As a context manager it is stopped at the end."""

    def __init__(self, process: "subprocess.Popen[bytes]", state: ServerState, log_file: Path) -> None:
        self._process = process
        self.pid, self.port, self.url, self.log_file = state.pid, state.port, state.url, log_file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def workers(self) -> list[int]:
        """The process ids of the workers that live now."""
        try:
            return [child.pid for child in psutil.Process(self.pid).children()]
        except psutil.NoSuchProcess:
            return []

    def memory_mb(self) -> float:
        """Memory of supervisor and workers in 10^6 bytes: the sum of their proportional set sizes, so shared pages count once."""
        total = 0
        for pid in [self.pid, *self.workers()]:
            try:
                total += psutil.Process(pid).memory_full_info().pss
            except psutil.NoSuchProcess:
                continue
        return total / 1e6

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until the server can predict. Raises `ServerStartError` after `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        while not _answers(f"{self.url}/health/ready"):
            if time.monotonic() >= deadline or self._process.poll() is not None:
                raise ServerStartError(f"{self.url} has no model after {timeout_s:g} s. Its log ends with:\n{_tail(self.log_file)}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server: gracefully, and by force after 25 s."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                for pid in [*self.workers(), self.pid]:
                    try:
                        psutil.Process(pid).kill()
                    except psutil.NoSuchProcess:
                        continue
                self._process.wait()


def start_server(
    settings: Settings,
    environment: Environment,
    *,
    package_digest: str | None = None,
    port: int | None = None,
    home: Path | None = None,
    log_file: Path,
) -> ServerHandle:
    """Start a supervisor in a session of its own and wait until it answers.

    Args:
        package_digest: serve exactly this package, without documents and approvals.
        port: instead of the settings' port; 0 takes a free one.
        home: a runtime home of its own for spool and state; store and trusted keys stay those of `settings`.
        log_file: takes what supervisor and workers print.

    Raises:
        ServerStartError: it ended, or did not answer within a minute; the message ends with its log.
    """
    settings = _with_home(settings, home)
    run = settings.home / "run"
    run.mkdir(parents=True, exist_ok=True)
    log_file.parent.mkdir(parents=True, exist_ok=True)
    settings_file = run / f".start-{secrets.token_hex(6)}.json"
    settings_file.write_text(settings.model_dump_json())
    order = SupervisorOrder(settings_file=settings_file, environment=environment, port=port, package_digest=package_digest)
    try:
        with log_file.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipeline_project.serving.supervisor", order.model_dump_json()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return ServerHandle(process, _await_live(process, state_file(settings.home, environment), environment, log_file), log_file)
    finally:
        settings_file.unlink(missing_ok=True)


def find_server(settings: Settings, environment: Environment) -> ServerState | None:
    """The running server of an environment on this runtime home, or None."""
    try:
        state = ServerState.model_validate_json(state_file(settings.home, environment).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    try:
        begun = psutil.Process(state.pid).create_time()
    except psutil.NoSuchProcess:
        return None
    # A server writes its state as it starts; a process of another age has inherited the number of one that is gone.
    return state if abs(state.started.timestamp() - begun) < _START_S else None


def _with_home(settings: Settings, home: Path | None) -> Settings:
    if home is None:
        return settings
    store = settings.store.model_copy(update={"root": settings.store_root})
    trust = settings.trust.model_copy(
        update={
            "signing_key": str(settings.signing_key),
            "signers": str(settings.trusted_signers),
            "approvers": str(settings.trusted_approvers),
        }
    )
    return settings.model_copy(update={"home": home.absolute(), "store": store, "trust": trust})


def _await_live(process: "subprocess.Popen[bytes]", state_path: Path, environment: str, log_file: Path) -> ServerState:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            state = ServerState.model_validate_json(state_path.read_bytes())
        except (FileNotFoundError, ValueError):
            state = None
        if state is not None and state.pid == process.pid and _answers(f"{state.url}/health/live"):
            return state
        time.sleep(0.05)
    ended = process.poll() is not None
    if not ended:
        process.terminate()
        process.wait(_STOP_S)
    why = "ended at once" if ended else f"does not answer after {_START_S:g} s"
    raise ServerStartError(f"the server of {environment} {why}. Its log ({log_file}) ends with:\n{_tail(log_file)}")


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as answer:  # noqa: S310 our own http address
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _tail(log_file: Path, characters: int = 2000) -> str:
    try:
        return log_file.read_text("utf-8", "replace")[-characters:]
    except OSError:
        return "(no log)"
