"""What a source is: a tree of objects, listed in key order and read, never written.

A key is an object's path relative to the source, `/`-separated; keys are ordered by their UTF-8 bytes, as S3 orders them.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import date, datetime
from functools import lru_cache
from typing import NamedTuple

_DAY_FOLDER = re.compile(r"^\d{4}-\d{2}-\d{2}$")


class SourceError(ValueError):
    """The source cannot be read, or holds what it must not."""


class SourceUnreachableError(SourceError, OSError):
    """The source failed or may not be read; a later try may succeed."""


class Listed(NamedTuple):
    """An object as a listing tells it. `etag` changes whenever the bytes do."""

    key: str
    size: int
    etag: str
    modified: datetime


class Source(ABC):
    """A tree of objects, read-only. Opening one neither lists nor connects, so it is cheap in every process."""

    @abstractmethod
    def scan(self, start_after: str | None = None) -> Iterator[Listed]:
        """Every object whose key comes after `start_after`, lazily, in the order of the keys' UTF-8 bytes.

        A caller that stops early has listed little more than it took, and goes on later from the last key it saw.

        Raises:
            SourceUnreachableError: while it is iterated.
        """

    @abstractmethod
    def list_day(self, day: date) -> list[Listed]:
        """Objects in the day's folder, and all objects in no dated folder at the top; sorted by key."""

    @abstractmethod
    def read(self, key: str, first_bytes: int | None = None) -> bytes:
        """An object's bytes, all of them, or only its first ones.

        Raises:
            FileNotFoundError: there is no such object (any more).
            SourceUnreachableError: it cannot be read, or the connection ended before all bytes came.
        """

    def find(self, key: str) -> Listed | None:
        """One object as a listing would tell it, or None."""
        for found in self.scan(just_before(key)):
            if found.key >= key:
                return found if found.key == key else None
        return None

    def list_all(self) -> list[Listed]:
        """Every object, sorted by key."""
        return list(self.scan())


def is_day_folder(name: str) -> bool:
    """Whether a folder's name has the form of a day, YYYY-MM-DD."""
    return bool(_DAY_FOLDER.match(name))


def in_other_day(key: str, day: date) -> bool:
    """Whether the key's topmost folder names another day."""
    top, slash, _ = key.partition("/")
    return bool(slash) and is_day_folder(top) and top != day.isoformat()


def day_folder(key: str) -> date | None:
    """The day a key's folder names, or None. Raises `SourceError` for a folder like 2026-13-40."""
    return _day_of(key.rpartition("/")[0])


@lru_cache(maxsize=64)
def _day_of(folder: str) -> date | None:
    """As `day_folder`; keys come folder by folder, so the last few are enough to remember."""
    for part in folder.split("/"):
        if is_day_folder(part):
            try:
                return date.fromisoformat(part)
            except ValueError:
                raise SourceError(f"{folder}: the folder {part} looks like a day but is none. Rename it.") from None
    return None


def just_before(key: str) -> str:
    """A text that sorts before the key, with few possible keys between the two, so that a scan after it begins with the key."""
    last = ord(key[-1])
    return key[:-1] + (chr(last - 1) if 0x20 < last - 1 < 0xD800 else "")


def gone(key: str, source: str) -> str:
    """The message for an object that was listed and is not there."""
    return f"{key}: no longer in {source}. Materialize raw_images of its day again, then what follows it."
