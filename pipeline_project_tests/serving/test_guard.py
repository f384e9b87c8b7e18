"""The guard takes out what fails or is slow, and nothing else."""

from pathlib import Path

import pytest

from pipeline_project.contracts import Route
from pipeline_project.serving.documents import newest, write_next
from pipeline_project.serving.guard import RouteHealth, RouteStatistics, guard_once, read_statistics, verdict, without
from pipeline_project.settings.tree import GuardSettings
from pipeline_project.storage import FolderStore

LIMITS = GuardSettings(min_requests=20, max_error_rate=0.05, max_p99_ms=1000)
CHAMPION = Route(name="champion", package="a" * 64, weight=0.7)
CANARY = Route(name="canary", package="b" * 64, weight=0.1)
CHALLENGER = Route(name="challenger", package="c" * 64, weight=0.2)


def observe(folder: Path, worker: str, document: int, route: str, *, requests: int, failures: int = 0, latency_ms: float = 10) -> None:
    statistics = RouteStatistics(folder / f"{worker}.json")
    statistics.begin(document)
    for n in range(requests):
        statistics.add(document, route, latency_ms, failed=n < failures)
    statistics.write()


@pytest.mark.parametrize(
    ("health", "goes"),
    [
        (RouteHealth(19, 1.0, 9999), False),
        (RouteHealth(20, 0.05, 1000), False),
        (RouteHealth(20, 0.06, 10), True),
        (RouteHealth(20, 0.0, 1001), True),
    ],
)
def test_the_limits_are_exact(health: RouteHealth, goes: bool) -> None:
    assert (verdict(health, LIMITS) is not None) == goes


def test_the_champion_takes_the_freed_weight() -> None:
    left = without([CANARY, CHAMPION, CHALLENGER], "canary")
    assert {route.name: route.weight for route in left} == pytest.approx({"champion": 0.8, "challenger": 0.2})
    with pytest.raises(ValueError, match="only route"):
        without([CANARY], "canary")


def test_statistics_of_all_workers_add_up_and_old_documents_do_not_count(tmp_path: Path) -> None:
    observe(tmp_path, "w0", 3, "canary", requests=10, failures=1)
    observe(tmp_path, "w1", 3, "canary", requests=30)
    observe(tmp_path, "dead", 2, "canary", requests=50, failures=50)
    (tmp_path / "torn.json").write_text("{")
    document, health = read_statistics(tmp_path)
    assert document == 3
    assert health["canary"] == RouteHealth(40, 1 / 40, 10)


def test_a_failing_canary_is_taken_out_once(tmp_path: Path) -> None:
    store, folder = FolderStore(tmp_path / "store"), tmp_path / "statistics"
    folder.mkdir()
    write_next(store, "staging", [CHAMPION, CANARY, CHALLENGER], "try", "Ada")
    observe(folder, "w0", 1, "champion", requests=100, failures=100)
    assert guard_once(store, "staging", folder, LIMITS) is None  # nothing takes the champion's place
    observe(folder, "w1", 1, "canary", requests=20, failures=20)
    written = guard_once(store, "staging", folder, LIMITS)
    assert written is not None
    assert (written.number, written.author) == (2, "guard")
    assert "canary taken out: 100.0% of 20 requests failed" in written.reason
    assert {route.name for route in written.routes} == {"champion", "challenger"}
    assert guard_once(store, "staging", folder, LIMITS) is None  # the workers are about to switch
    assert newest(store, "staging") == written


def test_somebody_elses_newer_document_stands(tmp_path: Path) -> None:
    store, folder = FolderStore(tmp_path / "store"), tmp_path / "statistics"
    folder.mkdir()
    write_next(store, "staging", [CHAMPION, CANARY, CHALLENGER], "try", "Ada")
    observe(folder, "w0", 1, "canary", requests=50, latency_ms=5000)
    write_next(store, "staging", [CHAMPION.model_copy(update={"weight": 1})], "rolled back by hand", "Bob")
    assert guard_once(store, "staging", folder, LIMITS) is None


def test_the_last_route_stays(tmp_path: Path) -> None:
    store, folder = FolderStore(tmp_path / "store"), tmp_path / "statistics"
    folder.mkdir()
    write_next(store, "staging", [CANARY.model_copy(update={"weight": 1})], "odd", "Ada")
    observe(folder, "w0", 1, "canary", requests=50, failures=50)
    assert guard_once(store, "staging", folder, LIMITS) is None


def test_only_the_latest_requests_count(tmp_path: Path) -> None:
    observe(tmp_path, "w0", 1, "canary", requests=2000, failures=1500)
    assert read_statistics(tmp_path)[1]["canary"].error_rate == 0
