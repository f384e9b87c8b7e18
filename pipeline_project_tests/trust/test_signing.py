"""Keys and signatures: who signed exact bytes, and who is believed."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from pipeline_project.trust.signing import (
    Signature,
    UntrustedError,
    key_id,
    load_or_create_key,
    load_private_key,
    sign,
    trust_key,
    trusted_keys,
    verify,
)


def test_signed_bytes_name_their_signer(tmp_path: Path) -> None:
    key = load_or_create_key(tmp_path / "keys" / "anna.pem", tmp_path / "trust")
    assert verify(b"package", sign(b"package", key), tmp_path / "trust") == "anna"


@pytest.mark.parametrize("data", [b"packagE", b"package ", b""])
def test_changed_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    signature = sign(b"package", load_or_create_key(tmp_path / "anna.pem", tmp_path / "trust"))
    with pytest.raises(UntrustedError, match="by anna .* does not match"):
        verify(data, signature, tmp_path / "trust")


@pytest.mark.parametrize("value", ["", "AAAA", "not base64!", "é", "A" * 88])
def test_changed_signature_is_refused(tmp_path: Path, value: str) -> None:
    key = load_or_create_key(tmp_path / "anna.pem", tmp_path / "trust")
    with pytest.raises(UntrustedError):
        verify(b"x", Signature(key_id=key_id(key.public_key()), value=value), tmp_path / "trust")


@pytest.mark.parametrize("trust_exists", [True, False])
def test_unknown_key_is_refused(tmp_path: Path, trust_exists: bool) -> None:
    if trust_exists:
        load_or_create_key(tmp_path / "anna.pem", tmp_path / "trust")
    stranger = load_or_create_key(tmp_path / "stranger.pem")
    with pytest.raises(UntrustedError, match=r"which is not in .*trust"):
        verify(b"x", sign(b"x", stranger), tmp_path / "trust")


def test_stranger_cannot_borrow_a_trusted_key_id(tmp_path: Path) -> None:
    anna = load_or_create_key(tmp_path / "anna.pem", tmp_path / "trust")
    forged = sign(b"x", load_or_create_key(tmp_path / "stranger.pem")).model_copy(update={"key_id": key_id(anna.public_key())})
    with pytest.raises(UntrustedError, match="does not match"):
        verify(b"x", forged, tmp_path / "trust")


def test_key_stays_the_same_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "anna.pem"
    first = load_or_create_key(path)
    assert key_id(load_or_create_key(path).public_key()) == key_id(first.public_key())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["anna.pem"], "no draft is left behind"


def test_concurrent_first_uses_give_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(12) as pool:
        keys = list(pool.map(lambda _: load_or_create_key(tmp_path / "k.pem", tmp_path / "trust"), range(12)))
    assert len({key_id(key.public_key()) for key in keys}) == 1
    assert len(trusted_keys(tmp_path / "trust")) == 1


def test_missing_key_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nokey\.pem: no such key.*pipeline keys create"):
        load_private_key(tmp_path / "nokey.pem")


def test_files_that_are_no_private_key_are_named(tmp_path: Path) -> None:
    other = generate_private_key(SECP256R1())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked = serialization.BestAvailableEncryption(b"secret")
    for content in (b"hello", other.private_bytes(pem, pkcs8, serialization.NoEncryption()), other.private_bytes(pem, pkcs8, locked)):
        (tmp_path / "bad.pem").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.pem: not an Ed25519 private key"):
            load_private_key(tmp_path / "bad.pem")


def test_strange_file_in_the_trust_folder_is_named(tmp_path: Path) -> None:
    trust_key(load_or_create_key(tmp_path / "anna.pem").public_key(), tmp_path / "trust", "anna")
    (tmp_path / "trust" / "notes.pem").write_text("call Bob")
    with pytest.raises(ValueError, match=r"notes\.pem: not an Ed25519 public key"):
        trusted_keys(tmp_path / "trust")
