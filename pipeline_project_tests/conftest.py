"""What all tests share: isolation from the developer's own settings, and the snapshot option."""

import os

import pytest

from pipeline_project_tests.servers.fixtures import (  # noqa: F401  fixtures for all
    faulty,
    moto_login,
    moto_server,
    object_server,
    swift_login,
    swift_server,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-snapshots", action="store_true", help="rewrite golden snapshots instead of comparing")


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the developer's runtime home."""
    for name in [n for n in os.environ if n.startswith("PIPELINE_")]:
        monkeypatch.delenv(name)
