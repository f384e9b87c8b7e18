"""The real server: supervisor and worker processes on a socket, under load, under kills."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from pipeline_project.contracts import PredictionRecord, Route
from pipeline_project.evaluation.load import LoadError, run_load
from pipeline_project.serving.client import PredictionClient, PredictionError
from pipeline_project.serving.documents import DeploymentError, history, newest, wait_until_served, write_next
from pipeline_project.serving.prediction_log import find_gaps, read_segments
from pipeline_project.serving.process import ServerHandle, find_server, start_server
from pipeline_project.serving.supervisor import ServerStartError
from pipeline_project_tests.serving.conftest import Project, picture

pytestmark = pytest.mark.slow
Serve = Callable[..., ServerHandle]


def deploy(project: Project, *routes: Route, environment: str = "staging", timeout_s: float = 30) -> int:
    store = project.artifacts.bytes
    number = write_next(store, environment, routes, "test", "Ada").number  # type: ignore[arg-type]
    wait_until_served(store, environment, number, timeout_s, project.settings)  # type: ignore[arg-type]
    return number


def champion(digest: str, weight: float = 1) -> Route:
    return Route(name="champion", package=digest, weight=weight)


def logged(project: Project, environment: str = "staging") -> list[PredictionRecord]:
    return list(read_segments(project.artifacts.bytes, environment, datetime.now(UTC).date()))  # type: ignore[arg-type]


def _spooled(home: Path) -> Iterator[bytes]:
    for path in (home / "spool").rglob("*.jsonl"):
        yield from path.read_bytes().splitlines()


def eventually(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


class Traffic:
    """Clients that note which requests were acknowledged."""

    def __init__(self, url: str, clients: int = 3) -> None:
        self.acknowledged: list[str] = []
        self.errors: list[str] = []
        self._url, self._stop = url, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, client_number: int) -> None:
        image = picture(client_number, side=64)
        with PredictionClient(self._url) as client:
            n = 0
            while not self._stop.is_set():
                n += 1
                try:
                    self.acknowledged.append(client.predict(image, request_id=f"c{client_number}-{n}").request_id)
                except PredictionError as error:
                    self.errors.append(str(error))
                    time.sleep(0.01)


def test_documents_switch_and_workers_die_under_load_and_nothing_acknowledged_is_lost(project: Project, serve: Serve) -> None:
    server = serve()
    with httpx.Client(base_url=server.url) as http:
        assert http.get("/health/live").status_code == 200
        assert http.get("/health/ready").status_code == 503
        assert "server" not in http.get("/health").headers
    first, second = project.publish(1).digest, project.publish(2).digest
    deploy(project, champion(first))

    with Traffic(server.url) as traffic:
        eventually(lambda: len(traffic.acknowledged) > 30)
        for number in range(4):  # there and back, with a canary between
            deploy(project, champion([second, first][number % 2]))
            deploy(project, champion(first, 0.5), Route(name="canary", package=second, weight=0.5))
    assert traffic.errors == []
    switched = len(traffic.acknowledged)

    with Traffic(server.url) as killed:
        eventually(lambda: len(killed.acknowledged) > 30)
        victim = server.workers()[0]
        os.kill(victim, signal.SIGKILL)
        before = len(killed.acknowledged)
        eventually(lambda: victim not in server.workers() and len(server.workers()) == 2 and len(killed.acknowledged) > before + 30)
        wait_until_served(project.artifacts.bytes, "staging", 9, 20, project.settings)
    assert len(killed.errors) <= 3  # at most what each client had under way

    text = httpx.get(f"{server.url}/metrics").text  # any worker answers for all, the dead one included
    counted = sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith('pipeline_requests_total{path="predict"'))
    assert counted >= len(killed.acknowledged) + switched - 3

    with Traffic(server.url) as drained:
        eventually(lambda: len(drained.acknowledged) > 10)
        server.stop()  # what is under way is answered, and what is answered is in the log
    assert all("no_answer" in error or "Is the server running" in error for error in drained.errors)
    records = logged(project)
    ids = [record.request_id for record in records if record.status == 200]
    assert set(traffic.acknowledged) | set(killed.acknowledged) | set(drained.acknowledged) <= set(ids)
    assert len(ids) >= switched + len(killed.acknowledged) + len(drained.acknowledged)  # request ids repeat between the runs
    assert find_gaps(records) == []
    assert len({record.worker for record in records}) >= 2
    assert not list((project.settings.home / "spool").rglob("*.jsonl"))
    assert project.artifacts.bytes.list("artifacts/deployments/staging/replicas/") == []


def test_production_serves_only_what_a_person_approved(project: Project, serve: Serve) -> None:
    approved, unapproved, tampered = (project.publish(seed) for seed in (1, 2, 3))
    for artifact in (approved, tampered):
        project.approve(artifact.digest)
    project.artifacts.bytes.write(f"{tampered.prefix}model.onnx", b"evil")
    server = serve("production")
    deploy(project, champion(approved.digest), environment="production")
    with PredictionClient(server.url) as client:
        for artifact, reason in ((unapproved, "pipeline approve production_deployment"), (tampered, "bytes differ")):
            with pytest.raises(DeploymentError, match=reason):
                deploy(project, champion(artifact.digest), environment="production")
            assert client.predict(picture()).model == approved.digest[:12]

        # A worker that starts afresh meets the same refusal and serves the newest acceptable document.
        victim = server.workers()[0]
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: victim not in server.workers() and client.ready())
        assert client.predict(picture()).model == approved.digest[:12]

        project.approve(unapproved.digest)  # an approval that comes later lets the same document pass
        assert write_next(project.artifacts.bytes, "production", [champion(unapproved.digest)], "again", "Ada").number == 4
        wait_until_served(project.artifacts.bytes, "production", 4, 20, project.settings)
        assert client.predict(picture()).model == unapproved.digest[:12]


def test_the_guard_takes_a_bad_canary_out(project: Project, serve: Serve) -> None:
    good, bad = project.publish(1).digest, project.publish(2, fails_on_bright=True).digest
    server = serve()
    deploy(project, champion(good, 0.5), Route(name="canary", package=bad, weight=0.5))
    with PredictionClient(server.url) as client:
        failures = 0
        for n in range(60):
            try:
                client.predict(picture(brightness=250), request_id=f"bright-{n}")
            except PredictionError as error:
                assert error.code == "model_failed"
                failures += 1
        assert failures >= 10

        def taken_out() -> bool:
            document = newest(project.artifacts.bytes, "staging")
            return document is not None and document.number == 2

        eventually(taken_out)
        wait_until_served(project.artifacts.bytes, "staging", 2, 20, project.settings)
        for n in range(60):
            assert client.predict(picture(brightness=250), request_id=f"bright-{n}").route == "champion"
        client.feedback("bright-1", "toys")
    last = history(project.artifacts.bytes, "staging")[-1]
    assert last.author == "guard"
    assert "canary taken out" in last.reason


def test_one_package_is_served_for_a_load_test_and_the_server_has_room(project: Project, serve: Serve, tmp_path: Path) -> None:
    digest = project.publish(1).digest
    server = serve(package_digest=digest, home=tmp_path / "load-home")
    server.wait_ready()
    assert find_server(project.settings, "staging") is None
    result = run_load(server.url, [picture(n) for n in range(8)], connections=4, duration_s=3)
    assert result.errors == 0
    assert result.requests == len(result.latencies) > 300
    assert result.throughput_rps > 100
    assert result.p50_ms <= result.p95_ms <= result.p99_ms < 500
    assert 20 < server.memory_mb() < 2048
    with PredictionClient(server.url) as client, pytest.raises(PredictionError) as refused:
        client.predict(b"\xff\xd8\xff" + bytes(2_000_000))
    assert refused.value.status == 413
    chunked = (bytes(50_000) for _ in range(11))  # no length is announced: it is cut off while it is read
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert httpx.post(f"{server.url}/predict", content=chunked, headers=headers).status_code == 413
    with pytest.raises(ServerStartError, match="served already"):
        start_server(project.settings, "staging", port=0, home=tmp_path / "load-home", log_file=tmp_path / "second.log")
    with pytest.raises(ServerStartError, match="cannot listen"):
        start_server(project.settings, "staging", port=server.port, log_file=tmp_path / "third.log")
    workers = server.workers()
    os.kill(server.pid, signal.SIGKILL)  # the workers notice and end by themselves
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert not project.artifacts.bytes.list("artifacts/deployments/")
    assert len(logged(project)) + sum(1 for _ in _spooled(tmp_path / "load-home")) >= result.requests


def test_a_load_test_without_a_server_says_why(project: Project) -> None:
    with pytest.raises(LoadError, match="answered none"):
        run_load("http://127.0.0.1:9", [picture()], connections=1, duration_s=0.2)
    with pytest.raises(LoadError, match="at least one image"):
        run_load("http://127.0.0.1:9", [], connections=1, duration_s=0.2)


def test_the_server_imports_nothing_heavy() -> None:
    code = (
        "import sys, pipeline_project.serving.worker, pipeline_project.serving.process, pipeline_project.serving.client, "
        "pipeline_project.packaging.package\n"
        "print([m for m in ('torch', 'dagster', 'scipy', 'pandas', 'mlflow', 'onnx', 'boto3', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
