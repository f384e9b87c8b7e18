"""Documents are created once; waiting for replicas ends with success or with a reason."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from pipeline_project.contracts import ReplicaReport, Route
from pipeline_project.serving.documents import (
    ConcurrentDeploymentError,
    DeploymentError,
    DocumentError,
    history,
    newest,
    replica_reports,
    wait_until_served,
    write_next,
    write_report,
)
from pipeline_project.settings import Settings
from pipeline_project.storage import AlreadyExistsError, ByteStore, FolderStore

PACKAGE = "a" * 64
ROUTES = [Route(name="champion", package=PACKAGE, weight=1)]


@pytest.fixture
def store(tmp_path) -> ByteStore:  # type: ignore[no-untyped-def]
    return FolderStore(tmp_path)


@pytest.fixture
def settings(project) -> Settings:  # type: ignore[no-untyped-def]
    return project.settings  # type: ignore[no-any-return]


@pytest.fixture
def report(store: ByteStore) -> Callable[..., None]:
    def write(
        replica: str = "r0", *, document: int, newest: int | None = None, refused: dict[str, str] | None = None, age_s: float = 0
    ) -> None:
        write_report(
            store,
            ReplicaReport(
                environment="staging",
                replica=replica,
                process=1,
                document=document,
                newest=document if newest is None else newest,
                packages=[PACKAGE],
                refused=refused or {},
                ready=document > 0,
                reported=datetime.now(UTC) - timedelta(seconds=age_s),
            ),
        )

    return write


def test_documents_count_up_and_stay(store: ByteStore) -> None:
    assert newest(store, "staging") is None
    first = write_next(store, "staging", ROUTES, "first", "Ada")
    second = write_next(store, "staging", ROUTES, "second", "Ada", after=1)
    assert [first.number, second.number] == [1, 2]
    assert newest(store, "staging") == second
    assert history(store, "staging") == [first, second]
    assert newest(store, "production") is None


def test_a_second_writer_is_refused_not_retried(store: ByteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write_next(store, "staging", ROUTES, "first", "Ada")
    with pytest.raises(ConcurrentDeploymentError, match="at document 1, not 0"):
        write_next(store, "staging", ROUTES, "late", "Bob", after=0)

    def taken(key: str, data: bytes) -> None:
        raise AlreadyExistsError(key)

    monkeypatch.setattr(store, "create", taken)
    with pytest.raises(ConcurrentDeploymentError, match="document 2"):
        write_next(store, "staging", ROUTES, "race", "Bob")


def test_a_document_copied_to_another_environment_is_refused(store: ByteStore) -> None:
    write_next(store, "staging", ROUTES, "first", "Ada")
    folder = "artifacts/deployments"
    store.write(f"{folder}/production/documents/00000001.json", store.read(f"{folder}/staging/documents/00000001.json"))
    with pytest.raises(DocumentError, match="document 1 of staging"):
        newest(store, "production")
    store.write(f"{folder}/staging/documents/00000002.json", b"{")
    with pytest.raises(DocumentError, match="00000002"):
        newest(store, "staging")


def test_waiting_succeeds_when_every_living_replica_serves_it(store: ByteStore, settings: Settings, report: Callable[..., None]) -> None:
    write_next(store, "staging", ROUTES, "first", "Ada")
    report("r0", document=1)
    report("r1", document=1)
    report("dead", document=0, age_s=60)
    assert {r.replica for r in wait_until_served(store, "staging", 1, 1, settings)} == {"r0", "r1"}
    report("r1", document=0)
    with pytest.raises(DeploymentError, match="r1 serves document 0"):
        wait_until_served(store, "staging", 1, 0.3, settings)


def test_waiting_fails_at_once_when_refused_and_names_the_reason(store: ByteStore, settings: Settings, report: Callable[..., None]) -> None:
    write_next(store, "staging", ROUTES, "first", "Ada")
    report(document=0, newest=0, refused={PACKAGE: "an old refusal"})
    with pytest.raises(DeploymentError, match="not served everywhere"):
        wait_until_served(store, "staging", 1, 0.3, settings)
    report(document=0, newest=1, refused={PACKAGE: "it is not signed"})
    with pytest.raises(DeploymentError, match="it is not signed"):
        wait_until_served(store, "staging", 1, 60, settings)


def test_waiting_without_a_server_says_how_to_start_it(store: ByteStore, settings: Settings, report: Callable[..., None]) -> None:
    with pytest.raises(DeploymentError, match="no document 1"):
        wait_until_served(store, "staging", 1, 0.1, settings)
    write_next(store, "staging", ROUTES, "first", "Ada")
    with pytest.raises(DeploymentError, match="pipeline serve staging"):
        wait_until_served(store, "staging", 1, 0.3, settings)
    write_next(store, "staging", ROUTES, "because", "guard")
    report(document=2)
    with pytest.raises(DeploymentError, match="replaced by document 2: because"):
        wait_until_served(store, "staging", 1, 5, settings)


def test_damaged_reports_are_passed_over(store: ByteStore, report: Callable[..., None]) -> None:
    report(document=1)
    store.write("artifacts/deployments/staging/replicas/odd.json", b"nonsense")
    assert [r.replica for r in replica_reports(store, "staging")] == ["r0"]
