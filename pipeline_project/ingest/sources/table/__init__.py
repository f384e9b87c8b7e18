"""A table of images as a source: its rows (`rows`), images on web servers (`web`), and the source they make (`source`)."""

from pipeline_project.ingest.sources.table.rows import TABLE_ENDINGS, database_name, read_database, read_file
from pipeline_project.ingest.sources.table.source import TableColumns, TableSource
from pipeline_project.ingest.sources.table.web import WebImages

__all__ = ["TABLE_ENDINGS", "TableColumns", "TableSource", "WebImages", "database_name", "read_database", "read_file"]
