"""The store on S3, or on a server that speaks its protocol."""

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline_project.digests import sha256_bytes
from pipeline_project.storage.byte_store.base import DRAFT, AlreadyExistsError, ByteStore, StoredKey, checked
from pipeline_project.storage.errors import StoreError, explain_os_error, explain_s3_error
from pipeline_project.storage.s3_client import CutBodyError, Patience, md5_header, open_client, read_object

if TYPE_CHECKING:
    from boto3.s3.transfer import TransferConfig
    from mypy_boto3_s3 import S3Client  # type: ignore[import-not-found,unused-ignore]

_PART = 16 << 20  # larger files go up and come down in parts of this many bytes, four at a time; a part that fails is sent again
_WRITER = "writer"

_conditional: dict[tuple[str | None, str], bool] = {}  # of the buckets that this process created something in


class S3Store(ByteStore):
    """A prefix of an S3 bucket, on AWS or any endpoint with conditional writes.

    `create` needs a server that honours `If-None-Match: *`; the first call makes sure of it. AWS, Google's and most S3 servers decide
    between concurrent creators, too. OpenStack Swift does not: it refuses a key that is there, but of two writers at the very same
    moment both may be told that they made it, and the later one's bytes stay. On Swift, let one Dagster daemon write.

    Args:
        bucket: its name.
        prefix: what all keys begin with; empty, or with a slash at the end.
        cache: a local folder for `local_path`.
        endpoint_url: a server other than AWS.
        encryption: server-side encryption to ask for with each write: none, AES256 or aws:kms.
        patience: timeouts and attempts.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        cache: Path,
        endpoint_url: str | None = None,
        encryption: str = "none",
        patience: Patience | None = None,
    ) -> None:
        self._patience = patience or Patience()
        self._client: S3Client = open_client(endpoint_url, self._patience)
        self._bucket, self._prefix, self._cache, self._endpoint = bucket, prefix, cache, endpoint_url
        self._encryption = {} if encryption == "none" else {"ServerSideEncryption": encryption}

    def read(self, key: str) -> bytes:
        with self._telling(f"read {key}"):
            try:
                return read_object(self._client, self._bucket, self._key(key), self._patience)
            except self._client.exceptions.NoSuchKey:
                raise FileNotFoundError(f"{key}: not in {self.uri}") from None

    def write(self, key: str, data: bytes) -> None:
        with self._telling(f"write {key} ({len(data):,} bytes)"):
            self._put(self._key(key), data)

    def write_file(self, key: str, path: Path) -> None:
        size = path.stat().st_size
        with path.open("rb") as file, self._telling(f"write {key} ({size:,} bytes)"):
            self._client.upload_fileobj(file, self._bucket, self._key(key), ExtraArgs=dict(self._encryption), Config=_in_parts())

    def create(self, key: str, data: bytes) -> None:
        name = self._key(key)
        with self._telling(f"write {key} ({len(data):,} bytes)"):
            if not self._creates_once():
                raise StoreError(
                    f"write {key} once",
                    self.uri,
                    f"{self._endpoint or 'AWS'} ignores If-None-Match, so a document could be replaced unseen",
                    "Set store.root to a bucket of a server with conditional writes, or to a folder; then run it again.",
                )
            if not self._create(name, data):
                raise AlreadyExistsError(f"{key} exists already in {self.uri}")

    def exists(self, key: str) -> bool:
        return self._head(key) is not None

    def list(self, prefix: str) -> list[str]:
        return [entry.key for entry in self.entries(prefix)]

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
            draft = path.with_name(f"{DRAFT}{secrets.token_hex(8)}")
            with self._telling(f"read {key} into {self._cache}"):
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self._client.download_file(self._bucket, self._key(key), str(draft), Config=_in_parts())
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
        return self._prefix + checked(key)

    def _put(self, name: str, data: bytes, **more: Any) -> None:
        self._client.put_object(Bucket=self._bucket, Key=name, Body=data, ContentMD5=md5_header(data), **self._encryption, **more)

    def _create(self, name: str, data: bytes) -> bool:
        """Put the object where there is none; whether this call did it."""
        from botocore.exceptions import ClientError

        token = secrets.token_hex(16)
        for attempt in range(self._patience.attempts):
            try:
                self._put(name, data, IfNoneMatch="*", Metadata={_WRITER: token})
            except ClientError as error:
                about = error.response["ResponseMetadata"]
                if about["HTTPStatusCode"] == 412:
                    # a first answer that was lost on the way is asked for again, and finds the object it made itself
                    return bool(about.get("RetryAttempts")) and self._written_by(name, token)
                if about["HTTPStatusCode"] != 409:
                    raise
                time.sleep(self._patience.pause_s * 2**attempt)  # another write of the key is under way, and may yet fail
            else:
                return True
        return False

    def _written_by(self, name: str, token: str) -> bool:
        head = self._client.head_object(Bucket=self._bucket, Key=name)
        return {key.lower(): value for key, value in head["Metadata"].items()}.get(_WRITER) == token

    def _creates_once(self) -> bool:
        """Whether the server refuses to create what is there already; tried once in a process."""
        place = (self._endpoint, self._bucket)
        if place not in _conditional:
            _conditional[place] = self._try_creating_twice()
        return _conditional[place]

    def _try_creating_twice(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        name = f"{self._prefix}housekeeping/conditional-write-{secrets.token_hex(8)}"
        try:
            self._create(name, b"")
            return not self._create(name, b"")
        finally:
            with suppress(BotoCoreError, ClientError):
                self._client.delete_object(Bucket=self._bucket, Key=name)

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
        from urllib3.exceptions import HTTPError

        try:
            yield
        except (BotoCoreError, ClientError, Boto3Error, CutBodyError, HTTPError) as error:
            raise StoreError(what, self.uri, *explain_s3_error(error, self._bucket, self._endpoint)) from error
        except (StoreError, AlreadyExistsError, FileNotFoundError):
            raise
        except OSError as error:
            raise StoreError(what, self.uri, *explain_os_error(error, self._cache)) from error


def _in_parts() -> "TransferConfig":
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(multipart_threshold=_PART, multipart_chunksize=_PART, max_concurrency=4)
