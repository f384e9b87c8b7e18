"""`pipeline doctor`: each thing is broken on purpose, is found, is mended, and is found no more."""

import contextlib
import http.server
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import dagster as dg
import psutil
import pytest
import yaml
from dagster._core.test_utils import create_run_for_test

from pipeline_project.contracts import DesiredState, ReplicaReport, Route
from pipeline_project.local import services
from pipeline_project.local.doctor import examine, healthy, mend
from pipeline_project.local.probes import data, instance, machine
from pipeline_project.local.probes.finding import Finding
from pipeline_project.local.services import Service, ServiceState
from pipeline_project.serving.documents import write_report
from pipeline_project.serving.supervisor import ServerState
from pipeline_project.settings import Settings, load_settings
from pipeline_project.storage import open_artifacts, open_store
from pipeline_project.trust.signing import load_or_create_key
from pipeline_project_tests.small_project import free_ports


@pytest.fixture
def config(tmp_path: Path) -> Path:
    dagster, mlflow, audit, production, staging = free_ports(5)
    photos = tmp_path / "photos" / "2026-11-01"
    photos.mkdir(parents=True)
    (photos / "labels.csv").write_text("image,label\n")
    values = {
        "extends": "sample",
        "name": "ill",
        "data": {"source": "photos"},
        "local": {"dagster_port": dagster, "mlflow_port": mlflow, "audit_port": audit},
        "serving": {"production": {"port": production}, "staging": {"port": staging}},
    }
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


@pytest.fixture
def settings(config: Path, tmp_path: Path) -> Iterator[Settings]:
    found = load_settings(config, environment={"PIPELINE_HOME": str(tmp_path / "home")})
    yield found
    services.stop_all(found)


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def whats(findings: list[Finding]) -> list[str]:
    return [finding.what for finding in findings]


def remembered(settings: Settings, name: str, process: "subprocess.Popen[bytes]", *, made_with: tuple[str, str] = ("", "")) -> ServiceState:
    """Write that a service runs as a process."""
    begun = psutil.Process(process.pid).create_time()
    state = ServiceState(pid=process.pid, started=begun, url="", settings=made_with[0], code=made_with[1])
    file = services.state_file(settings, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(state.model_dump_json())
    return state


def test_new_installation_is_well(settings: Settings, config: Path) -> None:
    assert [finding for finding in examine(settings, config) if finding.severity == "error"] == []


def test_every_finding_says_what_where_why_and_what_next(settings: Settings, config: Path) -> None:
    Path(settings.data.source, "2026-11-01", "labels.csv").unlink()
    found = examine(settings, config)
    assert not healthy(found)
    (finding,) = [one for one in found if one.severity == "error"]
    for part in (finding.what, finding.where, finding.why, finding.next_step):
        assert part
        assert part in str(finding)


def test_python(settings: Settings) -> None:
    assert machine.python_version((3, 11)) == machine.python_version((3, 12)) == []
    for version in ((3, 10), (3, 13), (4, 0)):
        assert whats(machine.python_version(version)) == [f"Python {'.'.join(map(str, version))} is not supported"]


def test_packages_are_those_of_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    installed = "psutil==" + psutil.__version__
    lock.write_text(f'{installed} \\\n    --hash=sha256:00\nnowhere==1.0 ; python_version < "3"\n    # via x\n')
    assert machine.packages(lock) == []
    lock.write_text("psutil==0.0.1\nno-such-package==2.0\n")
    (finding,) = machine.packages(lock)
    assert f"psutil is {psutil.__version__}, not 0.0.1" in finding.why
    assert "no-such-package is missing" in finding.why


def test_disk(settings: Settings) -> None:
    assert machine.disk(settings, need_gb=0, wish_gb=0) == []
    assert [finding.severity for finding in machine.disk(settings, need_gb=0, wish_gb=1e9)] == ["warning"]
    assert [finding.severity for finding in machine.disk(settings, need_gb=1e9, wish_gb=1e9)] == ["error"]


def test_home_that_cannot_be_written(settings: Settings) -> None:
    settings.home.parent.joinpath("home").write_text("a file is in its place")
    assert whats(machine.home(settings)) == ["the runtime home cannot be written"]
    settings.home.unlink()
    assert machine.home(settings) == []
    assert list(settings.home.iterdir()) == [], "the probe leaves nothing"


def test_taken_port(settings: Settings, config: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", settings.local.mlflow_port))
        other.listen()
        (finding,) = machine.ports(settings, config)
        assert finding.what == "mlflow cannot start"
        assert str(os.getpid()) in finding.why, "the holder is named"
        assert f"local.mlflow_port in {config}" in finding.next_step
    assert machine.ports(settings, config) == []


def test_port_of_our_own_running_service_is_fine(settings: Settings, config: Path) -> None:
    port = settings.local.mlflow_port
    server = Service("mlflow", [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"], port, "/")
    services.start(settings, server, config)
    services.wait_ready(settings, server)
    assert machine.ports(settings, config) == []


def test_service_that_has_died(settings: Settings, sleeper: "subprocess.Popen[bytes]") -> None:
    remembered(settings, services.DAEMON, sleeper)
    assert machine.service_states(settings) == []
    sleeper.kill()
    sleeper.wait()
    found = machine.service_states(settings)
    assert whats(found) == ["dagster-daemon has died"]
    (line,) = mend(found)
    assert "dagster-daemon.json removed" in line
    assert machine.service_states(settings) == []


def test_endpoint_that_has_died(settings: Settings, sleeper: "subprocess.Popen[bytes]") -> None:
    file = settings.home / "run" / "serve-production.json"
    file.parent.mkdir(parents=True)
    begun = datetime.fromtimestamp(psutil.Process(sleeper.pid).create_time(), UTC)
    file.write_text(ServerState(pid=sleeper.pid, port=1, url="http://127.0.0.1:1", started=begun).model_dump_json())
    assert machine.service_states(settings) == []
    sleeper.kill()
    sleeper.wait()
    found = machine.service_states(settings)
    assert whats(found) == ["the production endpoint has died"]
    mend(found)
    assert not file.exists()


def test_service_that_runs_but_does_not_answer(settings: Settings, sleeper: "subprocess.Popen[bytes]") -> None:
    state = remembered(settings, "mlflow", sleeper)
    file = services.state_file(settings, "mlflow")
    file.write_text(state.model_copy(update={"url": f"http://127.0.0.1:{settings.local.mlflow_port}"}).model_dump_json())
    assert whats(machine.service_states(settings)) == ["mlflow runs, but does not answer"]


def test_webserver_without_daemon_or_code_server(
    settings: Settings, sleeper: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered(settings, services.WEBSERVER, sleeper)
    monkeypatch.setattr(services, "_CODE_SERVER_S", 0.0)
    assert {"dagster-webserver has lost its code server", "the Dagster daemon does not run"} == set(whats(machine.service_states(settings)))


def test_service_with_old_settings_or_code(settings: Settings, config: Path, sleeper: "subprocess.Popen[bytes]") -> None:
    code, digest = services.code_digest(), services.settings_digest(settings)
    remembered(settings, services.DAEMON, sleeper, made_with=(digest, code))
    assert machine.service_states(settings) == []
    config.write_text(config.read_text() + "training: {epochs: 3}\n")
    changed = load_settings(config, environment={"PIPELINE_HOME": str(settings.home)})
    assert whats(machine.service_states(changed)) == ["dagster-daemon works with old settings"]
    remembered(settings, services.DAEMON, sleeper, made_with=(digest, "0" * 64))
    assert whats(machine.service_states(settings)) == ["dagster-daemon works with old code"]


def test_files_left_over(settings: Settings) -> None:
    file = settings.home / "run" / ".start-abc.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    assert machine.leftovers(settings) == [], "a server may be starting right now"
    os.utime(file, (1, 1))
    found = machine.leftovers(settings)
    assert whats(found) == ["1 files are left over"]
    mend(found)
    assert not file.exists()


@pytest.mark.slow
def test_what_a_crash_left_in_the_dagster_instance(settings: Settings) -> None:
    from pipeline_project.defs.instance import open_instance, repair_home

    assert instance.dagster_instance(settings) == [], "there is none yet"
    services.prepare_home(settings)
    repair_home(settings.home)
    with open_instance(settings.home) as opened:
        storage = opened.event_log_storage
        dead: dg.DagsterRun = create_run_for_test(opened, job_name="deploy", status=dg.DagsterRunStatus.STARTING)
        ended: dg.DagsterRun = create_run_for_test(opened, job_name="deploy", status=dg.DagsterRunStatus.FAILURE)
        storage.set_concurrency_slots("deployment", 1)
        storage.claim_concurrency_slot("deployment", ended.run_id, "step")
    found = instance.dagster_instance(settings)
    assert set(whats(found)) == {
        f"run {dead.run_id[:8]} of deploy is starting, but dead",
        f"pool deployment is held by run {ended.run_id[:8]}",
    }
    assert any("marked as ended" in line for line in mend(found))
    assert instance.dagster_instance(settings) == []


@pytest.mark.slow
def test_silent_daemon(settings: Settings, sleeper: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline_project.defs.instance import repair_home

    services.prepare_home(settings)
    repair_home(settings.home)
    remembered(settings, services.DAEMON, sleeper)
    assert instance.dagster_instance(settings) == [], "it may still be starting"
    monkeypatch.setattr(instance, "_FIRST_BEATS_S", 0.0)
    found = instance.dagster_instance(settings)
    assert "the daemon's queued_run_coordinator is silent" in whats(found)
    assert {finding.why for finding in found} == {"no heart-beat ever"}


def test_store_that_cannot_be_written(settings: Settings) -> None:
    assert data.store(settings) == []
    assert open_store(settings).list("artifacts/") == [], "the probe leaves nothing"
    root = Path(settings.store_root)
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir()
    root.rmdir()
    root.write_text("a file is in its place")
    assert whats(data.store(settings)) == ["the artefact store cannot be used"]
    root.unlink()
    assert data.store(settings) == []


def test_half_written_files_in_the_store(settings: Settings) -> None:
    draft = Path(settings.store_root) / "artifacts" / ".draft-0123456789abcdef"
    draft.parent.mkdir(parents=True)
    draft.write_bytes(b"half")
    assert data.store(settings) == [], "somebody may be writing it now"
    long_ago = (datetime.now(UTC) - timedelta(hours=2)).timestamp()
    os.utime(draft, (long_ago, long_ago))
    assert [(finding.what, finding.severity) for finding in data.store(settings)] == [("1 half-written files lie in the store", "warning")]


@pytest.fixture
def clock() -> Iterator[Callable[[float], str]]:
    """Start a server whose clock is some seconds off; gives its URL."""
    servers = []

    def start(off_s: float) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response_only(200)
                self.send_header("Date", format_datetime(datetime.now(UTC) + timedelta(seconds=off_s), usegmt=True))
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_clock_skew(clock: Callable[[float], str]) -> None:
    assert data.clock_skew(clock(0)) == []
    (ahead,) = data.clock_skew(clock(-120))
    assert (ahead.severity, "ahead" in ahead.what) == ("warning", True)
    (behind,) = data.clock_skew(clock(3600))
    assert (behind.severity, "behind" in behind.what) == ("error", True)
    assert data.clock_skew("http://127.0.0.1:1") == []


def test_source_that_is_not_there_or_has_no_labels(settings: Settings) -> None:
    assert data.source(settings) == []
    labels = Path(settings.data.source, "2026-11-01", "labels.csv")
    labels.unlink()
    assert whats(data.source(settings)) == ["the source has no labels"]
    labels.parent.rmdir()
    labels.parent.parent.rmdir()
    assert whats(data.source(settings)) == ["the source is not there"]


def test_mlflow_out_of_reach_or_damaged(settings: Settings) -> None:
    database = settings.home / "mlflow.db"
    assert data.mlflow(settings) == [], "no database yet: it is made on first use"
    assert not database.exists(), "and not by looking"
    settings.home.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(database)) as made:
        made.execute("CREATE TABLE experiments (id)")
    assert data.mlflow(settings) == []
    database.write_bytes(b"no database" * 1000)
    assert whats(data.mlflow(settings)) == ["MLflow cannot be used"]
    server = settings.model_copy(update={"tracking": settings.tracking.model_copy(update={"uri": f"http://127.0.0.1:{free_ports(1)[0]}"})})
    (finding,) = data.mlflow(server)
    assert "refused" in finding.why


def test_keys(settings: Settings) -> None:
    assert data.keys(settings) == []
    key = settings.home / "keys" / "ada.pem"
    load_or_create_key(key, settings.trusted_approvers)
    assert data.keys(settings) == []
    key.chmod(0o644)
    found = data.keys(settings)
    assert whats(found) == ["a private key is readable by others"]
    mend(found)
    assert key.stat().st_mode & 0o777 == 0o600
    assert data.keys(settings) == []


def test_trust(settings: Settings) -> None:
    open_artifacts(settings).publish("model_package", {"x": b"x"})
    assert {(finding.what, finding.severity) for finding in data.keys(settings)} == {
        ("nobody is trusted to sign packages", "error"),
        ("nobody is trusted to approve", "warning"),
    }
    load_or_create_key(settings.signing_key, settings.trusted_signers)
    load_or_create_key(settings.home / "keys" / "demo-approver.pem", settings.trusted_approvers)
    (finding,) = data.keys(settings)
    assert (finding.what, finding.severity) == ("the demo's throw-away approver is trusted", "warning")
    assert finding.mend is None, "whom to trust is for people to say"
    Path(finding.where).unlink()
    load_or_create_key(settings.home / "keys" / "ada.pem", settings.trusted_approvers)
    assert data.keys(settings) == []
    (settings.trusted_approvers / "eve.0.pem").write_text("no key")
    assert whats(data.keys(settings)) == ["the trusted approvers cannot be read"]


def test_endpoint_behind_its_newest_document(settings: Settings, sleeper: "subprocess.Popen[bytes]") -> None:
    store = open_store(settings)
    begun = datetime.fromtimestamp(psutil.Process(sleeper.pid).create_time(), UTC)
    file = settings.home / "run" / "serve-production.json"
    file.parent.mkdir(parents=True)
    file.write_text(ServerState(pid=sleeper.pid, port=1, url="http://127.0.0.1:1", started=begun).model_dump_json())
    assert data.endpoints(settings) == [], "there is no document yet"
    package = "a" * 64
    write_document(settings, package)
    assert whats(data.endpoints(settings)) == ["production runs, but reports nothing"]

    def report(document: int, refused: dict[str, str]) -> None:
        now = datetime.now(UTC)
        facts = {"environment": "production", "replica": "r", "process": 1, "newest": 1, "packages": [package], "ready": True}
        write_report(store, ReplicaReport.model_validate({**facts, "document": document, "refused": refused, "reported": now}))

    report(0, {package: "no valid approval"})
    (finding,) = data.endpoints(settings)
    assert finding.what == "production does not serve its newest document, 1"
    assert finding.why == "no valid approval"
    report(1, {})
    assert data.endpoints(settings) == []


def write_document(settings: Settings, package: str) -> DesiredState:
    from pipeline_project.serving.documents import write_next

    route = Route(name="champion", package=package, weight=1)
    return write_next(open_store(settings), "production", [route], reason="a test", author="test", after=0)


def test_probe_that_fails_is_a_finding_and_stops_no_other(settings: Settings, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "disk", lambda _: 1 / 0)
    Path(settings.data.source, "2026-11-01", "labels.csv").unlink()
    found = whats(examine(settings, config))
    assert "disk: could not be looked at" in found
    assert "the source has no labels" in found


def test_what_cannot_be_mended_is_said(settings: Settings) -> None:
    def fail() -> str:
        raise OSError("no")

    finding = Finding("x", "y", "z", "w", mend=fail)
    assert mend([finding, finding]) == ["could not mend: x: no"]
