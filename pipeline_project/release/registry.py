"""registered_model: a version in the MLflow registry of every package whose verdict is yes; and the aliases of decision D5.

The desired-state document decides what is live; aliases follow it and never lead.
"""

import contextlib
from typing import TYPE_CHECKING

from pipeline_project.digests import canonical_json
from pipeline_project.evaluation.gates import require_passed
from pipeline_project.provenance import git_commit
from pipeline_project.settings import Settings
from pipeline_project.stage import StageContext, StepResult
from pipeline_project.storage import Artifact
from pipeline_project.training.tracking import prepare_tracking, telling_tracking_errors

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_PACKAGE_TAG = "package"


def register_model(context: StageContext) -> StepResult:
    """Register the newest package (R128), once: the same package keeps its version.

    Payload: registration.json (model name, package, verdict). The version number is in the artefact's info.

    Raises:
        ValueError: the gate's verdict is no, or about another package.
        TrackingError: MLflow cannot be reached.
    """
    package = context.artifacts.latest("model_package")
    require_passed(context.artifacts, package.digest)
    gate = context.artifacts.latest("release_gate")
    client = _client(context.settings)
    name = context.settings.tracking.model_name
    with telling_tracking_errors(context.settings.tracking_uri):
        version = find_version(client, name, package.digest) or _create_version(client, name, package, gate)
    record = {"version": 1, "model_name": name, "package": package.digest, "verdict": gate.digest}
    artifact = context.artifacts.find("registered_model")
    if artifact is None or artifact.json("registration.json") != record or artifact.info["model_version"] != version:
        artifact = context.artifacts.publish(
            "registered_model",
            {"registration.json": canonical_json(record)},
            info={
                "package": package.digest,
                "verdict": gate.digest,
                "model_name": name,
                "model_version": version,
                "mlflow_run_id": package.info["mlflow_run_id"],
                "git_commit": git_commit(),
            },
        )
    return StepResult(
        artifact,
        {
            "model_name": name,
            "model_version": version,
            "package": package.digest,
            "verdict": gate.digest,
            "model_uri": f"models:/{name}/{version}",
        },
    )


def set_alias(settings: Settings, alias: str, package: str) -> str | None:
    """Point an alias (staging, champion, challenger, previous) at a package's version; None when it has no version.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    client, name = _client(settings), settings.tracking.model_name
    with telling_tracking_errors(settings.tracking_uri):
        version = find_version(client, name, package)
        if version is not None:
            client.set_registered_model_alias(name, alias, version)
    return version


def aliases_of(settings: Settings) -> dict[str, str]:
    """{alias: package digest} as the registry has them; empty without a registered model. Raises `TrackingError`."""
    from mlflow.exceptions import MlflowException

    client, name = _client(settings), settings.tracking.model_name
    try:
        model = client.get_registered_model(name)
    except MlflowException:
        return {}
    return {alias: client.get_model_version(name, str(v)).tags.get(_PACKAGE_TAG, "") for alias, v in model.aliases.items()}


def find_version(client: "MlflowClient", name: str, package: str) -> str | None:
    """The version of a package, or None."""
    found = client.search_model_versions(f"name = '{name}' and tags.{_PACKAGE_TAG} = '{package}'")
    return str(found[0].version) if found else None


def _client(settings: Settings) -> "MlflowClient":
    from mlflow.tracking import MlflowClient

    prepare_tracking(settings)
    return MlflowClient(settings.tracking_uri)


def _create_version(client: "MlflowClient", name: str, package: Artifact, gate: Artifact) -> str:
    """Log the served graph as an ONNX model with its signature (R143) and register it."""
    import mlflow
    import numpy as np
    import onnx
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    manifest = package.json("package.json")
    size = manifest["image_size"]
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, size, size, 3), "pixels")]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(manifest["classes"])), "logits")]),
    )
    run_id = package.info["mlflow_run_id"]
    tags = {
        _PACKAGE_TAG: package.digest,
        "verdict": gate.digest,
        "dataset_version": manifest["dataset_version"],
        "git_commit": git_commit(),
    }
    model = mlflow.onnx
    with _Run(client, run_id):
        logged = model.log_model(
            onnx.load_model_from_string(package.read(manifest["graph"])),
            name="package",
            signature=signature,
            pip_requirements=["onnxruntime", "numpy"],
            metadata=tags,
        )
    with contextlib.suppress(MlflowException):  # it exists
        client.create_registered_model(name, description="Classifies product photos. Aliases follow the deployment documents.")
    version = client.create_model_version(name, logged.model_uri, run_id, tags=tags)
    return str(version.version)


class _Run:
    """`log_model` wants an active run: the training run is made active for the call and left in its own state."""

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self._client, self._run_id = client, run_id

    def __enter__(self) -> None:
        import mlflow

        mlflow.set_tracking_uri(self._client.tracking_uri)
        self._status = self._client.get_run(self._run_id).info.status
        mlflow.start_run(run_id=self._run_id)

    def __exit__(self, *_: object) -> None:
        import mlflow

        mlflow.end_run(self._status)
