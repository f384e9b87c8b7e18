"""Ports that are taken: the message names the port, who holds it, the setting and the settings file."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline_project.local import services
from pipeline_project.local.services import ServiceError
from pipeline_project.serving.ports import port_holder, port_problem
from pipeline_project.serving.supervisor import ServerStartError, run_supervisor
from pipeline_project.settings import Settings, load_settings


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which this very process listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


@pytest.fixture
def settings(tmp_path: Path, taken: int) -> Settings:
    ports = {
        name: str(taken) for name in ("LOCAL__DAGSTER_PORT", "LOCAL__MLFLOW_PORT", "SERVING__PRODUCTION__PORT", "SERVING__STAGING__PORT")
    }
    return load_settings("sample", environment={"PIPELINE_HOME": str(tmp_path / "home")} | {f"PIPELINE__{k}": v for k, v in ports.items()})


def me() -> str:
    return rf"{re.escape(psutil.Process().name())} \(process {os.getpid()}\)"


@pytest.mark.parametrize(("service", "setting"), [("dagster-webserver", "local.dagster_port"), ("mlflow", "local.mlflow_port")])
def test_port_of_a_service_is_taken(settings: Settings, taken: int, tmp_path: Path, service: str, setting: str) -> None:
    config = tmp_path / "mine.yaml"
    wanted = next(s for s in [*services.dagster_services(settings), services.mlflow_service(settings)] if s.name == service)
    with pytest.raises(ServiceError) as caught:
        services.start(settings, wanted, config)
    said = f"Port {taken} is taken by {me()}, so {service} cannot start. Stop that program, or set {setting} to a free port in {config}."
    assert re.fullmatch(said, str(caught.value))
    assert not (settings.home / "run" / f"{service}.json").exists()


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_port_of_an_endpoint_is_taken(settings: Settings, taken: int, tmp_path: Path, environment: str) -> None:
    config = tmp_path / "mine.yaml"
    with pytest.raises(ServiceError) as caught:
        services.start_endpoint(settings, environment, config)  # type: ignore[arg-type]
    said = f"Port {taken} is taken by {me()}, so the {environment} endpoint cannot start. "
    said += f"Stop that program, or set serving.{environment}.port to a free port in {config}."
    assert re.fullmatch(said, str(caught.value))


def test_port_of_a_server_in_the_foreground_is_taken(settings: Settings, taken: int) -> None:
    said = rf"production: cannot listen on 127\.0\.0\.1:{taken}: the port is taken by {me()}\. "
    said += r"Stop what uses the port, or set serving\.production\.port"
    with pytest.raises(ServerStartError, match=said):
        run_supervisor(settings, "production")


def test_port_of_another_program_names_it(tmp_path: Path) -> None:
    program = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); "
    program += "print(s.getsockname()[1], flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        assert port_holder(port) == f"{psutil.Process(other.pid).name()} (process {other.pid})"
    finally:
        other.kill()
        other.wait()
        assert other.stdout is not None
        other.stdout.close()
    assert port_holder(port) is None
    assert port_problem("127.0.0.1", port) is None


def test_address_that_is_not_this_machines(taken: int) -> None:
    assert port_problem("192.0.2.1", taken) == "cannot be opened: 192.0.2.1 is no address of this machine"
