"""From settings to a source, and what makes a source the same source."""

from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from pipeline_project.ingest.sources.base import Source, SourceError
from pipeline_project.ingest.sources.combined import CombinedSource
from pipeline_project.ingest.sources.folder import FolderSource
from pipeline_project.ingest.sources.object_store import ObjectStoreSource
from pipeline_project.ingest.sources.s3 import S3Source
from pipeline_project.ingest.sources.table import (
    TABLE_ENDINGS,
    TableColumns,
    TableSource,
    WebImages,
    database_name,
    read_database,
    read_file,
)
from pipeline_project.ingest.sources.table.rows import Rows
from pipeline_project.settings import Settings, SettingsError, secret_address
from pipeline_project.storage.s3_client import Patience

_DATABASE = "env:"


def open_source(settings: Settings, patience: Patience | None = None) -> Source:
    """The source that the settings name. It lists nothing and connects to nothing yet.

    Args:
        settings: the whole tree.
        patience: timeouts and attempts of requests; a sensor's tick has less time than a run.

    Raises:
        SourceError: the address is none, or a folder is not there.
    """
    source, patience = settings.data.source, patience or Patience()
    if isinstance(source, str):
        return _open(source, settings, patience)
    opened = {}
    for name, address in source.items():
        try:
            opened[name] = _open(address, settings, patience)
        except SourceError as error:
            raise SourceError(f"source {name}: {error}") from error
    return CombinedSource(opened)


def source_identity(settings: Settings) -> dict[str, Any]:
    """What makes a source the same source; a change of it needs an approval (R198). Nothing in it is a secret."""
    data = settings.data
    identity: dict[str, Any] = {
        "source": data.source,
        "labels_file": data.labels_file,
        "image_column": data.image_column,
        "label_column": data.label_column,
        "classes": data.classes,
    }
    addresses = [data.source] if isinstance(data.source, str) else list(data.source.values())
    if any(_is_table(address) for address in addresses):
        identity["table"] = data.table.model_dump()
    databases = sorted({address for address in addresses if address.startswith(_DATABASE)})
    if databases:
        identity["databases"] = {address: database_name(_secret(address)) for address in databases}
    return identity


def _open(address: str, settings: Settings, patience: Patience) -> Source:
    if _is_table(address):
        return _open_table(address, settings, patience)
    if "://" in address:
        return _open_bucket(address, settings, patience)
    return FolderSource(Path(address))


def _is_table(address: str) -> bool:
    if address.startswith(_DATABASE):
        return True
    return address.endswith(TABLE_ENDINGS) and ("://" in address or not Path(address).is_dir())


def _open_bucket(address: str, settings: Settings, patience: Patience) -> Source:
    scheme, _, rest = address.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme not in ("s3", "gs", "az") or not bucket:
        raise SourceError(f"data.source: {address}: the scheme must be s3, gs or az, followed by a bucket; or no scheme for a folder.")
    prefix = prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
    if scheme == "s3":
        return S3Source(bucket, prefix, settings.store.endpoint_url, patience)
    return ObjectStoreSource(cast("Literal['gs', 'az']", scheme), bucket, prefix, patience=patience)


def _open_table(address: str, settings: Settings, patience: Patience) -> TableSource:
    data = settings.data
    columns = TableColumns(data.table.location_column, data.table.day_column, data.label_column, data.image_column, data.labels_file)
    web = WebImages(data.table.hosts, settings.ingest.max_bytes, patience)
    open_bucket = partial(_open_bucket, settings=settings, patience=patience)
    if address.startswith(_DATABASE):
        return TableSource(lambda: read_database(_secret(address), data.table.query), None, columns, open_bucket, web)
    above, _, name = address.rpartition("/")
    base = _open(above or ".", settings, patience)
    return TableSource(lambda: _rows_of(base, name, address), base, columns, open_bucket, web)


def _rows_of(base: Source, name: str, address: str) -> Rows:
    found = base.find(name)
    if found is None:
        raise SourceError(f"data.source: there is no table {address}. Correct data.source, or put the table there.")
    return read_file(base, name, found.modified, address)


def _secret(address: str) -> str:
    try:
        return secret_address(address)
    except SettingsError as error:
        raise SourceError(f"data.source: {error}") from None
