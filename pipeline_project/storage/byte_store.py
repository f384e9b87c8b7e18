"""Bytes under keys, in a folder or on S3. Every write is atomic: a reader sees the old bytes, the new ones, or nothing.

Keys are relative, `/`-separated, and may not leave the store.
"""

import json
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.settings import Settings
from pipeline_project.storage.errors import StoreError, explain_os_error, explain_s3_error

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client  # type: ignore[import-not-found,unused-ignore]

_DRAFT = ".draft-"


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
        path = self.root / _checked(key)
        with self._telling(f"read {key}"):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                raise FileNotFoundError(f"{key}: not in {self.root}") from None

    def write(self, key: str, data: bytes) -> None:
        with self._draft(key, data) as (draft, path):
            draft.replace(path)

    def create(self, key: str, data: bytes) -> None:
        with self._draft(key, data) as (draft, path):
            try:
                os.link(draft, path)  # fails when the name is taken, unlike a rename
            except FileExistsError:
                raise AlreadyExistsError(f"{key} exists already in {self.root}") from None

    def exists(self, key: str) -> bool:
        path = self.root / _checked(key)
        with self._telling(f"look for {key}"):
            return path.is_file()

    def list(self, prefix: str) -> list[str]:
        above = prefix.rpartition("/")[0]
        folder = self.root / (_checked(above) if above else "")
        with self._telling(f"list {prefix or 'all keys'}"):
            found = [
                path.relative_to(self.root).as_posix()
                for path in (folder.rglob("*") if folder.is_dir() else ())
                if path.is_file() and not path.name.startswith(_DRAFT)
            ]
        return sorted(key for key in found if key.startswith(prefix))

    def entries(self, prefix: str) -> Sequence[StoredKey]:
        found = (self._entry(key) for key in self.list(prefix))
        return [entry for entry in found if entry is not None]

    def drafts(self) -> Sequence[StoredKey]:
        with self._telling("list drafts"):
            names = sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob(f"{_DRAFT}*") if path.is_file())
        found = (self._entry(name) for name in names)
        return [entry for entry in found if entry is not None]

    def delete(self, key: str) -> None:
        path = self.root / _checked(key)
        with self._telling(f"delete {key}"):
            path.unlink(missing_ok=True)

    def local_path(self, key: str) -> Path:
        if not self.exists(key):
            raise FileNotFoundError(f"{key}: not in {self.root}")
        return self.root / key

    @property
    def uri(self) -> str:
        return str(self.root)

    def _entry(self, key: str) -> StoredKey | None:
        with self._telling(f"look for {key}"):
            try:
                found = (self.root / key).stat()
            except FileNotFoundError:
                return None
        return StoredKey(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """The system's errors as `StoreError`; a missing key stays a `FileNotFoundError`."""
        try:
            yield
        except (StoreError, AlreadyExistsError, FileNotFoundError):
            raise
        except OSError as error:
            raise StoreError(what, self.uri, *explain_os_error(error, self.root)) from error

    @contextmanager
    def _draft(self, key: str, data: bytes) -> Iterator[tuple[Path, Path]]:
        """The bytes in a hidden file beside the key's own, and that key's path; the draft never stays."""
        path = self.root / _checked(key)
        draft = path.with_name(f"{_DRAFT}{secrets.token_hex(8)}")
        with self._telling(f"write {key} ({len(data):,} bytes)"):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with draft.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                yield draft, path
            except FileNotFoundError as error:  # the folder was removed meanwhile: no missing key
                raise StoreError(f"write {key}", self.uri, *explain_os_error(error, self.root)) from error
            finally:
                with suppress(OSError):  # renamed, or a path that leads nowhere
                    draft.unlink()


class S3Store(ByteStore):
    """A prefix of an S3 bucket, on AWS or any endpoint with conditional writes."""

    def __init__(self, bucket: str, prefix: str, *, cache: Path, endpoint_url: str | None = None, encryption: str = "none") -> None:
        import boto3
        from botocore.config import Config

        self._client: S3Client = boto3.client(
            "s3", endpoint_url=endpoint_url, config=Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=10)
        )
        self._bucket, self._prefix, self._cache, self._endpoint = bucket, prefix, cache, endpoint_url
        self._encryption = {} if encryption == "none" else {"ServerSideEncryption": encryption}

    def read(self, key: str) -> bytes:
        with self._telling(f"read {key}"):
            try:
                body: bytes = self._client.get_object(Bucket=self._bucket, Key=self._key(key))["Body"].read()
            except self._client.exceptions.NoSuchKey:
                raise FileNotFoundError(f"{key}: not in {self.uri}") from None
        return body

    def write(self, key: str, data: bytes) -> None:
        with self._telling(f"write {key} ({len(data):,} bytes)"):
            self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data, **self._encryption)

    def create(self, key: str, data: bytes) -> None:
        from botocore.exceptions import ClientError

        with self._telling(f"write {key} ({len(data):,} bytes)"):
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
        with self._telling(f"list {prefix or 'all keys'}"):
            return sorted(entry["Key"].removeprefix(self._prefix) for page in pages for entry in page.get("Contents", []))

    def entries(self, prefix: str) -> Sequence[StoredKey]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + prefix)
        with self._telling(f"list {prefix or 'all keys'}"):
            found = [
                StoredKey(entry["Key"].removeprefix(self._prefix), entry["Size"], entry["LastModified"].astimezone(UTC))
                for page in pages
                for entry in page.get("Contents", [])
            ]
        return sorted(found, key=lambda entry: entry.key)

    def drafts(self) -> Sequence[StoredKey]:
        return []  # an object is there whole or not at all

    def delete(self, key: str) -> None:
        with self._telling(f"delete {key}"):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(key))

    def local_path(self, key: str) -> Path:
        head = self._head(key)
        if head is None:
            raise FileNotFoundError(f"{key}: not in {self.uri}")
        path = self._cache / sha256_bytes(f"{self.uri}{key}{head['ETag']}".encode())[:32] / PurePosixPath(key).name
        if not path.is_file():
            draft = path.with_name(f"{_DRAFT}{secrets.token_hex(8)}")
            with self._telling(f"read {key} into {self._cache}"):
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self._client.download_file(self._bucket, self._key(key), str(draft))
                    draft.replace(path)
                finally:
                    draft.unlink(missing_ok=True)
        else:
            with suppress(OSError):
                os.utime(path)  # the cache's files are removed by the time since their last use
        return path

    @property
    def uri(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}"

    def _key(self, key: str) -> str:
        return self._prefix + _checked(key)

    def _head(self, key: str) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        with self._telling(f"look for {key}"):
            try:
                return dict(self._client.head_object(Bucket=self._bucket, Key=self._key(key)))
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    return None
                raise

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """boto3's errors, and those of the cache's disk, as `StoreError`; a missing key stays a `FileNotFoundError`."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError, Boto3Error) as error:
            raise StoreError(what, self.uri, *explain_s3_error(error, self._bucket, self._endpoint)) from error
        except (StoreError, AlreadyExistsError, FileNotFoundError):
            raise
        except OSError as error:
            raise StoreError(what, self.uri, *explain_os_error(error, self._cache)) from error


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
