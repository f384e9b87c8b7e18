"""From settings to a store."""

from pathlib import Path

from pipeline_project.settings import Settings
from pipeline_project.storage.byte_store.base import ByteStore
from pipeline_project.storage.byte_store.folder import FolderStore
from pipeline_project.storage.byte_store.s3 import S3Store


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
