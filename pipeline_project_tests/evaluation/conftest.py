"""A small real world: days of images with labels, a dataset version, a trained network, and a signed package that tells colours apart."""

import io
import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pipeline_project.contracts import SPLITS, DatasetVersion, DayVerdict, ManifestRow, PackageManifest, SplitRow
from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.imaging import FEATURE_NAMES, measure
from pipeline_project.packaging.package import file_digests, sign_package
from pipeline_project.settings import Settings, load_settings
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact
from pipeline_project.tables import frame_to_parquet, records_to_parquet
from pipeline_project.trust.signing import load_or_create_key
from pipeline_project_tests.packed import publish_pack

SIZE, CELL, ROWS = 32, 4, 96
CLASSES = ["red", "green", "blue"]
DAY = "2026-11-05"


def colour_images(count: int = ROWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(images, class_index): a blob of the class's colour somewhere on grey noise."""
    random = np.random.default_rng(seed)
    classes = np.arange(count) % len(CLASSES)
    images = np.repeat(random.integers(60, 150, (count, SIZE, SIZE, 1)), 3, axis=3)
    for image, c in zip(images, classes, strict=True):
        x, y = random.integers(2, SIZE - 14, 2)
        image[y : y + 12, x : x + 12] = np.where(np.arange(3) == c, 210, 50) + random.integers(-20, 20, (12, 12, 1))
    return images.astype(np.uint8), classes.astype(np.int64)


def colour_graph() -> tuple[bytes, dict[str, np.ndarray]]:
    """A graph with the package's contract, and its head: each feature map is how much one colour exceeds the others."""
    head = {
        "w1": np.eye(3, dtype=np.float32) * 60,
        "b1": np.zeros(3, np.float32),
        "w2": (np.eye(3) * 1.5 - 0.5).astype(np.float32),
        "b2": np.zeros(3, np.float32),
    }
    kernel = (np.eye(3) * 1.5 - 0.5).reshape(3, 3, 1, 1).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["convolved"]),
        helper.make_node("Relu", ["convolved"], ["positive"]),
        helper.make_node("AveragePool", ["positive"], ["feature_map"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("ReduceMean", ["feature_map"], ["features"], axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["features", "w1", "b1"], ["hidden"], transB=1),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "w2", "b2"], ["logits"], transB=1),
    ]
    weights = {"scale": np.array(1 / 255, np.float32), "kernel": kernel, **head}
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIZE, SIZE, 3])],
        [
            helper.make_tensor_value_info("logits", floats, ["n", 3]),
            helper.make_tensor_value_info("features", floats, ["n", 3]),
            helper.make_tensor_value_info("feature_map", floats, ["n", 3, SIZE // CELL, SIZE // CELL]),
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString(), head


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def package_files(dataset: str = "0" * 64, weights: str = "0" * 64) -> dict[str, bytes]:
    """The payload of a model_package."""
    graph, head = colour_graph()
    files = {
        "model.onnx": graph,
        "model.fp32.onnx": graph,
        "head.npz": npz(**head),
        "reference.npz": npz(features=np.zeros((4, 3), np.float16), class_index=np.zeros(4, np.int64)),
    }
    manifest = PackageManifest(
        architecture="small_cnn",
        classes=CLASSES,
        image_size=SIZE,
        resample="bilinear",
        temperature=1.0,
        variant="fp32",
        graph="model.onnx",
        validation_accuracy={"fp32": 0.95, "trained": 0.95},
        training_class_shares=[0.333333, 0.333333, 0.333334],
        dataset_version=dataset,
        weights=weights,
        files=file_digests(files),
    )
    return {"package.json": canonical_json(manifest.model_dump(mode="json")), **files}


@pytest.fixture
def good_files() -> dict[str, bytes]:
    """The payload of a good model_package."""
    return package_files()


@dataclass(frozen=True)
class World:
    """A context with every input of the evaluation stage, and where the originals lie."""

    context: StageContext
    source: Path
    package: Artifact
    dataset: Artifact


def make_settings(home: Path, source: Path) -> Settings:
    """The sample's settings with three colours as classes and small, short measurements."""
    base = load_settings("sample", environment={"PIPELINE_HOME": str(home)})
    parts = {
        "data": {"source": str(source), "classes": CLASSES, "slice_columns": ["region"]},
        "image": {"size": SIZE},
        "gates": {"min_slice_size": 20, "max_expected_calibration_error": 0.5},
        "evaluation": {"explained_images": 12, "load_test_s": 1.0, "load_test_connections": 2},
    }
    changed = {name: getattr(base, name).model_copy(update=update) for name, update in parts.items()}
    return base.model_copy(update=changed)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Built once; tests that publish anything else use stores of their own."""
    root = tmp_path_factory.mktemp("world")
    return build_world(root)


def build_world(root: Path) -> World:
    source = root / "catalogue"
    (source / DAY).mkdir(parents=True)
    context = StageContext.open(make_settings(root / "home", source))
    images, classes = colour_images()
    dataset = _publish_data(context, source, images, classes)
    weights = _publish_network(context)
    files = package_files(dataset.digest, weights.files["weights.safetensors"])
    package = context.artifacts.publish("model_package", files, info={"trained_model": weights.digest})
    sign_package(package, load_or_create_key(context.settings.signing_key, context.settings.trusted_signers))
    return World(context, source, package, dataset)


def _publish_data(context: StageContext, source: Path, images: np.ndarray, classes: np.ndarray) -> Artifact:
    rows, measured, splits = [], [], []
    labels = classes.copy()
    labels[::24] = (labels[::24] + 1) % len(CLASSES)  # a few wrong labels: nobody is perfect
    for i, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG")
        data, key = buffer.getvalue(), f"{DAY}/image-{i:03d}.png"
        (source / key).write_bytes(data)
        image_id = sha256_bytes(data)
        rows.append(
            ManifestRow(
                image_id=image_id,
                key=key,
                label=CLASSES[labels[i]],
                width=SIZE,
                height=SIZE,
                mode="RGB",
                format="PNG",
                size=len(data),
                perceptual_hash=f"{i:016x}",
                attributes={"region": ["north", "south", "east"][i // 3 % 3]},
            )
        )
        measured.append({"image_id": image_id, **measure(image, 1.0)})
        split = "test" if i < ROWS - 6 else SPLITS[i % 2]
        splits.append(
            SplitRow(image_id=image_id, day=date.fromisoformat(DAY), pack_row=i, class_index=int(labels[i]), group=image_id, split=split)
        )
    verdict = DayVerdict(
        day=date.fromisoformat(DAY), passed=True, objects=len(rows), accepted=len(rows), rejected=0, reject_rate=0, reasons=[]
    )
    publish = context.artifacts.publish
    manifest = publish(
        "validated_manifest",
        {"manifest.parquet": records_to_parquet(rows, ManifestRow), "verdict.json": canonical_json(verdict.model_dump(mode="json"))},
        partition=DAY,
    )
    pack = publish_pack(context, DAY, manifest, rows, images)
    table = pd.DataFrame(measured)[["image_id", *FEATURE_NAMES]]
    features = publish("image_features", {"features.parquet": frame_to_parquet(table)}, partition=DAY)
    version = DatasetVersion(
        days={DAY: manifest.digest},
        packs={DAY: pack.digest},
        features={DAY: features.digest},
        left_out_days={"2026-11-06": "too many rejects"},
        left_out_images={},
        parent=None,
        classes=CLASSES,
        counts={split: dict.fromkeys(CLASSES, 1) for split in SPLITS},
        largest_group=1,
    )
    return publish(
        "dataset_splits",
        {"splits.parquet": records_to_parquet(splits, SplitRow), "dataset.json": canonical_json(version.model_dump(mode="json"))},
    )


def _publish_network(context: StageContext) -> Artifact:
    """A network of the real architecture with random weights: the attack through it transfers badly, which is measured, not assumed."""
    import torch
    from safetensors.torch import save

    from pipeline_project.training.models import build_model

    torch.manual_seed(0)
    network = build_model(context.settings.model, len(CLASSES), dropout=0.0)
    record = {
        "model": context.settings.model.model_dump(mode="json"),
        "classes": CLASSES,
        "hyperparameters": {"learning_rate": 0.003, "batch_size": 60, "dropout": 0.0},
    }
    return context.artifacts.publish(
        "trained_model",
        {"weights.safetensors": save(dict(network.state_dict())), "training.json": json.dumps(record).encode()},
    )
