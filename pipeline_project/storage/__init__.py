"""The artefact store: bytes in a folder or on S3 (`byte_store`), and content-hashed artefacts upon them (`artifacts`)."""

from pipeline_project.storage.artifacts import Artifact, ArtifactMissingError, ArtifactStore, open_artifacts
from pipeline_project.storage.byte_store import AlreadyExistsError, ByteStore, FolderStore, S3Store, open_store

__all__ = [
    "AlreadyExistsError",
    "Artifact",
    "ArtifactMissingError",
    "ArtifactStore",
    "ByteStore",
    "FolderStore",
    "S3Store",
    "open_artifacts",
    "open_store",
]
