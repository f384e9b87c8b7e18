"""Bytes under keys: the interface (`base`), in a folder (`folder`), on S3 (`s3`), by the settings (`opening`)."""

from pipeline_project.storage.byte_store.base import AlreadyExistsError, ByteStore, StoredKey
from pipeline_project.storage.byte_store.folder import FolderStore
from pipeline_project.storage.byte_store.opening import open_store
from pipeline_project.storage.byte_store.s3 import S3Store

__all__ = ["AlreadyExistsError", "ByteStore", "FolderStore", "S3Store", "StoredKey", "open_store"]
