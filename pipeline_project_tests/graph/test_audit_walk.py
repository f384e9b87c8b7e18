"""From an answered request back to the photo and its run, through a read-only UI alone; `pipeline trace` tells the same digests."""

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from pipeline_project.dataset.reading import load_split
from pipeline_project.governance.trace import trace_request
from pipeline_project.ingest.sources import open_source
from pipeline_project.local import services
from pipeline_project.local.dagster_client import DagsterClient
from pipeline_project.local.traffic import send_traffic
from pipeline_project.serving.client import PredictionClient
from pipeline_project_tests.graph.conftest import Platform
from pipeline_project_tests.graph.pages import Materialization
from pipeline_project_tests.graph.ui import RefusedError, Ui

pytestmark = pytest.mark.slow


@dataclass
class Request:
    """An answered request whose image is one of the data set's."""

    request_id: str
    model: str
    key: str


@pytest.fixture(scope="module")
def audit(platform: Platform) -> Iterator[Ui]:
    """The auditors' webserver, as `make dev` starts it."""
    settings = platform.project.settings()
    service = services.audit_service(settings)
    services.start(settings, service, platform.project.config)
    services.wait_ready(settings, service)
    DagsterClient(service.url, lambda _: None).wait_loaded()
    yield Ui(service.url)


@pytest.fixture(scope="module")
def request_made(platform: Platform) -> Request:
    """A photo of the test split through the real endpoint; the log of today compacted from the UI."""
    context = platform.context
    key = load_split(context.artifacts, "test").keys[0]
    with PredictionClient(context.settings.serving.production.address) as client:
        answer = client.predict(open_source(context.settings).read(key))
    send_traffic(context, 1, lambda _: None)  # returns once what was answered before is in the store
    log = platform.run("prediction_log", partition=platform.days[-1])
    assert log.status == "SUCCESS", log.why
    return Request(answer.request_id, answer.model, key)


def made(ui: Ui, asset: str, version: str, partition: str | None = None) -> Materialization:
    """The entry of an asset's page with a data version."""
    found = [entry for entry in ui.materializations(asset, partition) if entry.version == version]
    assert found, f"{asset} has no version {version}"
    return found[0]


def test_every_hop_from_the_prediction_to_the_raw_images(audit: Ui, platform: Platform, request_made: Request) -> None:
    day = request_made.key.split("/")[0]
    predictions = audit.materializations("prediction_log", platform.days[-1])[0]
    deployed = made(audit, "deployed_endpoint", predictions.version_of("deployed_endpoint"))
    package = deployed.metadata["package"]
    assert package.startswith(request_made.model)
    registered = next(entry for entry in audit.materializations("registered_model") if entry.metadata["package"] == package)
    verdict = made(audit, "release_gate", registered.metadata["verdict"])
    assert verdict.metadata["passed"] is True
    assert verdict.metadata["package"] == package
    assert verdict.version_of("evaluation_report") == verdict.metadata["evaluation"]
    report = made(audit, "evaluation_report", verdict.metadata["evaluation"])
    assert report.version_of("model_package") == package
    dataset = made(audit, "dataset_splits", verdict.metadata["dataset"])
    days = {row["day"]: row["manifest"] for row in dataset.metadata["days"]}
    manifest = made(audit, "validated_manifest", days[day], day)
    raw = made(audit, "raw_images", manifest.metadata["inventory"], day)
    run = audit.log(raw.run_id)
    assert run.status == "SUCCESS"
    assert f"raw_images[{day}]" in run.materialized


def test_trace_tells_the_same_digests(audit: Ui, platform: Platform, request_made: Request) -> None:
    trace = trace_request(platform.context, request_made.request_id)
    assert trace.problems() == []
    deployed = audit.materializations("deployed_endpoint")[0]
    assert trace.package == deployed.metadata["package"]
    assert (trace.image.state, trace.image.key, trace.image.split) == ("in the dataset", request_made.key, "test")
    told = {hop.name: hop.digest for hop in trace.hops}
    day = str(trace.image.day)
    for entry in (
        next(entry for entry in audit.materializations("registered_model") if entry.metadata["package"] == trace.package),
        made(audit, "release_gate", audit.materializations("registered_model")[0].metadata["verdict"]),
        audit.materializations("dataset_splits")[0],
        audit.materializations("validated_manifest", day)[0],
        audit.materializations("raw_images", day)[0],
    ):
        assert entry.version in {*told.values(), trace.registration.digest if trace.registration else ""}, told


def test_the_trace_command_answers(platform: Platform, request_made: Request) -> None:
    done = platform.project.pipeline("trace", request_made.request_id, "--config", str(platform.project.config))
    assert done.returncode == 0, done.stderr
    assert request_made.key in done.stdout
    assert platform.context.artifacts.latest("registered_model").info["package"][:12] in done.stdout


def test_auditors_cannot_change_anything(audit: Ui, platform: Platform) -> None:
    run = platform.first["deployed"][0].run_id
    for attempt in (
        lambda: audit.materialize("dataset_splits"),
        lambda: audit.launch_job("deploy"),
        lambda: audit.reexecute(run),
        lambda: audit.backfill(["image_pack"], platform.days[:1]),
        lambda: audit.switch("new_objects", on=True),
        lambda: audit.terminate(run),
    ):
        with pytest.raises(RefusedError, match="Authorization|Unauthorized|permission"):
            attempt()
    posted = httpx.post(f"{audit.url}/report_asset_materialization/", json={"asset_key": "release_gate"}, trust_env=False)
    assert posted.status_code == 401
    assert audit.instigators()["new_objects"]["status"] == "STOPPED"
