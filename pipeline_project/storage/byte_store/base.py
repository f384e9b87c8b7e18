"""Bytes under keys, in a folder or on S3. Every write is atomic: a reader sees the old bytes, the new ones, or nothing.

Keys are relative, `/`-separated, and may not leave the store.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline_project.digests import canonical_json

DRAFT = ".draft-"  # names of files that are not whole yet begin with it


class AlreadyExistsError(FileExistsError):
    """`create` found the key taken."""


@dataclass(frozen=True)
class StoredKey:
    """A key as a listing shows it: its size in bytes, and when its bytes were last set (by the store's clock, UTC)."""

    key: str
    size: int
    modified: datetime


class ByteStore(ABC):
    """What every stage may do with stored bytes.

    Every method raises `StoreError` where the store itself fails (full, read-only, out of reach); what was stored before stays whole.
    """

    @abstractmethod
    def read(self, key: str) -> bytes:
        """The bytes of a key. Raises `FileNotFoundError`."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Set a key's bytes, replacing what was there, all at once."""

    @abstractmethod
    def write_file(self, key: str, path: Path) -> None:
        """Set a key's bytes to those of a local file, all at once, without holding them in memory.

        The file stays where it is, and may not be changed afterwards: the store may keep the very same file.
        """

    @abstractmethod
    def create(self, key: str, data: bytes) -> None:
        """Set a key's bytes once. Raises `AlreadyExistsError` when the key exists; of concurrent writers exactly one succeeds."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether the key has bytes."""

    @abstractmethod
    def list(self, prefix: str) -> list[str]:
        """All keys that start with `prefix`, sorted. A prefix without keys gives an empty list."""

    @abstractmethod
    def entries(self, prefix: str) -> Sequence[StoredKey]:
        """What `list` gives, with size and age. A key that is deleted meanwhile may be missing."""

    @abstractmethod
    def drafts(self) -> Sequence[StoredKey]:
        """What killed writers left behind: no keys of anybody, and safe to delete once no writer can be at work on them."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove a key; a missing one is no error."""

    @abstractmethod
    def local_path(self, key: str) -> Path:
        """A local file with the key's bytes, for memory maps and libraries that want a path; read-only. Raises `FileNotFoundError`."""

    @property
    @abstractmethod
    def uri(self) -> str:
        """The store's address, for people and records; without credentials."""

    def read_json(self, key: str) -> Any:
        """The JSON value of a key."""
        return json.loads(self.read(key))

    def write_json(self, key: str, value: Any) -> None:
        """Set a key to a JSON value in canonical form."""
        self.write(key, canonical_json(value))


def checked(key: str) -> str:
    """The key itself. Raises `ValueError` where it is absolute, leaves the store, or has another spelling."""
    path = PurePosixPath(key)
    if not path.parts or path.is_absolute() or path.as_posix() != key or ".." in path.parts or "\\" in key or "\0" in key:
        raise ValueError(f"{key!r} is not a store key: keys are relative and stay inside the store.")
    return key
