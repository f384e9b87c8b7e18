"""The whole job as a user runs it: real webserver, daemon, queue, endpoints, MLflow; first into a failed gate, then to a served model."""

import json
import socket
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from pipeline_project.sample import product_photo
from pipeline_project_tests.small_project import LOW, OUT_OF_REACH, Project

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    made = Project(tmp_path_factory.mktemp("end-to-end"))
    yield made
    made.pipeline("stop", "--config", str(made.config))


def test_a_failed_gate_releases_nothing_and_names_what_was_missed(project: Project) -> None:
    project.write({**LOW, **OUT_OF_REACH})
    done = project.pipeline("demo", "--config", str(project.config))
    assert done.returncode == 1, done.stdout + done.stderr
    context = project.context()
    verdict = context.artifacts.latest("release_gate").json("verdict.json")
    missed = [m for gate in verdict["gates"] for m in gate["measurements"] if not m["passed"]]
    assert {"accuracy", "macro_f1"} <= {m["name"].replace(" ", "_") for m in missed}
    for measurement in missed:
        assert f"{measurement['value']:.4g}" in done.stderr, f"{measurement['name']} is not named:\n{done.stderr}"
    for never in ("registered_model", "staging_endpoint", "deployed_endpoint"):
        assert context.artifacts.find(never) is None
    assert context.artifacts.find("evaluation_report") is not None  # the evidence is kept


def test_after_an_approved_change_the_same_project_goes_through(project: Project) -> None:
    project.write(LOW)
    refused = project.pipeline("demo", "--config", str(project.config))
    assert refused.returncode == 1
    assert "compliance_configuration_changes" in refused.stderr
    subject = refused.stderr.split("compliance_configuration_changes ")[1].split()[0]
    assert project.pipeline("keys", "create", "ada", "--config", str(project.config)).returncode == 0
    approval = ["approve", "compliance_configuration_changes", subject, "--approver", "ada", "--reason", "a small test"]
    assert project.pipeline(*approval, "--config", str(project.config)).returncode == 0
    done = project.pipeline("demo", "--config", str(project.config))
    assert done.returncode == 0, done.stdout + done.stderr
    context = project.context()
    for name in ("deployed_endpoint", "ab_report", "audit_dossier", "data_profile", "cross_validation_report"):
        assert context.artifacts.find(name) is not None, name
    for name in ("drift_report", "performance_report", "prediction_log", "ground_truth", "batch_predictions"):
        assert context.artifacts.partitions(name), name


def test_the_endpoint_answers_as_specified(project: Project) -> None:
    url = project.context().settings.serving.production.address
    photo = product_photo("toys", np.random.default_rng(1))
    answer = httpx.post(f"{url}/predict", files={"file": ("x.jpg", photo)}, trust_env=False)
    assert answer.status_code == 200
    body = answer.json()
    assert body["predicted_class"] in body["all_probabilities"]
    assert body["confidence"] == pytest.approx(max(body["all_probabilities"].values()), abs=1e-6)
    assert sum(body["all_probabilities"].values()) == pytest.approx(1, abs=1e-4)


def test_the_runs_stand_on_the_instance_with_their_lineage(project: Project) -> None:
    url = f"http://127.0.0.1:{project.ports[0]}/graphql"
    query = """{ assetsOrError { ... on AssetConnection { nodes { key { path } assetMaterializations(limit: 1) { runId
      metadataEntries { label } tags { key value } } } } } }"""
    nodes = httpx.post(url, json={"query": query}, trust_env=False, timeout=60).json()["data"]["assetsOrError"]["nodes"]
    seen = {node["key"]["path"][0]: node["assetMaterializations"] for node in nodes}
    artifacts = project.context().artifacts
    assert sum(bool(found) for found in seen.values()) == 23
    tags = {tag["key"]: tag["value"] for tag in seen["model_package"][0]["tags"]}
    assert tags["dagster/data_version"] == artifacts.latest("model_package").digest
    assert tags["dagster/input_data_version/trained_model"] == artifacts.latest("trained_model").digest


def test_no_secret_and_no_pickle_was_written(project: Project) -> None:
    for key in (project.home / "keys").glob("*.pem"):
        assert key.stat().st_mode & 0o077 == 0
        secret = key.read_text().splitlines()[1]
        for log in (project.home / "logs").glob("*.log"):
            assert secret not in log.read_text(errors="replace")
    stored = [path for path in (project.home / "store").rglob("*") if path.is_file()]
    assert not [path for path in stored if path.suffix in (".pkl", ".pickle", ".pt", ".pth")]
    steps = [path for path in (project.home / "store/artifacts/steps").rglob("*") if path.is_file()]
    assert steps
    for path in steps:
        json.loads(path.read_bytes())


def test_stop_leaves_nothing_behind(project: Project) -> None:
    stopped = project.pipeline("stop", "--config", str(project.config))
    assert stopped.returncode == 0
    assert "dagster-webserver" in stopped.stdout
    for port in project.ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert "nothing was running" in project.pipeline("stop", "--config", str(project.config)).stdout
