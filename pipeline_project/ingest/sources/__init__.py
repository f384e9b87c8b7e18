"""Where images come from: folders, buckets, tables of images, or several of them; listed in key order and read, without side effects."""

from pipeline_project.ingest.sources.arrival_ledger import read_ledger
from pipeline_project.ingest.sources.base import Listed, Source, SourceError, SourceUnreachableError, day_folder
from pipeline_project.ingest.sources.combined import CombinedSource
from pipeline_project.ingest.sources.days import assign_days
from pipeline_project.ingest.sources.folder import FolderSource
from pipeline_project.ingest.sources.object_store import ObjectStoreSource
from pipeline_project.ingest.sources.opening import open_source, source_identity
from pipeline_project.ingest.sources.s3 import S3Source
from pipeline_project.ingest.sources.table import TableSource

__all__ = [
    "CombinedSource",
    "FolderSource",
    "Listed",
    "ObjectStoreSource",
    "S3Source",
    "Source",
    "SourceError",
    "SourceUnreachableError",
    "TableSource",
    "assign_days",
    "day_folder",
    "open_source",
    "read_ledger",
    "source_identity",
]
