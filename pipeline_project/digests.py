"""SHA-256 digests of bytes, files and JSON values, in one canonical form."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def sha256_bytes(data: bytes) -> str:
    """The 64 hexadecimal digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, read in blocks, so that its size does not matter."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no blanks: equal values give equal bytes. NaN and infinity raise `ValueError`."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=str).encode()


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value's canonical form."""
    return sha256_bytes(canonical_json(value))


def payload_digest(files: Mapping[str, str]) -> str:
    """The digest of an artefact: over its payload files' names and SHA-256 sums, whatever their order."""
    return digest_of(dict(files))
