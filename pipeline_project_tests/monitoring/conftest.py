"""A project with real stored records: training measurements, a signed package, documents, prediction and truth segments."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline_project.contracts import DatasetVersion, DesiredState, PackageManifest, PredictionRecord, Route, TruthRecord
from pipeline_project.digests import canonical_json
from pipeline_project.imaging import FEATURE_NAMES
from pipeline_project.packaging.package import file_digests, sign_package
from pipeline_project.settings import load_settings
from pipeline_project.stage import StageContext
from pipeline_project.tables import frame_to_parquet
from pipeline_project.trust.signing import load_or_create_key

CLASSES = ["electronics", "clothing", "home", "books", "toys"]
WIDTH = 8
DAY = date(2026, 11, 20)


def measurements(random: np.random.Generator, count: int, shift: float = 0.0) -> pd.DataFrame:
    """Correlated features with long tails and ties, as those of images are."""
    common = random.beta(3, 3, size=(count, 1))
    table = np.clip(common * 0.6 + random.beta(2, 2, size=(count, len(FEATURE_NAMES))) * 0.4 + shift, 0, 1)
    table[:, FEATURE_NAMES.index("edge_density")] = random.exponential(0.05, size=count)
    table[:, FEATURE_NAMES.index("aspect")] = np.where(random.random(count) < 0.7, 0, random.normal(0, 0.3, size=count))
    return pd.DataFrame(table, columns=FEATURE_NAMES)


@dataclass
class World:
    context: StageContext
    log: list[str] = field(default_factory=list)
    sequences: dict[str, int] = field(default_factory=dict)

    def publish_package(self, seed: int = 0, training_rows: int = 1000) -> str:
        random = np.random.default_rng(seed)
        table = measurements(random, training_rows).assign(image_id=[f"{i:064x}" for i in range(training_rows)])
        artifacts = self.context.artifacts
        features = artifacts.publish("image_features", {"features.parquet": frame_to_parquet(table)}, partition="2026-11-01")
        rows = pd.DataFrame({"image_id": table["image_id"], "day": "2026-11-01", "pack_row": range(training_rows), "split": "train"})
        version = DatasetVersion(
            days={"2026-11-01": "1" * 64},
            packs={"2026-11-01": "2" * 64},
            features={"2026-11-01": features.digest},
            left_out_days={},
            left_out_images={},
            parent=None,
            classes=CLASSES,
            counts={"train": {}, "validation": {}, "test": {}},
            largest_group=1,
        )
        payload = {"splits.parquet": frame_to_parquet(rows), "dataset.json": canonical_json(version.model_dump(mode="json"))}
        dataset = artifacts.publish("dataset_splits", payload)
        files = {
            "model.onnx": b"graph",
            "head.npz": npz(
                w1=random.normal(size=(4, WIDTH)), b1=random.normal(size=4), w2=random.normal(size=(5, 4)), b2=random.normal(size=5)
            ),
            "reference.npz": npz(features=random.normal(size=(150, WIDTH)).astype(np.float16), class_index=np.arange(150) % 5),
        }
        manifest = PackageManifest(
            architecture="small_cnn",
            classes=CLASSES,
            image_size=48,
            resample="bilinear",
            temperature=1.0,
            variant="fp32",
            graph="model.onnx",
            validation_accuracy={"fp32": 0.9},
            training_class_shares=[0.2] * 5,
            dataset_version=dataset.digest,
            weights=f"{seed:064x}",
            files=file_digests(files),
        )
        package = artifacts.publish("model_package", {**files, "package.json": manifest.model_dump_json().encode()})
        settings = self.context.settings
        sign_package(package, load_or_create_key(settings.signing_key, settings.trusted_signers))
        return package.digest

    def records(
        self, package: str, count: int, *, seed: int = 0, day: date = DAY, shift: float = 0.0, **changes: Any
    ) -> list[PredictionRecord]:
        """Answered requests of one worker, evenly over the day; `shift` moves brightness and the like, and the model's features."""
        random = np.random.default_rng((seed, 7))
        worker = str(changes.pop("worker", "worker-a"))
        table = measurements(random, count, shift)
        features = random.normal(size=(count, WIDTH)) + 4 * shift
        found = []
        for i in range(count):
            self.sequences[worker] = self.sequences.get(worker, 0) + 1
            chosen = CLASSES[int(random.integers(5))]
            values: dict[str, Any] = {
                "request_id": f"{day}-{worker}-{self.sequences[worker]}",
                "time": datetime(day.year, day.month, day.day, 8, tzinfo=UTC) + timedelta(seconds=i),
                "environment": "production",
                "worker": worker,
                "sequence": self.sequences[worker],
                "document": 1,
                "route": "champion",
                "package": package,
                "image_id": "0" * 64,
                "status": 200,
                "predicted_class": chosen,
                "confidence": 0.9,
                "probabilities": [0.9 if name == chosen else 0.025 for name in CLASSES],
                "latency_ms": 20.0 + float(random.exponential(5)),
                "measurements": {name: float(table.iloc[i][name]) for name in FEATURE_NAMES},
                "features": features[i].round(4).tolist(),
            }
            found.append(PredictionRecord(**{**values, **changes}))
        return found

    def write(self, records: list[PredictionRecord], *, segment: int = 1, day: date = DAY) -> None:
        for worker in {record.worker for record in records}:
            mine = [record for record in records if record.worker == worker]
            key = f"features/prediction-segments/{mine[0].environment}/{day}/{worker}-{segment:05d}.jsonl"
            self.context.artifacts.bytes.write(key, b"".join(record.model_dump_json().encode() + b"\n" for record in mine))

    def write_truth(self, pairs: list[tuple[str, str]], *, day: date = DAY, name: str = "truth", hour: int = 9) -> None:
        received = datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
        lines = [
            TruthRecord(request_id=request, label=label, source="test", received=received + timedelta(milliseconds=i)).model_dump_json()
            for i, (request, label) in enumerate(pairs)
        ]
        key = f"features/truth-segments/production/{day}/{name}-00001.jsonl"
        self.context.artifacts.bytes.write(key, "".join(line + "\n" for line in lines).encode())

    def deploy(self, number: int, day: date, **weights: tuple[str, float]) -> None:
        routes = [Route(name=name, package=package, weight=weight) for name, (package, weight) in weights.items()]  # type: ignore[arg-type]
        created = datetime(day.year, day.month, day.day, tzinfo=UTC)
        document = DesiredState(environment="production", number=number, routes=routes, reason="test", author="Ada", created=created)
        key = f"artifacts/deployments/production/documents/{number:08d}.json"
        self.context.artifacts.bytes.create(key, document.model_dump_json().encode())

    def truth_of(self, records: list[PredictionRecord], right: Callable[[int], bool]) -> list[tuple[str, str]]:
        wrong = {name: CLASSES[(i + 1) % 5] for i, name in enumerate(CLASSES)}
        answered = [record for record in records if record.predicted_class]
        return [
            (r.request_id, r.predicted_class if right(i) else wrong[r.predicted_class]) for i, r in enumerate(answered) if r.predicted_class
        ]


def npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


@pytest.fixture
def world(tmp_path: Path) -> World:
    # Nothing listens on port 9: every report must come out without MLflow, and quickly.
    environment = {"PIPELINE_HOME": str(tmp_path), "PIPELINE__TRACKING__URI": "http://127.0.0.1:9"}
    log: list[str] = []
    return World(StageContext.open(load_settings("sample", environment=environment), log.append), log)
