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
from pipeline_project.digests import digest_of, sha256_file
from pipeline_project.local.processes import MARK, end, members
from pipeline_project.settings import Settings, child_environment

PROJECT = Path(__file__).parent.parent.parent
DAEMON, WEBSERVER, AUDIT, MLFLOW = "dagster-daemon", "dagster-webserver", "dagster-audit", "mlflow"
_START_S = 120.0
_STOP_S = 20.0
_CODE_SERVER_S = 30.0


class ServiceError(ValueError):
    """A service cannot be started; the message says why and where its log is."""


class ServiceState(BaseModel):
    """Who runs, since when (seconds since the epoch, as the system tells it), where, and with which settings and code (digests)."""

    pid: int
    started: float
    url: str
    settings: str = ""
    code: str = ""


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

    @property
    def port_setting(self) -> str:
        """The setting that holds its port."""
        return "local.audit_port" if self.name == AUDIT else f"local.{self.name.split('-')[0]}_port"


def dagster_services(settings: Settings) -> list[Service]:
    """The webserver and the daemon, on one instance."""
    workspace = str(PROJECT / "workspace.yaml")
    program = [sys.executable, "-m"]
    webserver = ["dagster_webserver", "-h", "127.0.0.1", "-p", str(settings.local.dagster_port), "-w", workspace]
    return [
        Service(WEBSERVER, [*program, *webserver], settings.local.dagster_port, "/server_info"),
        Service(DAEMON, [*program, "dagster._daemon", "run", "-w", workspace], None, None),
    ]


def audit_service(settings: Settings) -> Service:
    """The same UI for auditors: everything can be read, and every mutation is refused (starting, cancelling, deleting, switching)."""
    port = settings.local.audit_port
    command = [sys.executable, "-m", "dagster_webserver", "--read-only", "-h", "127.0.0.1", "-p", str(port)]
    return Service(AUDIT, [*command, "-w", str(PROJECT / "workspace.yaml")], port, "/server_info")


def mlflow_service(settings: Settings) -> Service:
    """The MLflow UI on the same database."""
    port = settings.local.mlflow_port
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return Service(MLFLOW, [*command, "--backend-store-uri", settings.tracking_uri], port, "/health")


def all_services(settings: Settings) -> list[Service]:
    """Everything that can be started in the background but the endpoints."""
    return [*dagster_services(settings), audit_service(settings), mlflow_service(settings)]


def settings_digest(settings: Settings) -> str:
    """The digest of every value of the settings."""
    return digest_of(settings.model_dump(mode="json"))


def code_digest() -> str:
    """The digest of the package's own Python files, as they are now."""
    package = PROJECT / "pipeline_project"
    return digest_of({path.relative_to(package).as_posix(): sha256_file(path) for path in package.rglob("*.py")})


def start(settings: Settings, service: Service, config: Path) -> bool:
    """Start a service unless it runs. Returns whether it was started now; use `wait_ready` before talking to it.

    Before Dagster starts, runs that a crash or a power cut left half-way are marked as such: the daemon repeats them.

    Raises:
        ServiceError: its port is taken by something else.
    """
    found = running(settings, service.name)
    if found is not None and not (service.name in (WEBSERVER, AUDIT) and lacks_code_server(settings, found)):
        return False
    if found is not None:
        _stop_tree(found.pid)  # unlike the daemon, it never replaces a code server that was killed
    if service.port is not None:
        _require_port("127.0.0.1", service.port, service.name, service.port_setting, config)
    prepare_home(settings)
    if service.name == MLFLOW and settings.tracking_uri.startswith("sqlite:"):
        from pipeline_project.training.tracking import prepare_tracking

        prepare_tracking(settings)  # the server would make the database's tables one by one, and a kill leave it with some
    log = _log(settings, service.name)
    if service.name in (DAEMON, WEBSERVER) and running(settings, DAEMON) is None:
        _mend(settings, log)
    with log.open("ab") as file:
        process = subprocess.Popen(
            service.command,
            cwd=settings.home,
            env=child_environment(settings, config) | {MARK: service.name},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    begun = psutil.Process(process.pid).create_time()
    state = ServiceState(pid=process.pid, started=begun, url=service.url, settings=settings_digest(settings), code=code_digest())
    path = state_file(settings, service.name)
    draft = path.with_name(f".{path.name}")
    draft.write_text(state.model_dump_json())
    draft.replace(path)
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


def start_endpoint(settings: Settings, environment: Environment, config: Path | None = None) -> str:
    """Start the supervisor of an environment unless it runs, and return its URL. It serves whatever its newest document says.

    Args:
        config: the project's settings file, for the message.

    Raises:
        ServiceError: its port cannot be listened on.
        ServerStartError: it ended at once, or does not answer.
    """
    from pipeline_project.serving.process import find_server, start_server

    found = find_server(settings, environment)
    if found is not None:
        return found.url
    wanted = settings.serving.staging if environment == "staging" else settings.serving.production
    _require_port(settings.serving.host, wanted.port, f"the {environment} endpoint", f"serving.{environment}.port", config)
    prepare_home(settings)
    return start_server(settings, environment, log_file=_log(settings, f"endpoint-{environment}")).url


def running(settings: Settings, name: str) -> ServiceState | None:
    """The state of a running service, or None."""
    try:
        state = ServiceState.model_validate_json(state_file(settings, name).read_bytes())
        process = psutil.Process(state.pid)
        alive = abs(process.create_time() - state.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None
    return state if alive else None


def lacks_code_server(settings: Settings, webserver: ServiceState) -> bool:
    """Whether a webserver that has had the time to start a code server has none: it then shows errors, and starts no run."""
    children = (process for process in members(settings.home).values() if process.parent == webserver.pid)
    return time.time() - webserver.started > _CODE_SERVER_S and not any(process.is_code_server for process in children)


def stop_all(settings: Settings) -> list[str]:
    """Stop every service of the runtime home, gracefully first. Returns the names of those that ran."""
    from pipeline_project.serving.process import find_server

    stopped = []
    for name in (MLFLOW, AUDIT, DAEMON, WEBSERVER):
        state = running(settings, name)
        if state is not None:
            _stop_tree(state.pid)
            stopped.append(name)
        state_file(settings, name).unlink(missing_ok=True)
    environments: tuple[Environment, ...] = ("staging", "production")
    for environment in environments:
        server = find_server(settings, environment)
        if server is not None:
            _stop_tree(server.pid)
            stopped.append(f"endpoint-{environment}")
    end(process for process in members(settings.home).values() if process.service)  # what a killed service left behind
    return stopped


def prepare_home(settings: Settings) -> None:
    """The folders of the runtime home, and Dagster's instance file in it."""
    for folder in ("run", "logs", "dagster"):
        (settings.home / folder).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PROJECT / "dagster.yaml", settings.home / "dagster" / "dagster.yaml")


def _mend(settings: Settings, log: Path) -> None:
    from pipeline_project.defs.instance import repair_home

    repairs = str(repair_home(settings.home))
    if repairs:
        with log.open("a") as file:
            file.write(f"repaired before the start:\n{repairs}\n")


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


def _require_port(host: str, port: int, name: str, setting: str, config: Path | None) -> None:
    from pipeline_project.serving.ports import port_problem

    problem = port_problem(host, port)
    if problem is not None:
        where = config or "the project's settings file"
        raise ServiceError(f"Port {port} {problem}, so {name} cannot start. Stop that program, or set {setting} to a free port in {where}.")


def state_file(settings: Settings, name: str) -> Path:
    """Where a running service is remembered."""
    return settings.home / "run" / f"{name}.json"


def _log(settings: Settings, name: str) -> Path:
    return settings.home / "logs" / f"{name}.log"


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"
