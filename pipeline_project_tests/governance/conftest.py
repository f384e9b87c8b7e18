"""A released package with its whole chain of evidence, as the stages publish it."""

import io
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from pipeline_project.contracts import DatasetVersion, DesiredState, GateResult, GateVerdict, Measurement, PackageManifest, Route
from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.packaging.package import file_digests, sign_package
from pipeline_project.settings import load_settings
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact
from pipeline_project.trust.approvals import record_approval
from pipeline_project.trust.signing import load_or_create_key

CLASSES = ["electronics", "clothing", "home", "books", "toys"]


@dataclass
class Release:
    context: StageContext
    root: Path
    made: dict[str, Artifact] = field(default_factory=dict)

    def build(self, *, passed: bool = True, approve: bool = True, seed: int = 0) -> str:
        artifacts, settings = self.context.artifacts, self.context.settings
        day = "2026-11-02"
        inventory = artifacts.publish("raw_images", {"inventory.json": b"[]"}, partition=day)
        manifest = artifacts.publish(
            "validated_manifest", {"manifest.parquet": b"rows"}, partition=day, info={"inventory": inventory.digest}
        )
        version = DatasetVersion(
            days={day: manifest.digest},
            packs={day: "2" * 64},
            features={day: "3" * 64},
            left_out_days={"2026-11-03": "reject rate 0.20"},
            left_out_images={},
            parent=None,
            classes=CLASSES,
            counts={split: dict.fromkeys(CLASSES, 10) for split in ("train", "validation", "test")},
            largest_group=1,
        )
        payload = {"splits.parquet": b"splits", "dataset.json": canonical_json(version.model_dump(mode="json"))}
        dataset = artifacts.publish("dataset_splits", payload)
        chosen = {"learning_rate": 0.003, "batch_size": 32, "dropout": 0.2}
        tuned = artifacts.publish("tuned_hyperparameters", {"hyperparameters.json": canonical_json(chosen)})
        weights = f"weights {seed}".encode()
        trained = artifacts.publish(
            "trained_model",
            {"weights.safetensors": weights, "training.json": b"{}"},
            info={"dataset": dataset.digest, "tuned_hyperparameters": tuned.digest, "mlflow_run_id": "run-1", "git_commit": "c0ffee"},
        )
        package = self._package(seed, dataset, trained, sha256_bytes(weights))
        scores = {"accuracy": {"value": 0.91, "low": 0.88, "high": 0.94, "size": 150}, "classes": {}}
        report = {"images": 150, "package": package.digest, "dataset": dataset.digest, "performance": scores}
        evaluation = artifacts.publish("evaluation_report", {"evaluation.json": canonical_json(report)}, info={"package": package.digest})
        load_test = artifacts.publish(
            "load_test_report", {"load_test.json": b"{}"}, info={"package": package.digest, "measurements": {"p99_ms": 40}}
        )
        number = Measurement(name="accuracy", value=0.91, threshold=0.85, comparison=">=", passed=passed)
        verdict = GateVerdict(
            passed=passed,
            package=package.digest,
            dataset=dataset.digest,
            evaluation=evaluation.digest,
            load_test=load_test.digest,
            gate_settings="4" * 64,
            gates=[GateResult(gate="model_performance_meets_threshold", passed=passed, evidence=evaluation.digest, measurements=[number])],
        )
        gate = artifacts.publish(
            "release_gate", {"verdict.json": canonical_json(verdict.model_dump(mode="json"))}, info={"package": package.digest}
        )
        artifacts.publish(
            "registered_model",
            {"model.json": canonical_json({"package": package.digest})},
            info={"package": package.digest, "model_version": "3"},
        )
        if approve:
            self.approve(package.digest)
        named = (inventory, manifest, dataset, tuned, trained, package, evaluation, load_test, gate)
        self.made = {artifact.name: artifact for artifact in named}
        assert settings.profile == "laptop"
        return package.digest

    def approve(self, digest: str) -> None:
        settings = self.context.settings
        key = load_or_create_key(settings.home / "keys" / "ada.pem", settings.trusted_approvers)
        record_approval(self.context.artifacts.bytes, key, "production_deployment", digest, approver="Ada", reason="gates | passed <b>")

    def deploy(self, digest: str, number: int = 1) -> None:
        routes = [Route(name="champion", package=digest, weight=1.0)]
        created = datetime(2026, 11, 20, 10, number, tzinfo=UTC)
        document = DesiredState(environment="production", number=number, routes=routes, reason="release", author="Ada", created=created)
        key = f"artifacts/deployments/production/documents/{number:08d}.json"
        self.context.artifacts.bytes.create(key, document.model_dump_json().encode())

    def damage(self, name: str, file: str) -> None:
        self.context.artifacts.bytes.write(f"{self.made[name].prefix}{file}", b"damaged")

    def _package(self, seed: int, dataset: Artifact, trained: Artifact, weights: str) -> Artifact:
        random = np.random.default_rng(seed)
        files = {
            "model.onnx": f"graph {seed}".encode(),
            "head.npz": npz(w1=random.normal(size=(4, 8)), b1=np.zeros(4), w2=random.normal(size=(5, 4)), b2=np.zeros(5)),
            "reference.npz": npz(features=np.zeros((5, 8), np.float16), class_index=np.arange(5)),
        }
        manifest = PackageManifest(
            architecture="small_cnn",
            classes=CLASSES,
            image_size=48,
            resample="bilinear",
            temperature=1.0,
            variant="int8",
            graph="model.onnx",
            validation_accuracy={"int8": 0.9},
            training_class_shares=[0.2] * 5,
            dataset_version=dataset.digest,
            weights=weights,
            files=file_digests(files),
        )
        package = self.context.artifacts.publish(
            "model_package",
            {**files, "package.json": manifest.model_dump_json().encode()},
            info={"trained_model": trained.digest, "dataset": dataset.digest, "git_commit": "c0ffee", "parity": {}},
        )
        settings = self.context.settings
        sign_package(package, load_or_create_key(settings.signing_key, settings.trusted_signers))
        return package


def npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release(StageContext.open(load_settings("sample", environment={"PIPELINE_HOME": str(tmp_path)})), tmp_path)
