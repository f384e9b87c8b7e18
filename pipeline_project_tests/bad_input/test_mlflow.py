"""MLflow out of reach: told in seconds and before the work; once the work runs, it costs a warning and never the weights."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest

from pipeline_project.dataset.versions import make_dataset_version
from pipeline_project.digests import canonical_json
from pipeline_project.ingest.features import measure_images
from pipeline_project.ingest.inventory import take_inventory
from pipeline_project.ingest.manifest import validate_images
from pipeline_project.ingest.pack import pack_images
from pipeline_project.release.registry import aliases_of, set_alias
from pipeline_project.release.rollout import _follow
from pipeline_project.settings import Settings, child_environment, load_settings
from pipeline_project.stage import StageContext
from pipeline_project.training.tracking import Tracker, TrackingError, prepare_tracking, shown_address, start_run
from pipeline_project_tests.bad_input.conftest import Shop
from pipeline_project_tests.small_project import free_ports

DAY = "2026-01-01"


def settings_of(home: Path, uri: str) -> Settings:
    named = {"PIPELINE__TRACKING__URI": uri} if uri else {}
    return load_settings("sample", environment={"PIPELINE_HOME": str(home), **named})


def assert_told(error: BaseException, address: str, why: str) -> None:
    said = str(error)
    assert said.startswith(f"MLflow at {address} cannot be used: ")
    assert why in said
    assert (
        "Start it, or correct tracking.uri in the settings (empty: a database in the runtime home); then materialize this asset again."
        in said
    )
    assert "Nothing that was computed before is lost." in said
    assert "secret" not in said


class Server:
    """A real MLflow server on a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_ports(1)[0]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        store = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--artifacts-destination", str(self.folder / "files")]
        environment = child_environment(settings_of(self.folder, self.uri))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([*command, *store], env=environment, stdout=log, stderr=log, start_new_session=True)
        for _ in range(1200):
            try:
                if httpx.get(f"{self.uri}/health", timeout=2, trust_env=False).status_code == 200:
                    return
            except httpx.HTTPError:
                assert self.process.poll() is None, (self.folder / "log").read_text()[-3000:]
                signal.sigtimedwait([], 0.1)
        raise AssertionError((self.folder / "log").read_text()[-3000:])

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    made.start()
    yield made
    made.kill()


# --- before the work ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https", "postgresql", "mysql+pymysql"])
def test_nothing_listens_there(tmp_path: Path, scheme: str) -> None:
    port = free_ports(1)[0]
    settings = settings_of(tmp_path, f"{scheme}://ada:secret@127.0.0.1:{port}/ml")
    with pytest.raises(TrackingError) as caught:
        prepare_tracking(settings)
    assert_told(caught.value, f"{scheme}://127.0.0.1:{port}/ml", "connection refused")


def test_name_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(TrackingError) as caught:
        prepare_tracking(settings_of(tmp_path, "http://ada:secret@no-such-host.invalid:5000"))
    assert_told(caught.value, "http://no-such-host.invalid:5000", "")


@pytest.mark.slow
def test_another_program_answers(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    other = subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)], stderr=subprocess.PIPE
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            signal.sigtimedwait([], 0.05)
        with pytest.raises(TrackingError) as caught:
            prepare_tracking(settings_of(tmp_path, f"http://127.0.0.1:{port}"))
        assert_told(caught.value, f"http://127.0.0.1:{port}", "404")
    finally:
        other.kill()
        other.communicate()


def test_database_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(TrackingError) as caught:
        prepare_tracking(settings_of(tmp_path, ""))
    assert_told(caught.value, f"sqlite:///{tmp_path}/mlflow.db", "unable to open database file")


def test_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("something else, long enough to be looked at: " * 50)
    with pytest.raises(TrackingError) as caught:
        prepare_tracking(settings_of(tmp_path, ""))
    assert_told(caught.value, f"sqlite:///{tmp_path}/mlflow.db", "file is not a database")


@pytest.mark.slow
def test_training_is_refused_before_it_starts(open_shop: Callable[..., Shop]) -> None:
    from pipeline_project.training.tuning import run_trials

    port = free_ports(1)[0]
    shop = open_shop(
        tracking={"uri": f"http://ada:secret@127.0.0.1:{port}"}, tuning={"trials": 1, "workers": 1, "epochs": 1}, training={"epochs": 1}
    )
    shop.day(DAY, 40)
    context = shop.context()
    for step in (take_inventory, validate_images, pack_images, measure_images):
        step(context, date.fromisoformat(DAY))
    make_dataset_version(context)
    with pytest.raises(TrackingError) as caught:
        run_trials(context, 0)
    assert_told(caught.value, f"http://127.0.0.1:{port}", "connection refused")
    chosen = canonical_json({"learning_rate": 0.001, "batch_size": 16, "dropout": 0.1})
    context.artifacts.publish("tuned_hyperparameters", {"hyperparameters.json": chosen})
    [training] = shop.materialize([["trained_model"]])
    [said] = training.failures.values()
    assert f"MLflow at http://127.0.0.1:{port} cannot be used: connection refused." in said
    assert "secret" not in said
    assert context.artifacts.find("trained_model") is None


# --- in the middle of the work --------------------------------------------------------------------------------------------------


def train_with(settings: Settings, work: Callable[[Tracker], None]) -> tuple[dg.ExecuteInProcessResult, str]:
    """An asset that logs as trained_model does, through the real `training_run`; and its MLflow run's id."""
    with dg.DagsterInstance.ephemeral() as instance:  # its own: Dagster looks at the instance entered last, which may be gone
        from pipeline_project.defs.training.mlflow import training_run

        ids: list[str] = []

        @dg.asset
        def probe(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
            with training_run(context, settings) as tracker:
                ids.append(tracker.run_id)
                tracker.log_params({"epochs": 2})
                work(tracker)
            return dg.MaterializeResult(metadata={"mlflow_run_id": ids[0]})

        return dg.materialize([probe], instance=instance, raise_on_error=False), ids[0]


@pytest.mark.slow
def test_server_that_dies_in_the_middle_costs_no_weights(server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    strict = start_run(settings_of(tmp_path, server.uri), "tuning")  # its trials are kept elsewhere: it may fail and be made again

    def work(tracker: Tracker) -> None:
        tracker.log_metrics({"val_loss": 1.0}, 1)
        server.kill()
        for epoch in (2, 3):
            tracker.log_metrics({"val_loss": 0.5}, epoch)
        tracker.log_file("trained_model/weights.safetensors", b"weights")

    result, run_id = train_with(settings_of(tmp_path, server.uri), work)
    assert result.success
    assert result.asset_materializations_for_node("probe")[0].metadata["mlflow_run_id"].value == run_id
    said = capfd.readouterr().err
    assert f"MLflow at {server.uri} does not answer: " in said
    assert f"The work goes on; 1 entries of run {run_id} wait and are sent when it answers again." in said
    assert f"MLflow keeps run {run_id} open" in said
    assert "The trained weights are in the artefact store." in said
    for attempt in (lambda: strict.log_metrics({"trials": 2}), lambda: strict.child("trial-1"), lambda: strict.end("FINISHED")):
        with pytest.raises(TrackingError) as caught:
            attempt()
        assert_told(caught.value, server.uri, "")


@pytest.mark.slow
def test_server_that_comes_back_gets_what_waited(server: Server, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    def work(tracker: Tracker) -> None:
        server.kill()
        for epoch in (1, 2, 3):
            tracker.log_metrics({"val_loss": 1 / epoch}, epoch)
        tracker.log_file("trained_model/weights.safetensors", b"weights")
        server.start()

    result, run_id = train_with(settings_of(tmp_path, server.uri), work)
    assert result.success
    client = MlflowClient(server.uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"epochs": "2"}
    assert [metric.step for metric in client.get_metric_history(run_id, "val_loss")] == [1, 2, 3]
    assert [file.path for file in client.list_artifacts(run_id, "trained_model")] == ["trained_model/weights.safetensors"]


# --- the registry ---------------------------------------------------------------------------------------------------------------


def test_registry_out_of_reach(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    settings = settings_of(tmp_path, f"http://ada:secret@127.0.0.1:{port}")
    asks: list[Callable[[], Any]] = [lambda: set_alias(settings, "champion", "0" * 64), lambda: aliases_of(settings)]
    for ask in asks:
        with pytest.raises(TrackingError) as caught:
            ask()
        assert_told(caught.value, f"http://127.0.0.1:{port}", "connection refused")
    lines: list[str] = []
    _follow(StageContext.open(settings, lines.append), "champion", "0" * 64)
    assert len(lines) == 1, "a release that is served is not undone by its alias"
    assert lines[0].startswith(f"warning: the alias champion still names what it named: MLflow at http://127.0.0.1:{port} cannot be used")


def test_addresses_are_shown_without_credentials() -> None:
    assert shown_address("http://ada:secret@ml.example.org:5000/x") == "http://ml.example.org:5000/x"
    assert shown_address("sqlite:////tmp/mlflow.db") == "sqlite:////tmp/mlflow.db"
