"""MLflow through a client and explicit run ids: no global active run, so parallel steps cannot mix their runs up."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline_project.provenance import git_commit
from pipeline_project.settings import Settings


class Tracker:
    """Logs to one MLflow run."""

    def __init__(self, tracking_uri: str, run_id: str) -> None:
        from mlflow.tracking import MlflowClient

        self.run_id = run_id
        self._client = MlflowClient(tracking_uri)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Set parameters; a parameter can be set once."""
        from mlflow.entities import Param

        self._client.log_batch(self.run_id, params=[Param(key, str(value)) for key, value in params.items()])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record metrics at a step."""
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self.run_id, metrics=[Metric(key, float(value), now, step) for key, value in metrics.items()])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_file(self, name: str, data: bytes) -> None:
        """Store a file under `name` (with folders) among the run's artefacts."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(data)
            self._client.log_artifact(self.run_id, str(path), str(Path(name).parent) if "/" in name else None)

    def end(self, status: str) -> None:
        """Close the run: FINISHED, FAILED or KILLED."""
        self._client.set_terminated(self.run_id, status)

    def child(self, name: str) -> "Tracker":
        """A nested run."""
        parent = self._client.get_run(self.run_id)
        tags = {"mlflow.parentRunId": self.run_id, "mlflow.source.git.commit": git_commit()}
        run = self._client.create_run(parent.info.experiment_id, run_name=name, tags=tags)
        tracker = Tracker.__new__(Tracker)
        tracker.run_id, tracker._client = run.info.run_id, self._client
        return tracker


def start_run(settings: Settings, name: str, tags: Mapping[str, str] | None = None) -> Tracker:
    """A new run in the settings' experiment, with the code's commit (R120, R126)."""
    from mlflow.tracking import MlflowClient

    experiment = prepare_tracking(settings)
    client = MlflowClient(settings.tracking_uri)
    run = client.create_run(experiment, run_name=name, tags={"mlflow.source.git.commit": git_commit(), **(tags or {})})
    return Tracker(settings.tracking_uri, run.info.run_id)


@contextmanager
def tracked_run(settings: Settings, name: str, tags: Mapping[str, str] | None = None) -> Iterator[Tracker]:
    """A run that is closed whatever happens: FINISHED, or FAILED when the body raises."""
    tracker = start_run(settings, name, tags)
    try:
        yield tracker
    except BaseException:
        tracker.end("FAILED")
        raise
    tracker.end("FINISHED")


def prepare_tracking(settings: Settings) -> str:
    """Make the settings' experiment, and the folder of a local database, if they are missing. Returns the experiment's id."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    if settings.tracking_uri.startswith("sqlite:///"):
        Path(settings.tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    client, name = MlflowClient(settings.tracking_uri), settings.tracking.experiment
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=_artifact_location(settings)))
        except MlflowException:  # another process was first
            found = client.get_experiment_by_name(name)
    return str(found.experiment_id)


def _artifact_location(settings: Settings) -> str | None:
    """Beside a local database, artefacts lie in the runtime home; a server has its own place for them."""
    return (settings.home / "mlflow-artifacts").as_uri() if settings.tracking_uri.startswith("sqlite:") else None
