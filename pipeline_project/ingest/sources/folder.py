"""A local or mounted folder as a source."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

from pipeline_project.ingest.sources.base import Listed, Source, SourceError, SourceUnreachableError, gone, is_day_folder

_ROOT = ""


class FolderSource(Source):
    """A local folder. Symbolic links are not followed; hidden files and those in hidden folders are not objects."""

    def __init__(self, root: Path) -> None:
        self.root = root
        if not root.is_dir():
            raise SourceError(f"data.source: {root} is not a folder. Name an existing folder, or s3://bucket/prefix/.")

    def scan(self, start_after: str | None = None) -> Iterator[Listed]:
        return self._telling(self._walk(_ROOT, start_after or "", lambda _: True))

    def list_day(self, day: date) -> list[Listed]:
        return list(self._telling(self._walk(_ROOT, "", lambda name: not is_day_folder(name) or name == day.isoformat())))

    def find(self, key: str) -> Listed | None:
        parts = key.split("/")
        above = [self.root.joinpath(*parts[: depth + 1]) for depth in range(len(parts))]
        if any(part in ("", "..") or part.startswith(".") for part in parts) or any(place.is_symlink() for place in above):
            return None
        return next(self._telling(self._one(key)), None)

    def read(self, key: str, first_bytes: int | None = None) -> bytes:
        path = (self.root / key).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise SourceError(f"{key}: leaves the source folder {self.root}.")
        try:
            with path.open("rb") as file:
                return file.read() if first_bytes is None else file.read(first_bytes)
        except FileNotFoundError:
            raise FileNotFoundError(gone(key, str(self.root))) from None
        except OSError as error:
            raise SourceUnreachableError(
                f"data.source: {path} cannot be read: {str(error.strerror).lower()}. Give this user the right to read it, or remove it; "
                "then materialize raw_images of its day again."
            ) from None

    def _telling(self, found: Iterator[Listed]) -> Iterator[Listed]:
        try:
            yield from found
        except OSError as error:
            where, why = error.filename or self.root, str(error.strerror).lower()
            raise SourceUnreachableError(
                f"data.source: {where} cannot be listed: {why}. Look at the folder and its rights, then materialize raw_images again."
            ) from None

    def _walk(self, above: str, start_after: str, wanted: Callable[[str], bool]) -> Iterator[Listed]:
        """The files below a folder; `above` is its key with a slash at the end. `wanted` chooses among its folders by name."""
        try:
            with os.scandir(self.root / above) as entries:
                # a folder sorts as its keys do, with the slash: "a-b" comes before "a/b", though "a" comes before "a-b"
                names = sorted(
                    f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
                    for entry in entries
                    if not entry.name.startswith(".") and not entry.is_symlink()
                )
        except FileNotFoundError:
            if above == _ROOT:
                raise
            return  # the folder was removed meanwhile, and its objects with it
        for name in names:
            key = above + name
            if name.endswith("/"):
                if wanted(name[:-1]) and (key > start_after or start_after.startswith(key)):
                    yield from self._walk(key, start_after, lambda _: True)
            elif key > start_after:
                listed = self._listed(key)
                if listed is not None:
                    yield listed

    def _one(self, key: str) -> Iterator[Listed]:
        listed = self._listed(key)
        if listed is not None:
            yield listed

    def _listed(self, key: str) -> Listed | None:
        path = self.root / key
        try:
            key.encode()
        except UnicodeEncodeError:
            raise SourceError(f"data.source: the name of {os.fsencode(path)!r} is not UTF-8. Rename the file.") from None
        try:
            status = path.stat(follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        etag = hashlib.md5(f"{status.st_mtime_ns}:{status.st_size}:{status.st_ino}".encode(), usedforsecurity=False).hexdigest()
        return Listed(key, status.st_size, etag, datetime.fromtimestamp(status.st_mtime, UTC))
