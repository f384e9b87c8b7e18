"""model_package: the trained model as what is served: graph, head, reference, transform, classes, temperature, checksums, signature."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline_project.contracts import PackageManifest
from pipeline_project.dataset.reading import SplitArrays, load_split
from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.packaging.export import export_fp32, head_arrays, quantise_int8, run_graph
from pipeline_project.packaging.package import PackageError, load_package, sign_package
from pipeline_project.provenance import environment, git_commit
from pipeline_project.reuse import reusable
from pipeline_project.stage import StageContext, StepResult, Table
from pipeline_project.storage import Artifact
from pipeline_project.tables import arrays_to_npz
from pipeline_project.training.artifact import load_network
from pipeline_project.trust.signing import UntrustedError, load_or_create_key


def _signed(context: StageContext, package: Artifact) -> bool:
    """Whether a stored package still carries a signature that this project trusts."""
    try:
        load_package(context.artifacts, package.digest, context.settings.trusted_signers)
    except (PackageError, UntrustedError, ValueError, OSError):
        return False
    return True


def _inputs(context: StageContext) -> dict[str, str]:
    trained = context.artifacts.latest("trained_model")
    return {"trained_model": trained.digest, "dataset_splits": str(trained.info["dataset"])}


@reusable(
    "model_package",
    inputs=_inputs,
    settings=["image", "packaging.calibration_images", "packaging.max_accuracy_drop", "packaging.preference"],
    sound=_signed,
)
def build_package(context: StageContext) -> StepResult:
    """Export, quantise, choose the variant to serve, fit the temperature, sign.

    The served variant is the first of packaging.preference whose validation accuracy is within max_accuracy_drop of the trained model.

    Payload: package.json (`PackageManifest`), model.onnx (served), model.fp32.onnx, head.npz, reference.npz.
    Sidecar: signature.json over package.json.

    Raises:
        ValueError: no variant is accurate enough.
    """
    settings = context.settings
    network, record, trained = load_network(context.artifacts)
    dataset = context.artifacts.version("dataset_splits", trained.info["dataset"])
    train, validation = (load_split(context.artifacts, split, dataset) for split in ("train", "validation"))
    with np.load(io.BytesIO(trained.read("validation.npz")), allow_pickle=False) as stored:
        torch_logits = stored["logits"]
    context.log("exporting fp32, quantising int8")
    graphs = {"fp32": export_fp32(network, settings.image)}
    graphs["int8"] = quantise_int8(graphs["fp32"], _calibration(train, settings.packaging.calibration_images))
    outputs = {variant: run_graph(graph, validation.images) for variant, graph in graphs.items()}
    accuracy = {name: _accuracy(out["logits"], validation) for name, out in outputs.items()}
    accuracy["trained"] = _accuracy(torch_logits, validation)
    limit = accuracy["trained"] - settings.packaging.max_accuracy_drop
    variant = next((name for name in settings.packaging.preference if accuracy[name] >= limit), None)
    if variant is None:
        raise ValueError(
            f"No variant is within packaging.max_accuracy_drop of the trained model: {accuracy}. Allow fp32 in packaging.preference."
        )
    served = outputs[variant]
    counts = np.array(record["training_class_counts"])
    parity: dict[str, Any] = {
        "fp32_max_logit_difference": round(float(np.abs(outputs["fp32"]["logits"] - torch_logits).max()), 6),
        "agreement": {name: _agreement(out["logits"], torch_logits) for name, out in outputs.items()},
        "accuracy": accuracy,
    }
    files = {
        "model.onnx": graphs[variant],
        "model.fp32.onnx": graphs["fp32"],
        "head.npz": arrays_to_npz(**head_arrays(network)),
        "reference.npz": arrays_to_npz(features=served["features"].astype(np.float16), class_index=validation.class_index),
    }
    manifest = PackageManifest(
        architecture=record["model"]["architecture"],
        classes=record["classes"],
        image_size=settings.image.size,
        resample="supersampled",
        temperature=_temperature(served["logits"], validation.class_index),
        variant=variant,
        graph="model.onnx",
        validation_accuracy=accuracy,
        training_class_shares=[round(float(share), 6) for share in counts / counts.sum()],
        dataset_version=dataset.digest,
        weights=trained.files["weights.safetensors"],
        files={name: sha256_bytes(data) for name, data in files.items()},
    )
    artifact = context.artifacts.publish(
        "model_package",
        {"package.json": canonical_json(manifest.model_dump(mode="json")), **files},
        sidecars={"environment.json": canonical_json(environment())},
        info={
            "trained_model": trained.digest,
            "dataset": dataset.digest,
            "mlflow_run_id": trained.info["mlflow_run_id"],
            "git_commit": git_commit(),
            "variant": variant,
            "parity": parity,
        },
    )
    sign_package(artifact, load_or_create_key(settings.signing_key, settings.trusted_signers))
    sizes = [{"file": name, "kilobytes": round(len(data) / 1000, 1)} for name, data in files.items()]
    return StepResult(
        artifact,
        {
            "served_variant": variant,
            "validation_accuracy": accuracy,
            "temperature": manifest.temperature,
            "agreement_with_trained_model": parity["agreement"],
            "files": Table(sizes),
            "package": artifact.digest,
            "trained_model": trained.digest,
            "dataset": dataset.digest,
            "uri": artifact.uri,
        },
    )


def _calibration(train: SplitArrays, count: int) -> NDArray[np.uint8]:
    """Evenly spaced training images: all days and classes are met."""
    chosen = np.linspace(0, len(train.images) - 1, min(count, len(train.images))).astype(int)
    return np.asarray(train.images[chosen], dtype=np.uint8)


def _accuracy(logits: NDArray[np.float32], validation: SplitArrays) -> float:
    return round(float((logits.argmax(axis=1) == validation.class_index).mean()), 6)


def _agreement(logits: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    return round(float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean()), 6)


def _temperature(logits: NDArray[np.float32], class_index: NDArray[np.int64]) -> float:
    """Temperature scaling (Guo et al., 2017): the scale in 0.25-10 that minimises validation cross-entropy.

    Targets are softened as Platt (1999) does, (N + 1) / (N + 2): on a validation split without a mistake, hard targets would call every
    answer certain.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    count, classes = logits.shape
    right = (count + 1) / (count + 2)
    targets = np.full(logits.shape, (1 - right) / (classes - 1))
    targets[np.arange(count), class_index] = right

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        return float((logsumexp(scaled, axis=1) - (targets * scaled).sum(axis=1)).mean())

    result = minimize_scalar(loss, bounds=(np.log(0.25), np.log(10)), method="bounded")
    return round(float(np.exp(result.x)), 4)
