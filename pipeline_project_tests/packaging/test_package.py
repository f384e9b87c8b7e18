"""A package is believed only whole, signed and unchanged."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline_project.contracts import PackageManifest
from pipeline_project.digests import sha256_bytes
from pipeline_project.packaging.package import PackageError, file_digests, load_package, sign_package
from pipeline_project.storage import ArtifactStore, FolderStore
from pipeline_project.trust.signing import UntrustedError, load_or_create_key


def npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def payload(**changes: bytes) -> dict[str, bytes]:
    random = np.random.default_rng(0)
    head = {"w1": random.normal(size=(4, 3)), "b1": np.zeros(4), "w2": random.normal(size=(2, 4)), "b2": np.zeros(2)}
    files = {
        "model.onnx": b"graph",
        "model.fp32.onnx": b"big graph",
        "head.npz": npz(**head),
        "reference.npz": npz(features=random.normal(size=(5, 3)).astype(np.float16), class_index=np.array([0, 1, 0, 1, 1])),
    } | changes
    manifest = PackageManifest(
        architecture="small_cnn",
        classes=["a", "b"],
        image_size=48,
        resample="bilinear",
        temperature=1,
        variant="fp32",
        graph="model.onnx",
        validation_accuracy={"fp32": 0.9},
        training_class_shares=[0.5, 0.5],
        dataset_version="0" * 64,
        weights="1" * 64,
        files=file_digests(files),
    )
    return {**files, "package.json": manifest.model_dump_json().encode()}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(FolderStore(tmp_path / "store"))


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    load_or_create_key(tmp_path / "keys" / "signer.pem", tmp_path / "trusted")
    return tmp_path / "trusted"


def publish(store: ArtifactStore, tmp_path: Path, files: dict[str, bytes]) -> str:
    artifact = store.publish("model_package", files)
    sign_package(artifact, load_or_create_key(tmp_path / "keys" / "signer.pem"))
    return artifact.digest


def test_a_signed_package_loads_with_all_its_parts(store: ArtifactStore, trusted: Path, tmp_path: Path) -> None:
    package = load_package(store, publish(store, tmp_path, payload()), trusted)
    assert package.graph == b"graph"
    assert package.manifest.classes == ["a", "b"]
    assert package.head.w1.shape == (4, 3)
    assert package.head.w1.dtype == np.float32
    assert package.reference.features.shape == (5, 3)
    assert package.signer == "signer"


@pytest.mark.parametrize("file", ["model.onnx", "model.fp32.onnx", "head.npz", "reference.npz", "package.json"])
def test_one_changed_byte_in_any_file_is_refused(store: ArtifactStore, trusted: Path, tmp_path: Path, file: str) -> None:
    digest = publish(store, tmp_path, payload())
    key = f"artifacts/model_package/all/{digest[:24]}/{file}"
    data = bytearray(store.bytes.read(key))
    data[len(data) // 2] ^= 1
    store.bytes.write(key, bytes(data))
    with pytest.raises(UntrustedError, match=digest[:12]):
        load_package(store, digest, trusted)


def test_files_replaced_together_with_their_record_are_refused(store: ArtifactStore, trusted: Path, tmp_path: Path) -> None:
    """An attacker who can write to the store can also make digests fit; the signature is what stops him."""
    evil = payload()
    evil["model.onnx"] = b"evil graph"
    forged = store.publish("model_package", evil)
    genuine = store.publish("model_package", payload())
    sign_package(genuine, load_or_create_key(tmp_path / "keys" / "signer.pem"))
    forged.add_sidecar("signature.json", genuine.sidecar("signature.json"))
    with pytest.raises(UntrustedError, match=r"differs from the stored files in model\.onnx"):
        load_package(store, forged.digest, trusted)


def test_a_record_that_names_another_digest_is_refused(store: ArtifactStore, trusted: Path, tmp_path: Path) -> None:
    digest = publish(store, tmp_path, payload())
    other = digest[:24] + "0" * 40  # the same folder in the store
    with pytest.raises((UntrustedError, PackageError), match="another"):
        load_package(store, other, trusted)


def test_unsigned_and_strangers_packages_are_refused(store: ArtifactStore, trusted: Path, tmp_path: Path) -> None:
    artifact = store.publish("model_package", payload())
    with pytest.raises(UntrustedError, match="not signed"):
        load_package(store, artifact.digest, trusted)
    sign_package(artifact, load_or_create_key(tmp_path / "keys" / "stranger.pem"))
    with pytest.raises(UntrustedError, match="not in"):
        load_package(store, artifact.digest, trusted)
    artifact.add_sidecar("signature.json", b"{}")
    with pytest.raises(UntrustedError, match="damaged"):
        load_package(store, artifact.digest, trusted)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"notes.txt": b"hello"}, "unknown files: 'notes.txt'"),
        ({"head.npz": npz(w1=np.zeros((4, 3)), b1=np.zeros(4), w2=np.zeros((3, 4)), b2=np.zeros(3))}, "does not fit 2 classes"),
        ({"head.npz": npz(w1=np.full((4, 3), np.nan), b1=np.zeros(4), w2=np.zeros((2, 4)), b2=np.zeros(2))}, "not finite"),
        ({"head.npz": npz(w1=np.zeros((4, 3)))}, "must hold w1, b1, w2, b2"),
        ({"head.npz": b"no archive"}, "not a NumPy archive"),
        ({"head.npz": npz(w1=np.array([print], dtype=object), b1=np.zeros(4), w2=np.zeros((2, 4)), b2=np.zeros(2))}, "pickle"),
        ({"reference.npz": npz(features=np.zeros((5, 9)), class_index=np.zeros(5, int))}, "has features"),
        ({"reference.npz": npz(features=np.zeros((2, 3)), class_index=np.array([0, 7]))}, "outside 0-1"),
    ],
)
def test_signed_nonsense_is_refused_with_its_reason(
    store: ArtifactStore, trusted: Path, tmp_path: Path, files: dict[str, bytes], says: str
) -> None:
    digest = publish(store, tmp_path, payload(**files))
    with pytest.raises(PackageError, match=says):
        load_package(store, digest, trusted)


def test_an_unknown_version_of_the_manifest_is_refused(store: ArtifactStore, trusted: Path, tmp_path: Path) -> None:
    files = payload()
    files["package.json"] = json.dumps(json.loads(files["package.json"]) | {"version": 2}).encode()
    with pytest.raises(PackageError, match="not one this server knows"):
        load_package(store, publish(store, tmp_path, files), trusted)


def test_missing_packages_and_odd_digests_are_refused(store: ArtifactStore, trusted: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="Materialize model_package first"):
        load_package(store, "a" * 64, trusted)
    with pytest.raises(PackageError, match="not a package digest"):
        load_package(store, "../../etc/passwd", trusted)
    digest = publish(store, tmp_path, payload())
    store.bytes.write(f"artifacts/model_package/all/{digest[:24]}/artifact.json", b'{"name": 1}')
    with pytest.raises(PackageError, match="record is damaged"):
        load_package(store, digest, trusted)


def test_the_listed_digests_are_those_of_every_other_file() -> None:
    assert file_digests({"package.json": b"x", "a": b"y"}) == {"a": sha256_bytes(b"y")}
