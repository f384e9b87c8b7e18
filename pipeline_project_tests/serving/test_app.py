"""The HTTP API, in this process: what it answers, what it refuses, and what it writes down."""

import io
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from pipeline_project.contracts import PredictionRecord, Route
from pipeline_project.imaging import FEATURE_NAMES
from pipeline_project.packaging.package import PackageError, load_package
from pipeline_project.serving.app import create_app
from pipeline_project.serving.documents import write_next
from pipeline_project.serving.engine import Engine
from pipeline_project.serving.guard import RouteStatistics
from pipeline_project.serving.metrics import Metrics
from pipeline_project.serving.predicting import Predictor
from pipeline_project.serving.prediction_log import PredictionLog, read_segments, read_truth, ship
from pipeline_project.serving.reconcile import Reconciler
from pipeline_project_tests.serving.conftest import CLASSES, SIZE, Project, decode_thumbnail, picture


class Server:
    """One worker's parts without its process."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.reconciler = Reconciler(project.settings, project.artifacts, "staging", "r0", 1)
        self.log = PredictionLog(project.settings.home / "spool", "w")
        self.predictor = Predictor(
            project.settings, "staging", self.log, Metrics(), RouteStatistics(), serving=lambda: self.reconciler.current
        )
        app = create_app(self.predictor, health=lambda: {"ready": self.reconciler.current is not None})
        self.http = TestClient(app, raise_server_exceptions=False)

    def deploy(self, *routes: Route) -> None:
        write_next(self.project.artifacts.bytes, "staging", routes, "test", "Ada")
        self.reconciler.step()

    def post(self, data: bytes, path: str = "/predict", **headers: str):  # type: ignore[no-untyped-def]
        return self.http.post(path, files={"file": ("x", data)}, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def records(self) -> list[PredictionRecord]:
        self.log.close()
        ship(self.project.settings.home / "spool", self.project.artifacts.bytes, "staging")
        return list(read_segments(self.project.artifacts.bytes, "staging", datetime.now(UTC).date()))


@pytest.fixture
def empty(project: Project) -> Iterator[Server]:
    server = Server(project)
    yield server
    server.predictor.close()


@pytest.fixture
def server(empty: Server) -> Server:
    empty.deploy(Route(name="champion", package=empty.project.publish(1).digest, weight=1))
    return empty


def test_a_prediction_has_the_specified_fields_and_is_the_engines(server: Server) -> None:
    answer = server.post(picture(), x_request_id="abc.1")
    assert answer.status_code == 200
    said = answer.json()
    assert set(said) == {"predicted_class", "confidence", "all_probabilities", "request_id", "model", "route"}
    assert said["request_id"] == answer.headers["x-request-id"] == "abc.1"
    assert list(said["all_probabilities"]) == CLASSES
    assert sum(said["all_probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert said["all_probabilities"][said["predicted_class"]] == said["confidence"] == max(said["all_probabilities"].values())
    assert said["route"] == "champion"
    assert len(said["model"]) == 12


def test_the_record_is_complete_and_written_before_the_answer(server: Server) -> None:
    said = server.post(picture()).json()
    spooled = list((server.project.settings.home / "spool").rglob("*.jsonl"))
    assert said["request_id"] in spooled[0].read_text()
    (kept,) = server.records()
    assert (kept.request_id, kept.predicted_class, kept.confidence) == (said["request_id"], said["predicted_class"], said["confidence"])
    assert (kept.status, kept.document, kept.sequence, kept.worker) == (200, 1, 1, "w")
    assert kept.measurements is not None
    assert set(kept.measurements) == set(FEATURE_NAMES)
    assert len(kept.features or []) == 8
    assert kept.latency_ms > 0


def test_thumbnails_are_kept_for_the_configured_share(server: Server) -> None:
    for n in range(150):
        server.post(picture(side=64), x_request_id=f"r{n}")
    thumbnails = [kept.thumbnail for kept in server.records() if kept.thumbnail]
    share = server.project.settings.serving.thumbnail_share
    assert abs(len(thumbnails) - 150 * share) <= 5 * math.sqrt(150 * share) + 1
    assert decode_thumbnail(thumbnails[0]).size == (48, 48)


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 422, "empty"),
        (b"hello", 422, "not_an_image"),
        (picture(kind="GIF"), 422, "format"),
        (picture()[:500], 422, "corrupt"),
        (picture(side=4), 422, "too_small"),
        (b"\xff\xd8\xff" + bytes(299_997), 422, "corrupt"),
        (b"\xff\xd8\xff" + bytes(300_000), 413, "too_large"),
        (b"\xff\xd8\xff" + bytes(500_000), 413, "too_large"),
    ],
)
def test_bad_uploads_are_refused_with_a_code_and_logged(server: Server, data: bytes, status: int, code: str) -> None:
    answer = server.post(data, x_request_id="bad")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["message"]
    (kept,) = server.records()
    assert (kept.status, kept.request_id, kept.predicted_class) == (status, "bad", None)


def test_a_body_without_a_length_is_cut_off_while_it_is_read(server: Server) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        while sent < 50_000_000:
            sent += 100_000
            yield bytes(100_000)

    answer = server.http.post("/predict", content=endless(), headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        (b"{}", "application/json", "not_multipart"),
        (b"x", "multipart/form-data", "not_multipart"),
        (b"garbage", "multipart/form-data; boundary=b", "bad_multipart"),
        (b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n', "multipart/form-data; boundary=b", "no_file"),
        (b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nhalf', "multipart/form-data; boundary=b", "no_file"),
        (b"", "multipart/form-data; boundary=b", "no_file"),
        (b"x", "multipart/form-data; boundary=" + "b" * 5000, "bad_multipart"),
    ],
)
def test_malformed_requests_are_400(server: Server, content: bytes, kind: str, code: str) -> None:
    answer = server.http.post("/predict", content=content, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (400, code)


@pytest.mark.parametrize("request_id", ["", "a b", "x" * 129, "a\tb", "../", "<script>"])
def test_odd_request_ids_are_refused(server: Server, request_id: str) -> None:
    assert server.post(picture(), x_request_id=request_id).json()["code"] == "bad_request_id"


def test_without_a_model_it_lives_but_is_not_ready(empty: Server) -> None:
    assert empty.http.get("/health/live").status_code == 200
    assert empty.http.get("/health/ready").status_code == 503
    assert empty.http.get("/health").json() == {"status": "not_ready", "live": True, "ready": False}
    answer = empty.post(picture())
    assert (answer.status_code, answer.json()["code"]) == (503, "no_model")
    assert "deploy" in answer.json()["message"]
    assert answer.headers["retry-after"] == "1"


def test_the_heat_map_is_a_picture(server: Server) -> None:
    answer = server.post(picture(), "/explain", x_request_id="e")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-predicted-class"] == server.post(picture()).json()["predicted_class"]
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == (320, 320)
    assert server.post(b"hello", "/explain").status_code == 422


def test_feedback_is_kept_when_its_class_is_known(server: Server) -> None:
    request_id = server.post(picture()).json()["request_id"]
    assert server.http.post("/feedback", json={"request_id": request_id, "label": "toys"}).status_code == 201
    server.records()
    (truth,) = read_truth(server.project.artifacts.bytes, "staging", datetime.now(UTC).date())
    assert (truth.request_id, truth.label, truth.source) == (request_id, "toys", "api")
    bad = [{"request_id": request_id, "label": "cars"}, {"label": "toys"}, [], {"request_id": "a b", "label": "toys"}]
    answers = [server.http.post("/feedback", content=json.dumps(body)) for body in bad]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [
        (422, "unknown_label"),
        *[(422, "bad_feedback")] * 3,
    ]
    assert server.http.post("/feedback", content=b"x" * 10_000).status_code == 413


def test_traffic_is_split_by_weight_and_sticks(server: Server) -> None:
    champion, canary = server.project.publish(1).digest, server.project.publish(2).digest
    server.deploy(Route(name="champion", package=champion, weight=0.9), Route(name="canary", package=canary, weight=0.1))
    first = {f"r{n}": server.post(picture(side=32), x_request_id=f"r{n}").json() for n in range(300)}
    taken = sum(said["route"] == "canary" for said in first.values())
    assert abs(taken - 30) <= 5 * math.sqrt(300 * 0.1 * 0.9)
    assert {said["route"]: said["model"] for said in first.values()} == {"champion": champion[:12], "canary": canary[:12]}
    for request_id in list(first)[:40]:
        assert server.post(picture(side=32), x_request_id=request_id).json()["route"] == first[request_id]["route"]


def test_a_log_that_cannot_be_written_means_no_answer(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(record: PredictionRecord) -> PredictionRecord:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(server.log, "append", full)
    answer = server.post(picture())
    assert (answer.status_code, answer.json()["code"]) == (503, "log_unavailable")


def test_a_failing_model_is_500_and_logged_without_details(empty: Server) -> None:
    empty.deploy(Route(name="champion", package=empty.project.publish(1, fails_on_bright=True).digest, weight=1))
    assert empty.post(picture(brightness=20)).status_code == 200
    answer = empty.post(picture(brightness=250))
    assert (answer.status_code, answer.json()["code"]) == (500, "model_failed")
    assert "Gather" not in answer.text
    assert [kept.status for kept in empty.records()] == [200, 500]


def test_a_bug_is_500_without_details(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline_project.serving.predicting.measure", lambda pixels, aspect: 1 / 0 or {}["secret"])
    answer = server.post(picture())
    assert answer.status_code == 500
    monkeypatch.setattr("pipeline_project.serving.predicting.measure", lambda pixels, aspect: {}["secret"])
    answer = server.post(picture())
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert [kept.status for kept in server.records()] == [500, 500]


def test_metrics_count_requests_and_confidence(server: Server) -> None:
    server.post(picture())
    server.post(b"no image")
    server.http.get("/nowhere")
    text = server.http.get("/metrics").text
    assert 'pipeline_requests_total{path="predict",route="champion",status="200"} 1.0' in text
    assert 'pipeline_requests_total{path="predict",route="champion",status="422"} 1.0' in text
    assert 'pipeline_prediction_confidence_count{route="champion"} 1.0' in text
    assert "nowhere" not in text


def test_every_answer_has_the_security_headers_and_the_page_a_strict_policy(server: Server) -> None:
    for answer in (server.http.get("/"), server.http.get("/nowhere"), server.post(b"x"), server.http.get("/predict")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
    page = server.http.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert server.http.get("/docs").status_code == 404  # it would load scripts from elsewhere


def test_the_api_describes_itself(server: Server) -> None:
    described = server.http.get("/openapi.json").json()
    assert "multipart/form-data" in described["paths"]["/predict"]["post"]["requestBody"]["content"]


def test_a_refused_document_changes_nothing(server: Server) -> None:
    before = server.reconciler.current
    bad = server.project.publish(3)
    server.project.artifacts.bytes.delete(f"{bad.prefix}sidecars/signature.json")
    server.deploy(Route(name="champion", package=bad.digest, weight=1))
    assert server.reconciler.current is before
    report = json.loads(server.project.artifacts.bytes.read("artifacts/deployments/staging/replicas/r0.json"))
    assert "not signed" in report["refused"][bad.digest]
    assert (report["document"], report["newest"]) == (1, 2)


def test_a_store_that_is_away_changes_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(key: str) -> bool:
        raise ConnectionError("away")

    monkeypatch.setattr(server.project.artifacts.bytes, "exists", away)
    server.reconciler.step()
    assert server.post(picture()).status_code == 200


def test_unused_engines_are_let_go_and_used_ones_kept(server: Server) -> None:
    champion = server.project.publish(1).digest
    engine = server.reconciler.current.engines[champion]  # type: ignore[union-attr]
    server.deploy(
        Route(name="champion", package=champion, weight=0.5), Route(name="canary", package=server.project.publish(2).digest, weight=0.5)
    )
    assert server.reconciler.current is not None
    assert server.reconciler.current.engines[champion] is engine
    assert len(server.reconciler.current.engines) == 2
    server.deploy(Route(name="champion", package=server.project.publish(2).digest, weight=1))
    assert champion not in server.reconciler.current.engines


def test_the_engine_refuses_a_graph_that_does_not_fit(project: Project, tmp_path: Path) -> None:
    good = load_package(project.artifacts, project.publish(1).digest, project.settings.trusted_signers)
    answer = Engine(good).predict(np.zeros((3, SIZE, SIZE, 3), np.uint8))
    assert answer.probabilities.shape == (3, 5)
    assert answer.probabilities.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    assert answer.feature_map.mean(axis=(2, 3)) == pytest.approx(answer.features, abs=1e-5)
    fields = vars(good)
    with pytest.raises(PackageError, match="does not load"):
        Engine(type(good)(**{**fields, "graph": b"nonsense"}))
    with pytest.raises(PackageError, match="blank image"):
        Engine(type(good)(**{**fields, "manifest": good.manifest.model_copy(update={"image_size": 64})}))
    with pytest.raises(PackageError, match="its head needs"):
        Engine(type(good)(**{**fields, "manifest": good.manifest.model_copy(update={"classes": ["a", "b"]})}))
