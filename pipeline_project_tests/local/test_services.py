"""Services of one machine: started once, found by their process id, stopped by it and by nothing else."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from pipeline_project.local.services import (
    AUDIT,
    Service,
    ServiceError,
    ServiceState,
    audit_service,
    prepare_home,
    running,
    start,
    stop_all,
    wait_ready,
)
from pipeline_project.settings import Settings, load_settings
from pipeline_project_tests.small_project import free_ports

pytestmark = pytest.mark.slow
NAME = "mlflow"  # a name that stop_all knows; what runs under it here is Python's own file server


def file_server(port: int) -> Service:
    return Service(NAME, [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"], port, "/")


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    found = load_settings("sample", environment={"PIPELINE_HOME": str(tmp_path / "home")})
    yield found
    stop_all(found)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "settings.yaml"


def state_file(settings: Settings) -> Path:
    return settings.home / "run" / f"{NAME}.json"


def test_service_is_started_once_found_and_stopped(settings: Settings, config: Path) -> None:
    service = file_server(free_ports(1)[0])
    assert running(settings, NAME) is None
    assert start(settings, service, config)
    wait_ready(settings, service)
    state = running(settings, NAME)
    assert state is not None
    assert state.url == f"http://127.0.0.1:{service.port}"
    process = psutil.Process(state.pid)
    assert process.environ()["PIPELINE_HOME"] == str(settings.home)
    assert process.environ()["PIPELINE_CONFIG"] == str(config)
    assert os.getsid(state.pid) == state.pid, "closing the terminal does not end it"
    assert not start(settings, service, config), "it runs already"
    assert running(settings, NAME) == state
    assert stop_all(settings) == [NAME]
    assert not psutil.pid_exists(state.pid)
    assert running(settings, NAME) is None
    assert stop_all(settings) == []
    assert "GET / " in (settings.home / "logs" / f"{NAME}.log").read_text()


def test_stopped_service_can_be_started_again_on_its_port(settings: Settings, config: Path) -> None:
    service = file_server(free_ports(1)[0])
    for _ in range(2):
        assert start(settings, service, config)
        wait_ready(settings, service)
        assert stop_all(settings) == [NAME]


def test_children_and_deaf_services_are_stopped_too(settings: Settings, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline_project.local.services._STOP_S", 0.5)
    ready = settings.home / "ready"
    deaf = (
        "import pathlib, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(ready)!r}).write_text(str(child.pid))\n"
        "time.sleep(60)"
    )
    start(settings, Service(NAME, [sys.executable, "-c", deaf], None, None), config)
    state = running(settings, NAME)
    assert state is not None
    for _ in range(200):
        if ready.exists() and ready.read_text():
            break
        time.sleep(0.05)
    child = int(ready.read_text())
    assert stop_all(settings) == [NAME]
    assert not psutil.pid_exists(state.pid)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_taken_port_is_a_clear_error(settings: Settings, config: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            ServiceError, match=rf"Port {port} is taken by .*, so mlflow cannot start.*local\.mlflow_port to a free port in .*settings"
        ):
            start(settings, file_server(port), config)
    assert not state_file(settings).exists()


def test_service_that_ends_at_once_shows_its_last_words(settings: Settings, config: Path) -> None:
    broken = Service(NAME, [sys.executable, "-c", "raise SystemExit('no database here')"], free_ports(1)[0], "/")
    start(settings, broken, config)
    with pytest.raises(ServiceError, match=r"(?s)mlflow ended at once.*no database here"):
        wait_ready(settings, broken)


def test_recycled_process_id_is_not_ours(settings: Settings) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        state_file(settings).parent.mkdir(parents=True)
        born = psutil.Process(stranger.pid).create_time()
        state_file(settings).write_text(ServiceState(pid=stranger.pid, started=born - 3600, url="").model_dump_json())
        assert running(settings, NAME) is None
        assert stop_all(settings) == []
        assert stranger.poll() is None, "it was left alone"
        state_file(settings).write_text(ServiceState(pid=stranger.pid, started=born, url="").model_dump_json())
        assert running(settings, NAME) is not None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"pid": "x"}'])
def test_damaged_state_is_no_service(settings: Settings, content: str) -> None:
    state_file(settings).parent.mkdir(parents=True)
    state_file(settings).write_text(content)
    assert running(settings, NAME) is None
    assert stop_all(settings) == []


def test_killed_service_is_not_running(settings: Settings, config: Path) -> None:
    service = file_server(free_ports(1)[0])
    start(settings, service, config)
    wait_ready(settings, service)
    state = running(settings, NAME)
    assert state is not None
    os.kill(state.pid, signal.SIGKILL)
    for _ in range(100):
        if running(settings, NAME) is None:
            break
        time.sleep(0.02)
    assert running(settings, NAME) is None
    assert start(settings, service, config), "it can be started anew"


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[tuple[Settings, Service, Path]]:
    """The auditors' webserver on a project of its own, with one run in its history."""
    import dagster as dg

    file, port = tmp_path / "settings.yaml", free_ports(1)[0]
    file.write_text(f"extends: sample\nlocal: {{audit_port: {port}}}\n")
    settings = load_settings(file, environment={"PIPELINE_HOME": str(tmp_path / "home")})
    prepare_home(settings)

    @dg.op
    def look() -> None: ...

    @dg.job
    def looking() -> None:
        look()

    with dg.DagsterInstance.from_config(str(settings.home / "dagster")) as instance:
        looking.execute_in_process(instance=instance)
    service = audit_service(settings)
    start(settings, service, file)
    wait_ready(settings, service)
    yield settings, service, file
    stop_all(settings)


def ask(service: Service, query: str, **variables: object) -> dict[str, Any]:
    answer = httpx.post(f"{service.url}/graphql", json={"query": query, "variables": variables}, timeout=120, trust_env=False)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_auditors_see_everything_and_change_nothing(audit: tuple[Settings, Service, Path]) -> None:
    settings, service, _ = audit
    loaded = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name assetNodes { assetKey { path } } jobs { name } } } } }"
    for _ in range(600):  # the code location loads after the server answers
        nodes = ask(service, loaded)["data"]["repositoriesOrError"]["nodes"]
        if nodes:
            break
        time.sleep(0.1)
    assets = {node["assetKey"]["path"][0] for node in nodes[0]["assetNodes"]}
    assert {"raw_images", "release_gate", "audit_dossier"} <= assets
    runs = ask(service, "{ runsOrError { ... on Runs { results { runId jobName status } } } }")["data"]["runsOrError"]["results"]
    assert [(run["jobName"], run["status"]) for run in runs] == [("looking", "SUCCESS")]

    permissions = ask(service, "{ permissions { permission value } }")["data"]["permissions"]
    assert permissions
    assert not any(entry["value"] for entry in permissions)
    delete = "mutation ($run: String!) { deletePipelineRun(runId: $run) { __typename } }"
    assert ask(service, delete, run=runs[0]["runId"])["data"]["deletePipelineRun"]["__typename"] == "UnauthorizedError"
    launch = "mutation ($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename } }"
    job = {"repositoryLocationName": "pipeline_project", "repositoryName": nodes[0]["name"], "jobName": "approve"}
    started = ask(service, launch, p={"selector": job, "mode": "default", "runConfigData": {}})
    assert started["data"]["launchRun"]["__typename"] == "UnauthorizedError"
    wipe = "mutation ($p: [PartitionsByAssetSelector!]!) { wipeAssets(assetPartitionRanges: $p) { __typename } }"
    wiped = ask(service, wipe, p=[{"assetKey": {"path": ["raw_images"]}}])
    assert "errors" in wiped or wiped["data"]["wipeAssets"]["__typename"] == "UnauthorizedError"
    reported = httpx.post(f"{service.url}/report_asset_materialization/raw_images", json={}, timeout=60, trust_env=False)
    assert reported.status_code == 401
    after = ask(service, "{ runsOrError { ... on Runs { results { runId } } } }")["data"]["runsOrError"]["results"]
    assert [run["runId"] for run in after] == [runs[0]["runId"]], "nothing was started and nothing deleted"
    assert stop_all(settings) == [AUDIT]
    assert running(settings, AUDIT) is None


def test_the_taken_port_of_the_auditors_names_its_own_setting(settings: Settings, config: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        local = settings.local.model_copy(update={"audit_port": other.getsockname()[1]})
        with pytest.raises(ServiceError, match=r"dagster-audit cannot start.*local\.audit_port"):
            start(settings, audit_service(settings.model_copy(update={"local": local})), config)
