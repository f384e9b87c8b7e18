"""The artefact store: bytes in a folder or on S3 (`byte_store`), and content-hashed artefacts upon them (`artifacts`)."""

from pipeline_project.storage.artifacts import Artifact, ArtifactMissingError, ArtifactStore, open_artifacts
from pipeline_project.storage.byte_store import AlreadyExistsError, ByteStore, FolderStore, S3Store, StoredKey, open_store
from pipeline_project.storage.errors import StoreError

__all__ = [
    "AlreadyExistsError",
    "Artifact",
    "ArtifactMissingError",
    "ArtifactStore",
    "ByteStore",
    "FolderStore",
    "S3Store",
    "StoreError",
    "StoredKey",
    "open_artifacts",
    "open_store",
]
