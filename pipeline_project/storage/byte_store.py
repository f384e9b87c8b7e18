"""Bytes under keys, in a folder or on S3. Every write is atomic: a reader sees the old bytes, the new ones, or nothing.

Keys are relative, `/`-separated, and may not leave the store.
"""

import json
import os
import secrets
from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client  # type: ignore[import-not-found,unused-ignore]

_DRAFT = ".draft-"


class AlreadyExistsError(FileExistsError):
    """`create` found the key taken."""


class ByteStore(ABC):
    """What every stage may do with stored bytes."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """The bytes of a key. Raises `FileNotFoundError`."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Set a key's bytes, replacing what was there, all at once."""

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


def _checked(key: str) -> str:
    path = PurePosixPath(key)
    if not path.parts or path.is_absolute() or path.as_posix() != key or ".." in path.parts or "\\" in key or "\0" in key:
        raise ValueError(f"{key!r} is not a store key: keys are relative and stay inside the store.")
    return key


class FolderStore(ByteStore):
    """A folder of a local or shared file system."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, key: str) -> bytes:
        return (self.root / _checked(key)).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        draft, path = self._draft(key, data)
        draft.replace(path)

    def create(self, key: str, data: bytes) -> None:
        draft, path = self._draft(key, data)
        try:
            os.link(draft, path)  # fails when the name is taken, unlike a rename
        except FileExistsError:
            raise AlreadyExistsError(f"{key} exists already in {self.root}") from None
        finally:
            draft.unlink()

    def exists(self, key: str) -> bool:
        return (self.root / _checked(key)).is_file()

    def list(self, prefix: str) -> list[str]:
        above = prefix.rpartition("/")[0]
        folder = self.root / (_checked(above) if above else "")
        found = (
            path.relative_to(self.root).as_posix()
            for path in (folder.rglob("*") if folder.is_dir() else ())
            if path.is_file() and not path.name.startswith(_DRAFT)
        )
        return sorted(key for key in found if key.startswith(prefix))

    def delete(self, key: str) -> None:
        (self.root / _checked(key)).unlink(missing_ok=True)

    def local_path(self, key: str) -> Path:
        path = self.root / _checked(key)
        if not path.is_file():
            raise FileNotFoundError(f"{key}: not in {self.root}")
        return path

    @property
    def uri(self) -> str:
        return str(self.root)

    def _draft(self, key: str, data: bytes) -> tuple[Path, Path]:
        path = self.root / _checked(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{_DRAFT}{secrets.token_hex(8)}")
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return draft, path


class S3Store(ByteStore):
    """A prefix of an S3 bucket, on AWS or any endpoint with conditional writes."""

    def __init__(self, bucket: str, prefix: str, *, cache: Path, endpoint_url: str | None = None, encryption: str = "none") -> None:
        import boto3
        from botocore.config import Config

        self._client: S3Client = boto3.client(
            "s3", endpoint_url=endpoint_url, config=Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=10)
        )
        self._bucket, self._prefix, self._cache = bucket, prefix, cache
        self._encryption = {} if encryption == "none" else {"ServerSideEncryption": encryption}

    def read(self, key: str) -> bytes:
        try:
            body: bytes = self._client.get_object(Bucket=self._bucket, Key=self._key(key))["Body"].read()
        except self._client.exceptions.NoSuchKey:
            raise FileNotFoundError(f"{key}: not in {self.uri}") from None
        return body

    def write(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data, **self._encryption)

    def create(self, key: str, data: bytes) -> None:
        from botocore.exceptions import ClientError

        try:
            self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data, IfNoneMatch="*", **self._encryption)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
                raise AlreadyExistsError(f"{key} exists already in {self.uri}") from None
            raise

    def exists(self, key: str) -> bool:
        return self._head(key) is not None

    def list(self, prefix: str) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + prefix)
        return sorted(entry["Key"].removeprefix(self._prefix) for page in pages for entry in page.get("Contents", []))

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=self._key(key))

    def local_path(self, key: str) -> Path:
        head = self._head(key)
        if head is None:
            raise FileNotFoundError(f"{key}: not in {self.uri}")
        path = self._cache / sha256_bytes(f"{self.uri}{key}{head['ETag']}".encode())[:32] / PurePosixPath(key).name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f"{_DRAFT}{secrets.token_hex(8)}")
            self._client.download_file(self._bucket, self._key(key), str(draft))
            draft.replace(path)
        return path

    @property
    def uri(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}"

    def _key(self, key: str) -> str:
        return self._prefix + _checked(key)

    def _head(self, key: str) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        try:
            return dict(self._client.head_object(Bucket=self._bucket, Key=self._key(key)))
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise


def open_store(settings: Settings) -> ByteStore:
    """The store that the settings name. Opening neither connects nor creates anything."""
    root = settings.store_root
    if "://" not in root:
        return FolderStore(Path(root))
    scheme, _, rest = root.partition("://")
    if scheme != "s3":
        raise ValueError(f"store.root: {root}: the scheme must be s3, or no scheme for a folder.")
    bucket, _, prefix = rest.partition("/")
    return S3Store(
        bucket,
        prefix if not prefix or prefix.endswith("/") else f"{prefix}/",
        cache=settings.home / "cache",
        endpoint_url=settings.store.endpoint_url,
        encryption=settings.store.encryption,
    )
