"""Where images come from: a folder or an S3 prefix, flat or in dated folders, listed and read without side effects.

A key is an object's path relative to the source. Its day is its `YYYY-MM-DD` folder where it has one; otherwise the day it was last
modified when first seen, fixed from then on in the arrival ledger.
"""

import contextlib
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline_project.contracts import SourceObject
from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.settings import Settings
from pipeline_project.storage import AlreadyExistsError, ByteStore

_DAY_FOLDER = re.compile(r"^\d{4}-\d{2}-\d{2}$")
_ARRIVALS = "processed-data/arrivals"


class SourceError(ValueError):
    """The source cannot be read, or holds what it must not."""


class SourceUnreachableError(SourceError, OSError):
    """The source failed or may not be read; a later try may succeed."""


@dataclass(frozen=True)
class Listed:
    """An object as a listing tells it. `etag` changes whenever the bytes do."""

    key: str
    size: int
    etag: str
    modified: datetime


class Source(ABC):
    """A tree of objects, read-only."""

    @abstractmethod
    def list_day(self, day: date) -> list[Listed]:
        """Objects in the day's folder, and all objects in no dated folder; sorted by key."""

    @abstractmethod
    def list_all(self) -> list[Listed]:
        """Every object, sorted by key."""

    @abstractmethod
    def read(self, key: str, first_bytes: int | None = None) -> bytes:
        """An object's bytes, or only its first ones. Raises `FileNotFoundError`."""


class FolderSource(Source):
    """A local folder. Symbolic links are not followed out of it; hidden files are not objects."""

    def __init__(self, root: Path) -> None:
        self.root = root
        if not root.is_dir():
            raise SourceError(f"data.source: {root} is not a folder. Name an existing folder, or s3://bucket/prefix/.")

    def list_day(self, day: date) -> list[Listed]:
        return self._list(lambda top: not _DAY_FOLDER.match(top) or top == day.isoformat())

    def list_all(self) -> list[Listed]:
        return self._list(lambda _: True)

    def _list(self, wanted: Any) -> list[Listed]:
        try:
            return self._walk(wanted)
        except OSError as error:
            where, why = error.filename or self.root, str(error.strerror).lower()
            raise SourceUnreachableError(
                f"data.source: {where} cannot be listed: {why}. Look at the folder and its rights, then materialize raw_images again."
            ) from None

    def _walk(self, wanted: Any) -> list[Listed]:
        found = []
        for top in sorted(self.root.iterdir()):
            if top.name.startswith(".") or top.is_symlink() or not wanted(top.name):
                continue
            for path in [top] if top.is_file() else sorted(top.rglob("*")):
                key = path.relative_to(self.root).as_posix()
                if path.is_symlink() or not path.is_file() or any(part.startswith(".") for part in PurePosixPath(key).parts):
                    continue
                status = path.stat()
                etag = hashlib.md5(f"{status.st_mtime_ns}:{status.st_size}:{status.st_ino}".encode(), usedforsecurity=False).hexdigest()
                found.append(Listed(key, status.st_size, etag, datetime.fromtimestamp(status.st_mtime, UTC)))
        return sorted(found, key=lambda listed: listed.key)

    def read(self, key: str, first_bytes: int | None = None) -> bytes:
        path = (self.root / key).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise SourceError(f"{key}: leaves the source folder {self.root}.")
        try:
            with path.open("rb") as file:
                return file.read() if first_bytes is None else file.read(first_bytes)
        except FileNotFoundError:
            raise FileNotFoundError(_gone(key, str(self.root))) from None
        except OSError as error:
            raise SourceUnreachableError(
                f"data.source: {path} cannot be read: {str(error.strerror).lower()}. Give this user the right to read it, or remove it; "
                "then materialize raw_images of its day again."
            ) from None


class S3Source(Source):
    """A prefix of an S3 bucket."""

    def __init__(self, bucket: str, prefix: str, endpoint_url: str | None) -> None:
        import boto3
        from botocore.config import Config

        self._bucket, self._prefix = bucket, prefix
        self._client = boto3.client("s3", endpoint_url=endpoint_url, config=Config(retries={"mode": "standard", "max_attempts": 5}))

    def list_day(self, day: date) -> list[Listed]:
        tops, found = [], []
        for page in self._pages(Prefix=self._prefix, Delimiter="/"):
            found += [self._listed(entry) for entry in page.get("Contents", [])]
            tops += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
        for top in tops:
            name = top.removeprefix(self._prefix).rstrip("/")
            if not _DAY_FOLDER.match(name) or name == day.isoformat():
                found += [self._listed(entry) for page in self._pages(Prefix=top) for entry in page.get("Contents", [])]
        return _objects(found)

    def list_all(self) -> list[Listed]:
        found = [self._listed(entry) for page in self._pages(Prefix=self._prefix) for entry in page.get("Contents", [])]
        return _objects(found)

    def read(self, key: str, first_bytes: int | None = None) -> bytes:
        span = {} if first_bytes is None else {"Range": f"bytes=0-{first_bytes - 1}"}
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            body: bytes = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key, **span)["Body"].read()
        except BotoCoreError as error:
            raise self._unreachable(f"{key} cannot be read", error) from None
        except ClientError as error:
            code = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if code == 416:  # a range of an empty object
                return b""
            if code == 404:
                raise FileNotFoundError(_gone(key, f"s3://{self._bucket}/{self._prefix}")) from None
            raise self._unreachable(f"{key} cannot be read", error) from None
        return body

    def _pages(self, **query: str) -> Iterator[dict[str, Any]]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield from self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, **query)
        except (BotoCoreError, ClientError) as error:
            raise self._unreachable("cannot be listed", error) from None

    def _unreachable(self, what: str, error: Exception) -> SourceUnreachableError:
        address = f"s3://{self._bucket}/{self._prefix}"
        return SourceUnreachableError(f"data.source: {address} {what}: {error}. Check the address, the credentials and the network.")

    def _listed(self, entry: dict[str, Any]) -> Listed:
        return Listed(entry["Key"].removeprefix(self._prefix), entry["Size"], entry["ETag"].strip('"'), entry["LastModified"])


def _gone(key: str, source: str) -> str:
    return f"{key}: no longer in {source}. Materialize raw_images of its day again, then what follows it."


def _objects(found: list[Listed]) -> list[Listed]:
    """Without the empty objects that stand for folders (the prefix itself among them), sorted."""
    return sorted((o for o in found if o.key and not o.key.endswith("/")), key=lambda listed: listed.key)


def open_source(settings: Settings) -> Source:
    """The source that the settings name."""
    address = settings.data.source
    if "://" not in address:
        return FolderSource(Path(address))
    scheme, _, rest = address.partition("://")
    if scheme != "s3":
        raise SourceError(f"data.source: {address}: the scheme must be s3, or no scheme for a folder.")
    bucket, _, prefix = rest.partition("/")
    return S3Source(bucket, prefix if not prefix or prefix.endswith("/") else f"{prefix}/", settings.store.endpoint_url)


def source_identity(settings: Settings) -> dict[str, Any]:
    """What makes a source the same source; a change of it needs an approval (R198)."""
    data = settings.data
    return {
        "source": data.source,
        "labels_file": data.labels_file,
        "image_column": data.image_column,
        "label_column": data.label_column,
        "classes": data.classes,
    }


def day_folder(key: str) -> date | None:
    """The day a key's folder names, or None. Raises `SourceError` for a folder like 2026-13-40."""
    for part in PurePosixPath(key).parts[:-1]:
        if _DAY_FOLDER.match(part):
            try:
                return date.fromisoformat(part)
            except ValueError:
                raise SourceError(f"{key}: the folder {part} looks like a day but is none. Rename it.") from None
    return None


@dataclass(frozen=True)
class DayObjects:
    """A day's share of a listing: its images, the label files that may speak of them, and all keys that were listed."""

    images: list[SourceObject]
    label_files: list[SourceObject]
    listed_keys: frozenset[str]


def objects_of_day(source: Source, store: ByteStore, settings: Settings, day: date) -> DayObjects:
    """The day's images, its label files and every label file in no dated folder; sorted by key.

    Raises:
        SourceError: an object's day lies before data.start_date. It is never skipped silently.
    """
    listed = source.list_day(day)
    days = assign_days(listed, store, settings)
    images, label_files = [], []
    for o in listed:
        entry = SourceObject(key=o.key, day=days[o.key], size=o.size, etag=o.etag, modified=o.modified)
        if PurePosixPath(o.key).name == settings.data.labels_file:
            if day_folder(o.key) in (None, day):
                label_files.append(entry)
        elif entry.day == day:
            images.append(entry)
    return DayObjects(images, label_files, frozenset(days))


def assign_days(listed: list[Listed], store: ByteStore, settings: Settings) -> dict[str, date]:
    """The day of each object, remembering first arrivals of undated ones."""
    days: dict[str, date] = {}
    undated = []
    for o in listed:
        folder = day_folder(o.key)
        if folder is None:
            undated.append(o)
        else:
            days[o.key] = folder
    known = _read_arrivals(store) if undated else {}
    new = {o.key: o.modified.astimezone(UTC).date() for o in undated if o.key not in known}
    if new:
        record = canonical_json({key: day.isoformat() for key, day in sorted(new.items())})
        with contextlib.suppress(AlreadyExistsError):  # another run of the same scan wrote the same arrivals
            store.create(f"{_ARRIVALS}/{sha256_bytes(record)[:32]}.json", record)
    days |= {o.key: known.get(o.key) or new[o.key] for o in undated}
    start = settings.data.start_date
    early = sorted((day, key) for key, day in days.items() if day < start and PurePosixPath(key).name != settings.data.labels_file)
    if early:
        day, key = early[0]
        raise SourceError(
            f"{len(early)} objects lie before data.start_date ({start}), the first is {key} of {day}. "
            f"Set data.start_date to {day} or earlier."
        )
    return days


def _read_arrivals(store: ByteStore) -> dict[str, date]:
    arrivals: dict[str, date] = {}
    for key in store.list(f"{_ARRIVALS}/"):
        for name, text in store.read_json(key).items():
            day = date.fromisoformat(text)
            arrivals[name] = min(day, arrivals.get(name, day))  # races of two first scans settle on the earlier day
    return arrivals
