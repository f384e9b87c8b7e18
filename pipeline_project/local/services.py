"""The services of one machine: started in the background, remembered by process id, stopped by it.

Nothing is ever stopped by name: `run/SERVICE.json` in the runtime home holds the process id and its start time, so a recycled id is
never mistaken for ours.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import BaseModel

from pipeline_project.contracts import Environment
from pipeline_project.settings import Settings, child_environment

PROJECT = Path(__file__).parent.parent.parent
_START_S = 120.0
_STOP_S = 20.0


class ServiceError(ValueError):
    """A service cannot be started; the message says why and where its log is."""


class ServiceState(BaseModel):
    """Who runs, since when (seconds since the epoch, as the system tells it), and where."""

    pid: int
    started: float
    url: str


@dataclass(frozen=True)
class Service:
    """A program to run in the background. `health` is a path that answers 200 when it is ready; None: it has no port."""

    name: str
    command: list[str]
    port: int | None
    health: str | None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}" if self.port else ""


def dagster_services(settings: Settings) -> list[Service]:
    """The webserver and the daemon, on one instance."""
    workspace = str(PROJECT / "workspace.yaml")
    program = [sys.executable, "-m"]
    webserver = ["dagster_webserver", "-h", "127.0.0.1", "-p", str(settings.local.dagster_port), "-w", workspace]
    return [
        Service("dagster-webserver", [*program, *webserver], settings.local.dagster_port, "/server_info"),
        Service("dagster-daemon", [*program, "dagster._daemon", "run", "-w", workspace], None, None),
    ]


def mlflow_service(settings: Settings) -> Service:
    """The MLflow UI on the same database."""
    port = settings.local.mlflow_port
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return Service("mlflow", [*command, "--backend-store-uri", settings.tracking_uri], port, "/health")


def start(settings: Settings, service: Service, config: Path) -> bool:
    """Start a service unless it runs. Returns whether it was started now; use `wait_ready` before talking to it.

    Raises:
        ServiceError: its port is taken by something else.
    """
    if running(settings, service.name) is not None:
        return False
    if service.port is not None and _port_taken(service.port):
        raise ServiceError(
            f"Port {service.port} is taken by another program, so {service.name} cannot start. Stop that program, "
            f"or set local.{service.name.split('-')[0]}_port in {config}."
        )
    prepare_home(settings)
    log = _log(settings, service.name)
    with log.open("ab") as file:
        process = subprocess.Popen(
            service.command,
            cwd=settings.home,
            env=child_environment(settings, config),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    state = ServiceState(pid=process.pid, started=psutil.Process(process.pid).create_time(), url=service.url)
    _state_file(settings, service.name).write_text(state.model_dump_json())
    return True


def wait_ready(settings: Settings, service: Service) -> None:
    """Wait until a started service answers. Raises `ServiceError` when it ended or takes more than two minutes."""
    import httpx

    deadline = time.monotonic() + _START_S
    while service.health is not None:
        if running(settings, service.name) is None:
            raise ServiceError(f"{service.name} ended at once. Its last words:\n{_tail(_log(settings, service.name))}")
        try:
            if httpx.get(service.url + service.health, timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() > deadline:
            raise ServiceError(f"{service.name} does not answer at {service.url}. Read {_log(settings, service.name)}.")
        time.sleep(0.3)


def start_endpoint(settings: Settings, environment: Environment) -> str:
    """Start the supervisor of an environment unless it runs, and return its URL. It serves whatever its newest document says."""
    from pipeline_project.serving.process import find_server, start_server

    found = find_server(settings, environment)
    if found is not None:
        return found.url
    prepare_home(settings)
    return start_server(settings, environment, log_file=_log(settings, f"endpoint-{environment}")).url


def running(settings: Settings, name: str) -> ServiceState | None:
    """The state of a running service, or None."""
    try:
        state = ServiceState.model_validate_json(_state_file(settings, name).read_bytes())
        process = psutil.Process(state.pid)
        alive = abs(process.create_time() - state.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None
    return state if alive else None


def stop_all(settings: Settings) -> list[str]:
    """Stop every service of the runtime home, gracefully first. Returns the names of those that ran."""
    from pipeline_project.serving.process import find_server

    stopped = []
    for name in ("mlflow", "dagster-daemon", "dagster-webserver"):
        state = running(settings, name)
        if state is not None:
            _stop_tree(state.pid)
            stopped.append(name)
        _state_file(settings, name).unlink(missing_ok=True)
    environments: tuple[Environment, ...] = ("staging", "production")
    for environment in environments:
        server = find_server(settings, environment)
        if server is not None:
            _stop_tree(server.pid)
            stopped.append(f"endpoint-{environment}")
    return stopped


def prepare_home(settings: Settings) -> None:
    """The folders of the runtime home, and Dagster's instance file in it."""
    for folder in ("run", "logs", "dagster"):
        (settings.home / folder).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PROJECT / "dagster.yaml", settings.home / "dagster" / "dagster.yaml")


def _stop_tree(pid: int) -> None:
    """SIGTERM to the process; what of its descendants is left after a while is killed."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        os.kill(pid, signal.SIGTERM)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return
    _, left = psutil.wait_procs(family, timeout=_STOP_S)
    for member in left:
        member.kill()
    psutil.wait_procs(left, timeout=5)


def _port_taken(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _state_file(settings: Settings, name: str) -> Path:
    return settings.home / "run" / f"{name}.json"


def _log(settings: Settings, name: str) -> Path:
    return settings.home / "logs" / f"{name}.log"


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"
