"""Which day a label row belongs to: one rule for the inventory of a day and for the scan of the whole source."""

import re
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from typing import Protocol

_DAY_FOLDER = re.compile(r"(?:^|/)([0-9]{4}-[0-9]{2}-[0-9]{2})(?=/)")


class _Keyed(Protocol):
    @property
    def key(self) -> str: ...


class _Row(Protocol):
    @property
    def image(self) -> str: ...


def row_day(file: _Keyed, row: _Row, days: Mapping[str, date]) -> date:
    """The one day that a row of a label file belongs to, whether or not its image is there.

    A label file in a dated folder speaks of that day alone. A row of any other label file belongs to the dated folder of its image; without
    one, to the image's day of arrival, even if the image is gone; where none was ever seen, to the label file's own day of arrival.

    Args:
        file: the label file, as listed.
        row: a row with the key of its image.
        days: {key: day} of the objects that lie or lay in no dated folder (the arrival ledger), label files among them.
    """
    return _folder_day(file.key) or _folder_day(row.image) or days.get(row.image) or days[file.key]


def speaks_of(file: _Keyed, day: date) -> bool:
    """Whether a label file may hold rows of a day: it lies in the day's folder, or in no dated one."""
    return _folder_day(file.key) in (None, day)


def _folder_day(key: str) -> date | None:
    found = _DAY_FOLDER.search(key)
    return _date(found.group(1)) if found else None


@lru_cache(4096)
def _date(text: str) -> date | None:
    """None for a folder such as 2026-13-40: objects in it are an error of the source, a row that names it names no image."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
