"""The versions that the store holds at one moment, as housekeeping sees them. A damaged head or record is an error, never a gap."""

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from pipeline_project.digests import canonical_json
from pipeline_project.storage import Artifact, ArtifactStore, StoredKey
from pipeline_project.storage.artifacts import ZONES

_NOT_ASSETS = frozenset(
    {"audit", "approvals", "deployments", "alerts", "steps", "made", "housekeeping", "quarantine", "arrivals", "scan", "tombstones"}
)
CACHES = frozenset({"image_shard"})
"""Assets whose newest version is only where a later run begins to look: its head keeps nothing alive, and may point to what is gone."""
_FOLDER = re.compile(r"^[0-9a-f]{24}$")
_READERS = 8


class RetentionError(ValueError):
    """What is live cannot be told, or not safely; nothing (more) is removed."""


@dataclass(frozen=True)
class Version:
    """One stored version. `artifact` is None where its record is missing: its removal, or its publication, was cut short."""

    name: str
    partition: str
    prefix: str
    artifact: Artifact | None
    keys: tuple[StoredKey, ...]

    @property
    def digest(self) -> str:
        """Of its payload; "" where its record is missing."""
        return self.artifact.digest if self.artifact else ""

    @property
    def size(self) -> int:
        """Bytes, sidecars and record included."""
        return sum(key.size for key in self.keys)

    @property
    def pointed(self) -> datetime:
        """When it was last made the newest one (its record is written then); without a record, when its youngest file was written."""
        record = [key.modified for key in self.keys if key.key == f"{self.prefix}artifact.json"]
        return max(record or [key.modified for key in self.keys])

    @property
    def made(self) -> datetime:
        """`created` of its record, or where there is none `pointed`."""
        return datetime.fromisoformat(self.artifact.created) if self.artifact else self.pointed

    @property
    def whole(self) -> bool:
        """Whether its record and every payload file are there."""
        there = {key.key for key in self.keys}
        return self.artifact is not None and all(self.prefix + file in there for file in self.artifact.files)

    def __str__(self) -> str:
        of = "" if self.partition == "all" else f" of {self.partition}"
        return f"{self.name}{of} {self.prefix.split('/')[-2][:12]}"


@dataclass(frozen=True)
class Snapshot:
    """The store at one moment: every version by its folder, the folder of each head {(name, partition): folder}, and all keys."""

    versions: Mapping[str, Version]
    heads: Mapping[tuple[str, str], str]
    keys: tuple[StoredKey, ...]


def take_snapshot(artifacts: ArtifactStore) -> Snapshot:
    """Read every head and record.

    Raises:
        RetentionError: one of them is damaged, or a newest version is not whole.
        StoreError: the store cannot be read.
    """
    keys = tuple(entry for zone in ("artifacts/", "features/", "processed-data/") for entry in artifacts.bytes.entries(zone))
    folders: dict[str, list[StoredKey]] = {}
    heads: list[tuple[str, str]] = []
    for entry in keys:
        parts = entry.key.split("/")
        if len(parts) < 4 or parts[1] in _NOT_ASSETS or ZONES.get(parts[1], "artifacts") != parts[0]:
            continue
        if len(parts) == 4 and parts[3] == "head.json":
            heads.append((parts[1], parts[2]))
        elif len(parts) > 4 and _FOLDER.match(parts[3]):
            folders.setdefault("/".join(parts[:4]) + "/", []).append(entry)
    with ThreadPoolExecutor(_READERS) as readers:
        pointed = dict(zip(heads, readers.map(lambda head: _head(artifacts, *head), heads), strict=True))
        for prefix in set(pointed.values()):
            if f"{prefix}artifact.json" not in {entry.key for entry in folders.get(prefix, [])}:  # published while we listed
                folders[prefix] = list(artifacts.bytes.entries(prefix))
        found = readers.map(lambda folder: _version(artifacts, *folder), folders.items())
        versions = {version.prefix: version for version in found if version is not None}
    for (name, partition), prefix in pointed.items():
        if name not in CACHES and (prefix not in versions or not versions[prefix].whole):
            refuse(f"the newest version of {name} ({partition}) is not whole in {prefix}", f"Materialize {name} again")
    return Snapshot(versions, pointed, keys)


def refuse(what: str, remedy: str) -> NoReturn:
    """Raise `RetentionError`."""
    raise RetentionError(f"What is live cannot be told, so nothing more is removed: {what}. {remedy}, then run it again.")


def _head(artifacts: ArtifactStore, name: str, partition: str) -> str:
    try:
        found = artifacts.find(name, None if partition == "all" else partition)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        refuse(f"the head of {name} ({partition}) is damaged: {error}", f"Materialize {name} again")
    if found is None:
        refuse(f"the head of {name} ({partition}) disappeared", f"Materialize {name} again")
    if (found.name, found.partition or "all") != (name, partition):
        refuse(f"the head of {name} ({partition}) is of {found.name} ({found.partition})", f"Materialize {name} again")
    return found.prefix


def _version(artifacts: ArtifactStore, prefix: str, keys: list[StoredKey]) -> Version | None:
    _, name, partition, digest, _ = prefix.split("/")
    if not keys:
        return None
    artifact = None
    if any(entry.key == f"{prefix}artifact.json" for entry in keys):
        try:
            artifact = artifacts.version(name, digest, None if partition == "all" else partition)
            datetime.fromisoformat(artifact.created)
            canonical_json(dict(artifact.info))
        except FileNotFoundError:
            return None  # removed in this moment
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            refuse(f"the record {prefix}artifact.json is damaged: {error}", f"Materialize {name} again, or restore the record")
    return Version(name, partition, prefix, artifact, tuple(keys))
