"""Artefacts: what an asset makes. A payload of files named by the digest of their contents, sidecars beside it, and a head.

The payload (manifests, splits, weights, metrics) is deterministic and its digest is the asset's data version. Sidecars (timings,
plots, signatures) are outside the digest. `head.json` names the newest payload of an asset and partition; older ones stay readable.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pipeline_project.digests import payload_digest, sha256_bytes, sha256_file
from pipeline_project.settings import Settings
from pipeline_project.storage.byte_store import ByteStore, open_store
from pipeline_project.storage.removal import wait_while_removed

Zone = Literal["processed-data", "features", "artifacts"]
_UNPARTITIONED = "all"

ZONES: dict[str, Zone] = {
    "raw_images": "processed-data",
    "validated_manifest": "processed-data",
    "image_shard": "processed-data",
    "image_pack": "processed-data",
    "dataset_splits": "processed-data",
    "image_features": "features",
    "prediction_log": "features",
    "ground_truth": "features",
}


class ArtifactMissingError(FileNotFoundError):
    """An asset was asked for what its upstream has not made yet."""


@dataclass(frozen=True)
class Artifact:
    """One published version of an asset (of one partition, if it has partitions)."""

    store: ByteStore
    name: str
    partition: str | None
    digest: str
    prefix: str
    files: Mapping[str, str]
    info: Mapping[str, Any]
    created: str
    run: str | None = None
    """The run that made it, where one did."""

    def read(self, file: str) -> bytes:
        """A payload file's bytes, checked against its digest. Raises `ValueError` when they were changed."""
        data = self.store.read(self._key(file))
        if sha256_bytes(data) != self.files[file]:
            raise ValueError(f"{self.prefix}{file}: the bytes differ from those published. Materialize {self.name} again.")
        return data

    def json(self, file: str) -> Any:
        """A payload file's JSON value."""
        return json.loads(self.read(file))

    def verify(self) -> None:
        """Read every payload file and compare its digest. Raises `ValueError` (changed) or `FileNotFoundError` (gone)."""
        for file in self.files:
            self.read(file)

    def path(self, file: str) -> Path:
        """A local, read-only file with a payload file's bytes (unchecked: for memory maps)."""
        return self.store.local_path(self._key(file))

    def sidecar(self, file: str) -> bytes:
        """A sidecar's bytes. Raises `FileNotFoundError`."""
        return self.store.read(f"{self.prefix}sidecars/{file}")

    def add_sidecar(self, file: str, data: bytes) -> None:
        """Write or replace a sidecar."""
        self.store.write(f"{self.prefix}sidecars/{file}", data)

    @cached_property
    def uri(self) -> str:
        """Where the payload lies, for people and records."""
        return f"{self.store.uri.rstrip('/')}/{self.prefix}"

    def _key(self, file: str) -> str:
        if file not in self.files:
            raise KeyError(f"{self.name} has no payload file {file!r}; it has {', '.join(sorted(self.files))}")
        return f"{self.prefix}{file}"


class ArtifactStore:
    """Publishes and finds artefacts.

    Args:
        bytes_: where they lie.
        run: id of the run that publishes; it is kept with what it makes.
    """

    def __init__(self, bytes_: ByteStore, run: str | None = None) -> None:
        self.bytes = bytes_
        self.run = run

    def publish(
        self,
        name: str,
        payload: Mapping[str, bytes | Path],
        *,
        partition: str | None = None,
        sidecars: Mapping[str, bytes] | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """Store a payload and make it the newest version.

        Args:
            payload: deterministic files, as bytes or as files of this machine (not to be changed afterwards); their digest is the
                artefact's.
            sidecars: files outside the digest.
            info: small JSON facts about this version, kept in the head (outside the digest).
        """
        files = {file: sha256_file(data) if isinstance(data, Path) else sha256_bytes(data) for file, data in payload.items()}
        digest = payload_digest(files)
        artifact = Artifact(
            self.bytes,
            name,
            partition,
            digest,
            f"{_folder(name, partition)}/{digest[:24]}/",
            files,
            dict(info or {}),
            datetime.now(UTC).isoformat(timespec="seconds"),
            self.run,
        )
        for file, data in payload.items():
            if not self._holds(artifact.prefix + file, files[file]):
                self._write(artifact.prefix + file, data)
        for file, data in (sidecars or {}).items():
            artifact.add_sidecar(file, data)
        while not self._recorded(artifact, sidecars or {}):  # housekeeping was at this very version
            for file, data in payload.items():
                self._write(artifact.prefix + file, data)
            for file, data in (sidecars or {}).items():
                artifact.add_sidecar(file, data)
        self._point(artifact)
        return artifact

    def publish_again(self, artifact: Artifact, info: Mapping[str, Any]) -> Artifact:
        """Make a stored version the newest one again, with the facts that it had; when and by which run it was made stays.

        Raises:
            ArtifactMissingError: housekeeping removed it in this moment.
        """
        again = replace(artifact, info=dict(info))
        while not self._recorded(again):
            if not all(self.bytes.exists(again.prefix + file) for file in again.files):
                self.bytes.delete(f"{again.prefix}artifact.json")  # a record without files would be half a version
                what = f"{again.name}: version {again.digest[:24]}"
                raise ArtifactMissingError(f"{what} was removed by `pipeline gc` in this moment. Materialize {again.name} again.")
        self._point(again)
        return again

    def find(self, name: str, partition: str | None = None) -> Artifact | None:
        """The newest version, or None."""
        try:
            record = self.bytes.read_json(f"{_folder(name, partition)}/head.json")
        except FileNotFoundError:
            return None
        return self._from_record(record)

    def latest(self, name: str, partition: str | None = None) -> Artifact:
        """The newest version.

        Raises:
            ArtifactMissingError: there is none; the message names the asset to materialize first.
        """
        found = self.find(name, partition)
        if found is None:
            what = f"{name} of {partition}" if partition else name
            raise ArtifactMissingError(f"{what} is not in {self.bytes.uri}. Materialize {what} first, then this asset again.")
        return found

    def version(self, name: str, digest: str, partition: str | None = None) -> Artifact:
        """A given version, by its digest. Raises `ArtifactMissingError`."""
        try:
            artifact = self._from_record(self.bytes.read_json(f"{_folder(name, partition)}/{digest[:24]}/artifact.json"))
        except FileNotFoundError:
            raise ArtifactMissingError(f"{name} has no version {digest[:24]} in {self.bytes.uri}.") from None
        if (artifact.name, artifact.partition) != (name, partition) or not artifact.digest.startswith(digest):
            raise ValueError(f"{name}: the record of version {digest[:24]} is of another artefact. Materialize {name} again.")
        return artifact

    def partitions(self, name: str) -> list[str]:
        """The partitions of an asset that have a head, sorted."""
        prefix = f"{ZONES.get(name, 'artifacts')}/{name}/"
        keys = (key.removeprefix(prefix).split("/") for key in self.bytes.list(prefix))
        return sorted(parts[0] for parts in keys if len(parts) == 2 and parts[1] == "head.json" and parts[0] != _UNPARTITIONED)

    def _recorded(self, artifact: Artifact, sidecars: Iterable[str] = ()) -> bool:
        """Write a version's record, and say whether the version is whole and stays: see `removal`."""
        record = f"{artifact.prefix}artifact.json"
        self.bytes.write_json(record, _as_record(artifact))
        wait_while_removed(self.bytes, artifact.prefix)
        files = [*artifact.files, *(f"sidecars/{file}" for file in sidecars)]
        return all(self.bytes.exists(key) for key in (record, *(artifact.prefix + file for file in files)))

    def _point(self, artifact: Artifact) -> None:
        """Last of all: a head never points to nothing."""
        self.bytes.write_json(f"{_folder(artifact.name, artifact.partition)}/head.json", _as_record(artifact))

    def _write(self, key: str, data: bytes | Path) -> None:
        if isinstance(data, Path):
            self.bytes.write_file(key, data)
        else:
            self.bytes.write(key, data)

    def _holds(self, key: str, digest: str) -> bool:
        """Whether the key has these very bytes; damaged ones are to be replaced."""
        return self.bytes.exists(key) and sha256_bytes(self.bytes.read(key)) == digest

    def _from_record(self, record: dict[str, Any]) -> Artifact:
        name, partition, digest = record["name"], record["partition"], record["digest"]
        if payload_digest(record["files"]) != digest:
            raise ValueError(f"{name}: the record of version {digest[:24]} was changed. Materialize {name} again.")
        prefix = f"{_folder(name, partition)}/{digest[:24]}/"
        facts = record["files"], record["info"], record["created"], record.get("run")
        return Artifact(self.bytes, name, partition, digest, prefix, *facts)


def open_artifacts(settings: Settings, run: str | None = None) -> ArtifactStore:
    """The artefact store that the settings name; `run` is the id of the run that will publish."""
    return ArtifactStore(open_store(settings), run)


def _as_record(artifact: Artifact) -> dict[str, Any]:
    return {
        "name": artifact.name,
        "partition": artifact.partition,
        "digest": artifact.digest,
        "files": artifact.files,
        "info": artifact.info,
        "created": artifact.created,
        "run": artifact.run,
    }


def _folder(name: str, partition: str | None) -> str:
    return f"{ZONES.get(name, 'artifacts')}/{name}/{partition or _UNPARTITIONED}"
