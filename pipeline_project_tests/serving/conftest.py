"""A tiny but real package: an ONNX graph with the package's contract, signed with a fresh key, in a folder store."""

import base64
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pipeline_project.contracts import PackageManifest
from pipeline_project.packaging.package import file_digests, sign_package
from pipeline_project.serving.process import ServerHandle, start_server
from pipeline_project.settings import Settings, load_settings
from pipeline_project.storage import Artifact, ArtifactStore, open_artifacts
from pipeline_project.trust.approvals import record_approval
from pipeline_project.trust.signing import load_or_create_key

SIZE, POOL, WIDTH, HIDDEN = 48, 6, 8, 6
CLASSES = ["electronics", "clothing", "home", "books", "toys"]


def head_arrays(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "w1": random.normal(size=(HIDDEN, WIDTH)).astype(np.float32),
        "b1": random.normal(size=HIDDEN).astype(np.float32) * 0.1,
        "w2": random.normal(size=(len(CLASSES), HIDDEN)).astype(np.float32) * 3,
        "b2": random.normal(size=len(CLASSES)).astype(np.float32) * 0.1,
    }


def make_graph(seed: int = 0, *, fails_on_bright: bool = False) -> bytes:
    """cast -> transpose -> average pool -> 1x1 conv -> ReLU (feature map) -> global average pool -> two Gemm.

    `fails_on_bright`: images of mean brightness above a half make the graph fail, blank ones do not.
    """
    random = np.random.default_rng(seed)
    weights = {
        "scale": np.array(1 / 255, np.float32),
        "conv": random.normal(size=(WIDTH, 3, 1, 1)).astype(np.float32),
        "conv_bias": random.normal(size=WIDTH).astype(np.float32) * 0.1,
        **head_arrays(seed),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["small"], kernel_shape=[POOL, POOL], strides=[POOL, POOL]),
        helper.make_node("Conv", ["small", "conv", "conv_bias"], ["convolved"]),
        helper.make_node("Relu", ["convolved"], ["feature_map"]),
        helper.make_node("GlobalAveragePool", ["feature_map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "w1", "b1"], ["hidden"], transB=1),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "w2", "b2"], ["raw_logits"], transB=1),
    ]
    if fails_on_bright:
        weights |= {"twice": np.array(2, np.float32), "zeros": np.zeros((1,), np.float32)}
        nodes += [
            helper.make_node("ReduceMean", ["scaled"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "twice"], ["doubled"]),
            helper.make_node(
                "Cast", ["doubled"], ["index"], to=TensorProto.INT64
            ),  # 0 for a dark image, 1 (out of bounds) for a bright one
            helper.make_node("Gather", ["zeros", "index"], ["nothing"]),
            helper.make_node("Add", ["raw_logits", "nothing"], ["logits"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["raw_logits"], ["logits"]))
    side = SIZE // POOL
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIZE, SIZE, 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(CLASSES)]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", WIDTH]),
            helper.make_tensor_value_info("feature_map", TensorProto.FLOAT, ["n", WIDTH, side, side]),
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def package_payload(seed: int = 0, *, fails_on_bright: bool = False) -> dict[str, bytes]:
    random = np.random.default_rng(seed)
    graph = make_graph(seed, fails_on_bright=fails_on_bright)
    payload = {
        "model.onnx": graph,
        "model.fp32.onnx": graph,
        "head.npz": npz(**head_arrays(seed)),
        "reference.npz": npz(features=random.normal(size=(20, WIDTH)).astype(np.float16), class_index=np.arange(20) % len(CLASSES)),
    }
    manifest = PackageManifest(
        architecture="small_cnn",
        classes=CLASSES,
        image_size=SIZE,
        resample="bilinear",
        temperature=1.5,
        variant="fp32",
        graph="model.onnx",
        validation_accuracy={"fp32": 0.9},
        training_class_shares=[0.2] * 5,
        dataset_version="0" * 64,
        weights=f"{seed:064x}",
        files=file_digests(payload),
    )
    return {**payload, "package.json": manifest.model_dump_json().encode()}


@dataclass
class Project:
    """A runtime home with a store, a signing key and an approver."""

    settings: Settings
    artifacts: ArtifactStore
    key: Ed25519PrivateKey
    approver: Ed25519PrivateKey

    def publish(self, seed: int = 0, *, fails_on_bright: bool = False) -> Artifact:
        artifact = self.artifacts.publish("model_package", package_payload(seed, fails_on_bright=fails_on_bright))
        sign_package(artifact, self.key)
        return artifact

    def approve(self, digest: str) -> None:
        record_approval(self.artifacts.bytes, self.approver, "production_deployment", digest, approver="Ada", reason="all gates passed")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    settings = load_settings(
        "sample",
        environment={
            "PIPELINE_HOME": str(tmp_path / "home"),
            "PIPELINE__SERVING__HOST": "127.0.0.1",
            "PIPELINE__SERVING__POLL_SECONDS": "0.1",
            "PIPELINE__SERVING__MAX_UPLOAD_BYTES": "300000",
            "PIPELINE__SERVING__STAGING__WORKERS": "2",
            "PIPELINE__SERVING__PRODUCTION__WORKERS": "1",
            "PIPELINE__SERVING__GUARD__MIN_REQUESTS": "10",
        },
    )
    key = load_or_create_key(settings.signing_key, settings.trusted_signers)
    approver = load_or_create_key(settings.home / "keys" / "approver.pem", settings.trusted_approvers)
    return Project(settings, open_artifacts(settings), key, approver)


@pytest.fixture
def serve(project: Project, tmp_path: Path) -> Iterator[Callable[..., ServerHandle]]:
    """Starts servers on free ports and stops them after the test."""
    started: list[ServerHandle] = []

    def start(environment: str = "staging", **arguments: object) -> ServerHandle:
        handle = start_server(project.settings, environment, port=0, log_file=tmp_path / f"{environment}.log", **arguments)  # type: ignore[arg-type]
        started.append(handle)
        return handle

    yield start
    for handle in started:
        handle.stop()


def picture(seed: int = 0, *, side: int = 160, brightness: int | None = None, kind: str = "JPEG") -> bytes:
    """An encoded image with some structure in it."""
    random = np.random.default_rng(seed)
    if brightness is None:
        pixels = np.asarray(Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8)).resize((side, side)))
    else:
        pixels = np.full((side, side, 3), brightness, np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def decode_thumbnail(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))
