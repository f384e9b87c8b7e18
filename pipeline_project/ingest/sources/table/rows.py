"""The rows of a table of images, whatever holds it: a CSV or Parquet file, or a database. Values are text."""

import csv
import hashlib
import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pipeline_project.ingest.sources.base import Source, SourceError, SourceUnreachableError

if TYPE_CHECKING:
    from sqlalchemy import Connection

TABLE_ENDINGS = (".csv", ".parquet")
_BATCH = 10_000  # database rows fetched at a time


@dataclass(frozen=True)
class Rows:
    """A table: its column names, its rows as text (empty where a value is missing), when it last changed, and what it is called."""

    columns: list[str]
    values: list[list[str]]
    modified: datetime
    name: str

    def column(self, name: str, setting: str) -> int:
        """The place of a column. Raises `SourceError` naming the setting that asks for it."""
        if self.columns.count(name) == 1:
            return self.columns.index(name)
        why = "more than one column" if name in self.columns else "no column"
        raise SourceError(f"data.source: {self.name} has {why} {name}; there are {', '.join(self.columns)}. Rename one, or set {setting}.")


def read_file(source: Source, key: str, modified: datetime, name: str) -> Rows:
    """The rows of a CSV or Parquet file in a source."""
    data = source.read(key)
    columns, values = _read_parquet(data, name) if PurePosixPath(key).suffix == ".parquet" else _read_csv(data, name)
    return Rows(columns, values, modified, name)


def read_database(url: str, query: str) -> Rows:
    """What one SELECT gives; the connection is read-only where the database knows how, and never commits.

    Databases do not tell when rows changed, so they count as changed at the last midnight (UTC): they have settled during the day.

    Raises:
        SourceError: the query is no single SELECT, or the database refuses it.
        SourceUnreachableError: the database cannot be reached.
    """
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError, SQLAlchemyError

    statement = query.strip().rstrip(";")
    if (
        ";" in statement
        or statement.split(None, 1)[:1] == []
        or statement.split(None, 1)[0].lower() not in ("select", "with", "table", "values")
    ):
        raise SourceError("data.table.query: must be one SELECT statement. Write such as: select image, label from photos.")
    try:
        engine = sqlalchemy.create_engine(url, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise SourceError(
            f"data.source: the database URL cannot be used: {type(error).__name__}. Write driver://user:password@host/database."
        ) from None
    name = database_name(url)
    try:
        with engine.connect() as connection:
            _make_read_only(connection)
            found = connection.execution_options(stream_results=True, yield_per=_BATCH).execute(sqlalchemy.text(statement))
            columns = list(found.keys())
            values = [[_text(value) for value in row] for row in found]
            connection.rollback()
    except OperationalError as error:
        raise SourceUnreachableError(
            f"data.source: {name} cannot be read: {_said(error)}. Check the database, its address and the account; "
            "then materialize raw_images again."
        ) from None
    except (DBAPIError, SQLAlchemyError) as error:
        raise SourceError(f"data.source: {name} refuses data.table.query: {_said(error)}. Correct the query.") from None
    finally:
        engine.dispose()
    return Rows(columns, values, datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0), name)


def database_name(url: str) -> str:
    """The address of a database without user and password, for people and records."""
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError

    try:
        parts = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        return "a database"
    return f"{parts.get_backend_name()}://{parts.host or ''}{f':{parts.port}' if parts.port else ''}/{parts.database or ''}"


def _make_read_only(connection: "Connection") -> None:
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    command = {
        "postgresql": "SET TRANSACTION READ ONLY",
        "mysql": "SET TRANSACTION READ ONLY",
        "mariadb": "SET TRANSACTION READ ONLY",
        "sqlite": "PRAGMA query_only = ON",
    }.get(connection.dialect.name)
    if command:
        with suppress(SQLAlchemyError):  # an account that may not even say so can still read
            connection.execute(text(command))


def _said(error: Exception) -> str:
    """The database's own words: SQLAlchemy would add the statement and its parameters."""
    return str(getattr(error, "orig", None) or error).strip().split("\n", 1)[0][:300].rstrip(".")


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _read_csv(data: bytes, name: str) -> tuple[list[str], list[list[str]]]:
    try:
        lines = _csv_lines(data.decode("utf-8-sig"))
        columns = next(lines, [])
        values = [(line + [""] * len(columns))[: len(columns)] for line in lines]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"data.source: {name} is no CSV file in UTF-8: {error}. Save it as one.") from None
    if not columns:
        raise SourceError(f"data.source: {name} is empty. Its first line must name the columns.")
    return columns, values


def _csv_lines(text: str) -> Iterator[list[str]]:
    for line in csv.reader(io.StringIO(text, newline=""), strict=True):
        values = [value.strip() for value in line]
        if any(values):
            yield values


def _read_parquet(data: bytes, name: str) -> tuple[list[str], list[list[str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"data.source: {name} is no Parquet file: {str(error).splitlines()[0][:200]}. Write it again.") from None
    columns = [[_text(value) for value in column.to_pylist()] for column in table.columns]
    return list(table.column_names), [list(row) for row in zip(*columns, strict=True)]


def row_digest(values: list[str]) -> str:
    """32 hexadecimal digits of a row's content."""
    return hashlib.sha256("\x1f".join(values).encode()).hexdigest()[:32]
