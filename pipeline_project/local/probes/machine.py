"""Python and its packages, disk, runtime home, ports, services."""

import shutil
import sys
import time
from importlib import metadata
from pathlib import Path

from pipeline_project.contracts import Environment
from pipeline_project.local import services
from pipeline_project.local.probes.finding import Finding
from pipeline_project.settings import Settings

LOCK = services.PROJECT / "requirements.lock"
ENVIRONMENTS: tuple[Environment, ...] = ("staging", "production")
_SHOWN = 5
_OLD_S = 3600.0


def python_version(version: tuple[int, ...] = tuple(sys.version_info[:2])) -> list[Finding]:
    """Python 3.11 or 3.12 (R2)."""
    if (3, 11) <= version < (3, 13):
        return []
    said = ".".join(map(str, version))
    why = "the platform needs Python 3.11 or 3.12"
    return [Finding(f"Python {said} is not supported", sys.executable, why, "make clean install PYTHON=/path/to/python3.11")]


def packages(lock: Path = LOCK) -> list[Finding]:
    """The installed packages are those of the lock."""
    from packaging.requirements import Requirement

    if not lock.is_file():
        return []  # installed elsewhere, such as in an image that has its own lock
    wrong = []
    for line in lock.read_text("utf-8").splitlines():
        if not line or line[0] in " #-":
            continue
        wanted = Requirement(line.rstrip("\\ "))
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} is {found}, not {str(wanted.specifier).removeprefix('==')}")
    if not wrong:
        return []
    more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return [
        Finding(
            f"{len(wrong)} packages differ from the lock",
            str(lock),
            ", ".join(wrong[:_SHOWN]) + more,
            "touch requirements.lock && make install",
        )
    ]


def disk(settings: Settings, need_gb: float = 1.0, wish_gb: float = 5.0) -> list[Finding]:
    """Free space for what runs write."""
    folder = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(folder).free / 1e9
    if free >= wish_gb:
        return []
    what = f"{free:.1f} GB of disk are free"
    why = f"runs write packs, weights and logs; below {need_gb:g} GB they fail half-way"
    step = "free some space; `pipeline gc` shows what the project itself no longer needs"
    return [Finding(what, str(folder), why, step, "error" if free < need_gb else "warning")]


def home(settings: Settings) -> list[Finding]:
    """The runtime home can be written."""
    probe = settings.home / ".doctor"
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        step = f"make it writable for this user (chown, chmod), or name another folder: PIPELINE_HOME=DIR. Now {error.strerror}"
        return [Finding("the runtime home cannot be written", str(settings.home), str(error.strerror).lower(), step)]
    return []


def ports(settings: Settings, config: Path) -> list[Finding]:
    """Nobody else listens where a service of ours would."""
    from pipeline_project.serving.ports import port_problem
    from pipeline_project.serving.process import find_server

    found = [
        (service.name, "127.0.0.1", service.port, service.port_setting)
        for service in services.all_services(settings)
        if service.port is not None and services.running(settings, service.name) is None
    ]
    for environment in ENVIRONMENTS:
        if find_server(settings, environment) is None:
            wanted = settings.serving.staging if environment == "staging" else settings.serving.production
            found.append((f"the {environment} endpoint", settings.serving.host, wanted.port, f"serving.{environment}.port"))
    return [
        Finding(f"{name} cannot start", f"{host}:{port}", f"port {port} {problem}", f"stop that program, or set {setting} in {config}")
        for name, host, port, setting in found
        if (problem := port_problem(host, port)) is not None
    ]


def service_states(settings: Settings) -> list[Finding]:
    """What was started still lives and answers, with the settings and the code of now."""
    from pipeline_project.serving.process import find_server
    from pipeline_project.serving.supervisor import state_file

    found = []
    for service in services.all_services(settings):
        state = services.running(settings, service.name)
        if state is not None:
            found += _answers(settings, service, state) + _is_current(settings, service.name, state)
        else:
            found += _left_behind(services.state_file(settings, service.name), service.name)
    for environment in ENVIRONMENTS:
        if find_server(settings, environment) is None:
            found += _left_behind(state_file(settings.home, environment), f"the {environment} endpoint")
    webserver, daemon = services.running(settings, services.WEBSERVER), services.running(settings, services.DAEMON)
    if webserver is not None and daemon is None:
        why = "runs that are launched wait in the queue, and no schedule or sensor works"
        found.append(Finding("the Dagster daemon does not run", str(settings.home), why, "make dev"))
    return found


def leftovers(settings: Settings) -> list[Finding]:
    """Files that a killed process left in the runtime home."""
    old = [path for path in settings.home.glob("run/.start-*.json") if time.time() - path.stat().st_mtime > _OLD_S]

    def mend() -> str:
        for path in old:
            path.unlink(missing_ok=True)
        return f"{len(old)} files removed"

    if not old:
        return []
    why = "a process that started a server was killed"
    return [Finding(f"{len(old)} files are left over", str(settings.home / "run"), why, "remove them", "warning", mend)]


def _answers(settings: Settings, service: services.Service, state: services.ServiceState) -> list[Finding]:
    import httpx

    if service.name in (services.WEBSERVER, services.AUDIT) and services.lacks_code_server(settings, state):
        why = "its code server was killed; it shows errors and starts no run"
        return [Finding(f"{service.name} has lost its code server", state.url, why, "make dev (it starts the webserver anew)")]
    if service.health is None:
        return []
    try:
        status = httpx.get(state.url + service.health, timeout=10, trust_env=False).status_code
        why = f"its {service.health} answers {status}"
    except httpx.HTTPError as error:
        status, why = 0, f"{type(error).__name__}: {error}"
    log = settings.home / "logs" / f"{service.name}.log"
    return [] if status == 200 else [Finding(f"{service.name} runs, but does not answer", state.url, why, f"read {log}; make stop dev")]


def _is_current(settings: Settings, name: str, state: services.ServiceState) -> list[Finding]:
    if not name.startswith("dagster"):
        return []
    stale = []
    if state.settings and state.settings != services.settings_digest(settings):
        stale.append("settings")
    if state.code and state.code != services.code_digest():
        stale.append("code")
    if not stale:
        return []
    why = f"the {' and the '.join(stale)} changed after it was started; it shows and plans by the old"
    return [Finding(f"{name} works with old {' and '.join(stale)}", f"process {state.pid}", why, "make stop dev", "warning")]


def _left_behind(file: Path, name: str) -> list[Finding]:
    if not file.exists():
        return []

    def mend() -> str:
        file.unlink(missing_ok=True)
        return f"{file} removed"

    return [Finding(f"{name} has died", str(file), "it was started, never stopped, and its process is gone", "make dev", "error", mend)]
