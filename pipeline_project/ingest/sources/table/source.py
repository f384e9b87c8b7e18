"""A table of images as a source (R49): a row says where an image lies and what it shows.

Keys come from the rows alone, so that any process can read one without the table: a path relative to the table stays as it is,
`s3://bucket/a.jpg` and `https://host/a.jpg` become `s3:/bucket/a.jpg` and `https:/host/a.jpg`, and with data.table.day_column the day
stands before it as a folder. The labels are listed and read as a label file of the usual name, made from the table; so all that knows label
files knows tables. Rows whose image may not be read (a path out of the table's folder, a host that is not listed) are in that label file
with their location as it is, and so are reported as rows without an image.
"""

import csv
import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import PurePosixPath

from pipeline_project.ingest.sources.base import Listed, Source, SourceError, in_other_day, just_before
from pipeline_project.ingest.sources.folder import FolderSource
from pipeline_project.ingest.sources.table.rows import Rows, row_digest
from pipeline_project.ingest.sources.table.web import WebImages

_BUCKETS = ("s3", "gs", "az")
_WEB = ("http", "https")
_LOOK_AHEAD = 1000  # objects that are passed over before a listing begins anew nearer to what is wanted: a page


@dataclass(frozen=True)
class TableColumns:
    """Which columns mean what, and what the label file is called."""

    location: str
    day: str
    label: str
    image: str
    labels_file: str


@dataclass(frozen=True)
class _Content:
    """What a table says: digests of the rows of each readable key, in key order, and the label file."""

    rows: dict[str, str]
    labels: bytes
    name: str


class TableSource(Source):
    """Images that a table names.

    Args:
        load: reads the table; called once, when the table is first needed.
        base: where relative paths lie; None where there is no such place (a database).
        columns: what the columns mean.
        open_bucket: opens a bucket by its address, such as `s3://bucket`.
        web: reads URLs.
    """

    def __init__(
        self, load: Callable[[], Rows], base: Source | None, columns: TableColumns, open_bucket: Callable[[str], Source], web: WebImages
    ) -> None:
        self._load, self._base, self._columns, self._open_bucket, self._web = load, base, columns, open_bucket, web
        self._opened: dict[str, Source] = {}

    def scan(self, start_after: str | None = None) -> Iterator[Listed]:
        return self._list(lambda key: key > (start_after or ""))

    def list_day(self, day: date) -> list[Listed]:
        return list(self._list(lambda key: not in_other_day(key, day)))

    def read(self, key: str, first_bytes: int | None = None) -> bytes:
        if key == self._columns.labels_file:
            return self._content.labels[:first_bytes]
        location = self._location(key)
        if location.startswith(tuple(f"{scheme}://" for scheme in _WEB)):
            return self._web.read(location, key, first_bytes)
        source, below = self._place(location)
        return source.read(below, first_bytes)

    def _list(self, wanted: Callable[[str], bool]) -> Iterator[Listed]:
        table, modified = self._content, self._rows.modified
        finders: dict[int, _Finder] = {}
        for key in sorted([*table.rows, self._columns.labels_file]):
            if not wanted(key):
                continue
            if key == self._columns.labels_file:
                yield Listed(key, len(table.labels), hashlib.sha256(table.labels).hexdigest()[:32], modified)
                continue
            location = self._location(key)
            if location.startswith(tuple(f"{scheme}://" for scheme in _WEB)):
                yield Listed(key, 0, table.rows[key], modified)  # only reading tells more; a changed row is a changed image
                continue
            source, below = self._place(location)
            found = finders.setdefault(id(source), _Finder(source)).find(below)
            if found is not None:
                yield Listed(key, found.size, found.etag, found.modified)

    @cached_property
    def _rows(self) -> Rows:
        return self._load()

    @cached_property
    def _content(self) -> _Content:
        table, names = self._rows, self._columns
        location_at = table.column(names.location, "data.table.location_column")
        label_at = table.column(names.label, "data.label_column")
        day_at = table.column(names.day, "data.table.day_column") if names.day else None
        left_out = {location_at, label_at, day_at}
        others = [(at, name) for at, name in enumerate(table.columns) if at not in left_out and name and name != names.image]
        digests: dict[str, list[str]] = {}
        lines = []
        for number, values in enumerate(table.values, start=1):
            key = self._key(values[location_at], None if day_at is None else values[day_at], number)
            if key is not None:
                digests.setdefault(key, []).append(row_digest(values))
            lines.append([key or values[location_at], values[label_at], *(values[at] for at, _ in others)])
        if lines and not digests:
            raise SourceError(
                f"data.source: none of the {len(lines):,} rows of {table.name} names an image that may be read; the first names "
                f"'{table.values[0][location_at]}'. Paths must lie below the table's folder, and hosts be listed in data.table.hosts."
            )
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([[names.image, names.label, *(name for _, name in others)], *sorted(lines)])
        return _Content({key: row_digest(sorted(found)) for key, found in digests.items()}, text.getvalue().encode(), table.name)

    def _key(self, location: str, day: str | None, number: int) -> str | None:
        """The key of a row's image; None where the image may not be read."""
        scheme, separator, rest = location.partition("://")
        if not separator:
            scheme, rest = "", location
        if not _plain(rest) or (separator and scheme not in (*_BUCKETS, *_WEB)):
            return None
        if scheme in _WEB and not self._web.allows(location):
            return None
        if not scheme and (self._base is None or rest.split("/")[0].endswith(":") or rest == self._columns.labels_file):
            return None
        if scheme in _BUCKETS and "/" not in rest:
            return None
        key = f"{scheme}:/{rest}" if scheme else rest
        if day is None:
            return key
        try:
            return f"{date.fromisoformat(day[:10]).isoformat()}/{key}"
        except ValueError:
            raise SourceError(
                f"data.source: row {number} of {self._rows.name}: {self._columns.day} is '{day}', which is no day. Write YYYY-MM-DD."
            ) from None

    def _location(self, key: str) -> str:
        """What the row says, from the key alone."""
        below = key.partition("/")[2] if self._columns.day else key
        scheme, separator, rest = below.partition(":/")
        return f"{scheme}://{rest}" if separator and scheme in (*_BUCKETS, *_WEB) else below

    def _place(self, location: str) -> tuple[Source, str]:
        """The source that an image lies in, and its key there."""
        scheme, separator, rest = location.partition("://")
        if not separator:
            if self._base is None:
                raise SourceError(f"{location}: a database names images by their whole address. Write such as s3://bucket/{location}.")
            return self._base, location
        bucket, _, key = rest.partition("/")
        address = f"{scheme}://{bucket}"
        if address not in self._opened:
            self._opened[address] = self._open_bucket(address)
        return self._opened[address], key


def _plain(path: str) -> bool:
    """Whether a path has one spelling, and stays where it is."""
    return (
        bool(path)
        and not path.startswith("/")
        and "\\" not in path
        and path.isprintable()
        and PurePosixPath(path).as_posix() == path
        and ".." not in path.split("/")
    )


@dataclass
class _Finder:
    """Looks single objects up in a source: in a folder each by itself; in a bucket by a listing that goes along with the keys asked for."""

    source: Source
    _listing: Iterator[Listed] = field(default_factory=lambda: iter(()))
    _present: Listed | None = None
    _asked: str | None = None

    def find(self, key: str) -> Listed | None:
        """The object, or None. Keys that come in order cost a listing of what lies between them, at most."""
        if isinstance(self.source, FolderSource):
            return self.source.find(key)
        if self._asked is None or key < self._asked:
            self._begin(key)
        self._asked = key
        passed = 0
        while self._present is not None and self._present.key < key:
            passed += 1
            if passed == _LOOK_AHEAD:
                self._begin(key)
            else:
                self._present = next(self._listing, None)
        return self._present if self._present is not None and self._present.key == key else None

    def _begin(self, key: str) -> None:
        self._listing = self.source.scan(just_before(key))
        self._present = next(self._listing, None)
