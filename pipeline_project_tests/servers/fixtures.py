"""The servers as fixtures: started once a session, when the first test asks for them. `conftest.py` makes them known everywhere."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from pipeline_project_tests.servers.faulty_proxy import FaultyProxy
from pipeline_project_tests.servers.object_server import ObjectServer, moto, swift


@pytest.fixture(scope="session")
def swift_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    with swift(tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture(scope="session")
def moto_server() -> Iterator[ObjectServer]:
    with moto() as server:
        yield server


@pytest.fixture(params=["swift", "moto"])
def object_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ObjectServer:
    """Each of the servers; this process has its credentials."""
    server: ObjectServer = request.getfixturevalue(f"{request.param}_server")
    log_in(server, monkeypatch)
    return server


@pytest.fixture
def swift_login(swift_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> ObjectServer:
    """Swift; this process has its credentials."""
    log_in(swift_server, monkeypatch)
    return swift_server


@pytest.fixture
def moto_login(moto_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> ObjectServer:
    """moto; this process has its credentials."""
    log_in(moto_server, monkeypatch)
    return moto_server


@pytest.fixture
def faulty() -> Iterator[Callable[[ObjectServer], FaultyProxy]]:
    """Puts a proxy before a server, which goes away with the test."""
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(FaultyProxy(server.endpoint))


def log_in(server: ObjectServer, monkeypatch: pytest.MonkeyPatch, **wrong: str) -> None:
    """Give this process the credentials of a server; arguments replace single values."""
    for name, value in server.environment(**wrong).items():
        monkeypatch.setenv(name, value)
