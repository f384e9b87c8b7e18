"""The model package, as the server takes it: nothing is parsed before a trusted signature over it holds.

A package is the artefact `model_package`. Its `package.json` lists the SHA-256 of every other file, and the sidecar `signature.json`
signs the exact bytes of `package.json`; so one signature covers the graph, the head and the reference.
"""

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from pydantic import ValidationError

from pipeline_project.contracts import PackageManifest
from pipeline_project.digests import payload_digest, sha256_bytes
from pipeline_project.storage import Artifact, ArtifactStore
from pipeline_project.trust.signing import Signature, UntrustedError, sign, verify

NAME = "model_package"
MANIFEST_FILE = "package.json"
HEAD_FILE = "head.npz"
REFERENCE_FILE = "reference.npz"
FULL_PRECISION_FILE = "model.fp32.onnx"
SIGNATURE_FILE = "signature.json"
_KNOWN_FILES = frozenset({MANIFEST_FILE, HEAD_FILE, REFERENCE_FILE, FULL_PRECISION_FILE, "model.onnx"})

FloatArray = NDArray[np.float32]


class PackageError(ValueError):
    """A package cannot be used: it is missing, incomplete or not what it says."""


@dataclass(frozen=True)
class Head:
    """The classifier head Linear -> ReLU -> Linear, float32: logits = w2 @ relu(w1 @ features + b1) + b2.

    Shapes: w1 (H, D), b1 (H), w2 (C, H), b2 (C), for D pooled features, H hidden units and C classes.
    """

    w1: FloatArray
    b1: FloatArray
    w2: FloatArray
    b2: FloatArray


@dataclass(frozen=True)
class Reference:
    """The validation split as the model sees it: pooled features (N, D) float16 and the true class index (N)."""

    features: NDArray[np.float16]
    class_index: NDArray[np.int64]


@dataclass(frozen=True)
class LoadedPackage:
    """A verified package. `graph` is the served ONNX graph's bytes; `signer` the owner of the trusted key that signed it."""

    digest: str
    manifest: PackageManifest
    graph: bytes
    head: Head
    reference: Reference
    signer: str


def sign_package(artifact: Artifact, key: Ed25519PrivateKey) -> Signature:
    """Sign a published package and store the signature beside it (outside the payload digest)."""
    signature = sign(artifact.read(MANIFEST_FILE), key)
    artifact.add_sidecar(SIGNATURE_FILE, signature.model_dump_json().encode())
    return signature


def load_package(artifacts: ArtifactStore, digest: str, trusted_signers: Path) -> LoadedPackage:
    """Fetch a package by digest, verify all of it, and only then parse it.

    Args:
        digest: of the model_package artefact, 64 hexadecimal digits.
        trusted_signers: folder of public keys whose packages may be served.

    Raises:
        UntrustedError: unsigned, signed by a key nobody here trusts, or changed after signing.
        PackageError: missing, incomplete, or its parts do not fit together.
    """
    artifact = _find(artifacts, digest)
    where = f"package {digest[:12]}"
    manifest_bytes = _read(artifact, MANIFEST_FILE, where)
    signer = _verify_signature(artifact, manifest_bytes, trusted_signers, where)
    try:
        manifest = PackageManifest.model_validate_json(manifest_bytes)
    except ValidationError as error:
        raise PackageError(f"{where}: {MANIFEST_FILE} is not one this server knows: {error}. Build the package again.") from None
    listed = {file: sha for file, sha in artifact.files.items() if file != MANIFEST_FILE}
    if manifest.files != listed:
        names = sorted(file for file in manifest.files.keys() | listed.keys() if manifest.files.get(file) != listed.get(file))
        raise UntrustedError(f"{where}: the signed list of files differs from the stored files in {', '.join(names)}. Build it again.")
    if manifest.graph not in (FULL_PRECISION_FILE, "model.onnx"):
        raise PackageError(f"{where}: names {manifest.graph!r} as its graph; known are model.onnx and {FULL_PRECISION_FILE}.")
    kept = {file: data for file in sorted(listed) if (data := _read(artifact, file, where)) and file != FULL_PRECISION_FILE}
    if manifest.graph not in kept:
        kept[manifest.graph] = _read(artifact, manifest.graph, where)
    head = _head(_arrays(kept[HEAD_FILE], f"{where}: {HEAD_FILE}"), len(manifest.classes), where)
    reference = _reference(_arrays(kept[REFERENCE_FILE], f"{where}: {REFERENCE_FILE}"), head, where)
    return LoadedPackage(digest, manifest, kept[manifest.graph], head, reference, signer)


def _find(artifacts: ArtifactStore, digest: str) -> Artifact:
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise PackageError(f"{digest[:80]!r} is not a package digest: 64 hexadecimal digits are needed.")
    where = f"package {digest[:12]}"
    try:
        artifact = artifacts.version(NAME, digest)
    except FileNotFoundError as error:
        raise PackageError(f"{where}: {error} Materialize {NAME} first.") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:  # the record is as hostile as any other stored byte
        raise PackageError(f"{where}: its record is damaged ({error}). Materialize {NAME} again.") from None
    if artifact.digest != digest or artifact.name != NAME or payload_digest(artifact.files) != digest:
        raise UntrustedError(f"{where}: the stored record is of another package. Materialize {NAME} again.")
    unknown = sorted(set(artifact.files) - _KNOWN_FILES)
    if unknown:
        raise PackageError(f"{where}: holds unknown files: {', '.join(map(repr, unknown))}. Known: {', '.join(sorted(_KNOWN_FILES))}.")
    missing = sorted({MANIFEST_FILE, HEAD_FILE, REFERENCE_FILE} - set(artifact.files))
    if missing:
        raise PackageError(f"{where}: lacks {', '.join(missing)}. Materialize {NAME} again.")
    return artifact


def _read(artifact: Artifact, file: str, where: str) -> bytes:
    try:
        return artifact.read(file)
    except FileNotFoundError:
        raise PackageError(f"{where}: {file} is missing from {artifact.uri}. Materialize {NAME} again.") from None
    except KeyError as error:
        raise PackageError(f"{where}: {error.args[0]}. Materialize {NAME} again.") from None
    except ValueError as error:
        raise UntrustedError(f"{where}: {error}") from None


def _verify_signature(artifact: Artifact, manifest_bytes: bytes, trusted_signers: Path, where: str) -> str:
    try:
        signature = Signature.model_validate_json(artifact.sidecar(SIGNATURE_FILE))
    except FileNotFoundError:
        raise UntrustedError(f"{where}: it is not signed. Materialize {NAME} again with a signing key that this server trusts.") from None
    except ValidationError:
        raise UntrustedError(f"{where}: {SIGNATURE_FILE} is damaged. Materialize {NAME} again.") from None
    try:
        return verify(manifest_bytes, signature, trusted_signers)
    except UntrustedError as error:
        raise UntrustedError(f"{where}: {error}") from None


def _arrays(data: bytes, where: str) -> dict[str, NDArray[np.generic]]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError) as error:
        raise PackageError(f"{where}: not a NumPy archive without pickles: {error}") from None


def _head(arrays: dict[str, NDArray[np.generic]], classes: int, where: str) -> Head:
    if set(arrays) != {"w1", "b1", "w2", "b2"}:
        raise PackageError(f"{where}: {HEAD_FILE} must hold w1, b1, w2, b2; it holds {', '.join(sorted(arrays))}.")
    head = Head(**{name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()})
    fits = (
        head.w1.ndim == 2
        and head.b1.shape == head.w1.shape[:1]
        and head.w2.shape == (classes, head.w1.shape[0])
        and head.b2.shape == (classes,)
        and all(np.isfinite(array).all() for array in (head.w1, head.b1, head.w2, head.b2))
    )
    if not fits:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in sorted(arrays.items()))
        raise PackageError(f"{where}: {HEAD_FILE} does not fit {classes} classes, or is not finite: {shapes}.")
    return head


def _reference(arrays: dict[str, NDArray[np.generic]], head: Head, where: str) -> Reference:
    if not {"features", "class_index"} <= set(arrays):
        raise PackageError(f"{where}: {REFERENCE_FILE} must hold features and class_index; it holds {', '.join(sorted(arrays))}.")
    features, class_index = arrays["features"].astype(np.float16), arrays["class_index"].astype(np.int64)
    if features.ndim != 2 or features.shape[1] != head.w1.shape[1] or class_index.shape != features.shape[:1]:
        raise PackageError(f"{where}: {REFERENCE_FILE} has features {features.shape} and class_index {class_index.shape}.")
    if class_index.size and not 0 <= class_index.min() <= class_index.max() < head.b2.size:
        raise PackageError(f"{where}: {REFERENCE_FILE} has a class index outside 0-{head.b2.size - 1}.")
    return Reference(features, class_index)


def file_digests(payload: dict[str, bytes]) -> dict[str, str]:
    """What `PackageManifest.files` must say of a payload: the SHA-256 of every file but `package.json`."""
    return {file: sha256_bytes(data) for file, data in payload.items() if file != MANIFEST_FILE}
