"""Ed25519 keys: make, sign, verify. Private keys are PEM files readable by their owner only; trust is a folder of public keys."""

import base64
import os
import re
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict

from pipeline_project.digests import sha256_bytes

_OWNER = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")


class Signature(BaseModel):
    """A detached signature over exact bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    algorithm: str = "ed25519"
    key_id: str
    value: str


class UntrustedError(ValueError):
    """A signature is missing, wrong, or made by a key nobody here trusts."""


def key_id(public: Ed25519PublicKey) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the raw public key."""
    return sha256_bytes(public.public_bytes_raw())[:16]


def key_file(folder: Path, owner: str) -> Path:
    """Where the private key of a person or service lies in a folder of keys.

    Raises:
        ValueError: the name is not one that may name a file.
    """
    if not _OWNER.fullmatch(owner):
        raise ValueError(f"{owner[:80]!r} is not a name of a key: it may have lower-case letters, digits and dashes, at most 48.")
    return folder / f"{owner}.pem"


def load_or_create_key(path: Path, trusted_folder: Path | None = None) -> Ed25519PrivateKey:
    """The private key at `path`, made on first use (mode 0600), its public half published to `trusted_folder`.

    Two processes that start at once end up with the same key: the file is created exclusively.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another process was first; its key is the key
        finally:
            draft.unlink()
    loaded = load_private_key(path)
    if trusted_folder is not None:
        trust_key(loaded.public_key(), trusted_folder, path.stem)
    return loaded


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        ValueError: the file is missing, or is not an Ed25519 key in PEM form.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such key. Make one with `pipeline keys create`, or name another file.")
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # not PEM, or locked by a password
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path}: not an Ed25519 private key. Make one with `pipeline keys create`.")
    return key


def trust_key(public: Ed25519PublicKey, folder: Path, owner: str) -> Path:
    """Publish a public key to a folder of trusted keys, under its owner's name. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{owner}.{key_id(public)}.pem"
    if not path.exists():
        draft = folder / f".{path.name}.{secrets.token_hex(6)}"
        draft.write_bytes(public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
        draft.replace(path)
    return path


def trusted_keys(folder: Path) -> dict[str, tuple[str, Ed25519PublicKey]]:
    """The keys of a trust folder: {key id: (owner, public key)}. A missing folder trusts nobody."""
    found: dict[str, tuple[str, Ed25519PublicKey]] = {}
    for path in sorted(folder.glob("[!.]*.pem")) if folder.is_dir() else []:
        try:
            public = serialization.load_pem_public_key(path.read_bytes())
        except (ValueError, UnsupportedAlgorithm):
            public = None
        if not isinstance(public, Ed25519PublicKey):
            raise ValueError(f"{path}: not an Ed25519 public key. Remove it from the trust folder.")
        found[key_id(public)] = (path.name.split(".")[0], public)
    return found


def sign(data: bytes, key: Ed25519PrivateKey) -> Signature:
    """A detached signature over `data`."""
    return Signature(key_id=key_id(key.public_key()), value=base64.b64encode(key.sign(data)).decode())


def verify(data: bytes, signature: Signature, folder: Path) -> str:
    """Check a signature against a trust folder and return the signer's name.

    Raises:
        UntrustedError: the key is not trusted, or the bytes or the signature were changed.
    """
    owner, public = trusted_keys(folder).get(signature.key_id, (None, None))
    if owner is None or public is None:
        raise UntrustedError(f"signed by key {signature.key_id}, which is not in {folder}. Add its public key there if you trust it.")
    try:
        public.verify(base64.b64decode(signature.value, validate=True), data)
    except (InvalidSignature, ValueError):
        raise UntrustedError(f"the signature by {owner} ({signature.key_id}) does not match the bytes: one of them was changed.") from None
    return owner
