"""A released package with its whole chain of evidence, as the stages publish it."""

import io
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline_project.contracts import (
    DatasetVersion,
    DesiredState,
    GateResult,
    GateVerdict,
    ManifestRow,
    Measurement,
    PackageManifest,
    Route,
    SplitRow,
)
from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.evaluation.gates import compliance_settings
from pipeline_project.ingest.sources import source_identity
from pipeline_project.packaging.package import file_digests, sign_package
from pipeline_project.settings import load_settings
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact
from pipeline_project.tables import records_to_parquet
from pipeline_project.training.artifact import architecture_of
from pipeline_project.trust.approvals import ApprovalKind, record_approval, require_unchanged
from pipeline_project.trust.signing import load_or_create_key
from pipeline_project_tests.packed import publish_pack

CLASSES = ["electronics", "clothing", "home", "books", "toys"]


DAY, OTHER_DAY = "2026-11-02", "2026-11-03"


def image_id(name: str) -> str:
    """The id of a made-up image: the digest of what stands for its bytes."""
    return sha256_bytes(name.encode())


@dataclass
class Release:
    context: StageContext
    root: Path
    made: dict[str, Artifact] = field(default_factory=dict)

    def build(self, *, passed: bool = True, approve: bool = True, seed: int = 0) -> str:
        artifacts, settings = self.context.artifacts, self.context.settings
        manifest, pack = self.take_in(DAY, ["a", "b", "c", "d"])
        version = DatasetVersion(
            days={DAY: manifest.digest},
            packs={DAY: pack.digest},
            features={DAY: "3" * 64},
            left_out_days={"2026-11-03": "reject rate 0.20"},
            left_out_images={image_id("d"): "it would join two splits"},
            parent=None,
            classes=CLASSES,
            counts={split: dict.fromkeys(CLASSES, 10) for split in ("train", "validation", "test")},
            largest_group=1,
        )
        rows = [
            SplitRow(image_id=image_id(name), day=DAY, pack_row=row, class_index=row, group=image_id(name), split=split)  # type: ignore[arg-type]
            for row, (name, split) in enumerate((("a", "train"), ("b", "test"), ("c", "validation")))
        ]
        payload = {"splits.parquet": records_to_parquet(rows, SplitRow), "dataset.json": canonical_json(version.model_dump(mode="json"))}
        dataset = self.publish("dataset_splits", payload)
        chosen = {"learning_rate": 0.003, "batch_size": 32, "dropout": 0.2}
        tuned = self.publish("tuned_hyperparameters", {"hyperparameters.json": canonical_json(chosen)})
        weights = f"weights {seed}".encode()
        model = settings.model.model_dump(mode="json")
        self.accept("model_architecture_changes", architecture_of(model, len(CLASSES)))
        trained = self.publish(
            "trained_model",
            {"weights.safetensors": weights, "training.json": canonical_json({"model": model, "classes": CLASSES})},
            info={"dataset": dataset.digest, "tuned_hyperparameters": tuned.digest, "mlflow_run_id": "run-1", "git_commit": "c0ffee"},
        )
        package = self._package(seed, dataset, trained, sha256_bytes(weights))
        scores = {"accuracy": {"value": 0.91, "low": 0.88, "high": 0.94, "size": 150}, "classes": {}}
        report = {"images": 150, "package": package.digest, "dataset": dataset.digest, "performance": scores}
        evaluation = self.publish("evaluation_report", {"evaluation.json": canonical_json(report)}, info={"package": package.digest})
        load_test = self.publish(
            "load_test_report", {"load_test.json": b"{}"}, info={"package": package.digest, "measurements": {"p99_ms": 40}}
        )
        number = Measurement(name="accuracy", value=0.91, threshold=0.85, comparison=">=", passed=passed)
        verdict = GateVerdict(
            passed=passed,
            package=package.digest,
            dataset=dataset.digest,
            evaluation=evaluation.digest,
            load_test=load_test.digest,
            gate_settings=self.accept("compliance_configuration_changes", compliance_settings(settings)),
            gates=[GateResult(gate="model_performance_meets_threshold", passed=passed, evidence=evaluation.digest, measurements=[number])],
        )
        gate = self.publish(
            "release_gate", {"verdict.json": canonical_json(verdict.model_dump(mode="json"))}, info={"package": package.digest}
        )
        registered = self.publish(
            "registered_model",
            {"model.json": canonical_json({"package": package.digest})},
            info={"package": package.digest, "model_name": "products", "model_version": "3", "mlflow_run_id": "run-1"},
        )
        if approve:
            self.approve(package.digest)
        inventory = artifacts.latest("raw_images", DAY)
        named = (inventory, manifest, pack, dataset, tuned, trained, package, evaluation, load_test, gate, registered)
        self.made = {artifact.name: artifact for artifact in named}
        assert settings.profile == "laptop"
        return package.digest

    def publish(self, name: str, payload: dict[str, bytes], **more: Any) -> Artifact:
        """As a Dagster run of its own would."""
        self.context.artifacts.run = f"run-of-{name}"
        artifact = self.context.artifacts.publish(name, payload, **more)
        self.context.artifacts.run = None
        return artifact

    def accept(self, kind: ApprovalKind, subject: dict[str, Any]) -> str:
        return require_unchanged(self.context.artifacts.bytes, self.context.settings.trusted_approvers, kind, subject, "it").subject

    def take_in(self, day: str, names: list[str]) -> tuple[Artifact, Artifact]:
        """A day's inventory, manifest and pack; the images have the classes in order."""
        source = self.accept("data_source_modifications", source_identity(self.context.settings))
        keys = {name: f"{day}/images/{name}.jpg" for name in names}
        listing = {"objects": [{"key": key, "size": 1, "etag": f"etag-{name}"} for name, key in keys.items()]}
        inventory = self.publish("raw_images", {"inventory.json": canonical_json(listing)}, partition=day, info={"source": source})
        rows = [
            ManifestRow(
                image_id=image_id(name), key=keys[name], label=label, width=9, height=9, mode="RGB", format="JPEG", size=1,
                perceptual_hash="0" * 16, attributes={},
            )
            for name, label in zip(names, CLASSES, strict=False)
        ]  # fmt: skip
        table = {"manifest.parquet": records_to_parquet(rows, ManifestRow)}
        manifest = self.publish("validated_manifest", table, partition=day, info={"inventory": inventory.digest})
        self.context.artifacts.run = "run-of-image_pack"
        pack = publish_pack(self.context, day, manifest, rows, np.zeros((len(rows), 48, 48, 3), np.uint8))
        self.context.artifacts.run = None
        return manifest, pack

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
        package = self.publish(
            "model_package",
            {**files, "package.json": manifest.model_dump_json().encode()},
            info={
                "trained_model": trained.digest,
                "dataset": dataset.digest,
                "git_commit": "c0ffee",
                "mlflow_run_id": "run-1",
                "parity": {},
            },
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
