"""A local or mounted folder as a source."""

import errno
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
        self._real = os.path.realpath(root).rstrip("/")
        self._last: tuple[str | None, str] = (None, "")
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
        above, _, name = key.rpartition("/")
        path = f"{self._folder(above, key)}/{name}"
        try:
            with open(path, "rb", buffering=0, opener=_no_link) as file:
                return file.read() if first_bytes is None else file.read(first_bytes)
        except FileNotFoundError:
            raise FileNotFoundError(gone(key, str(self.root))) from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise SourceError(f"{key}: leaves the source folder {self.root}: it is a symbolic link.") from None
            raise SourceUnreachableError(
                f"data.source: {path} cannot be read: {str(error.strerror).lower()}. Give this user the right to read it, or remove it; "
                "then materialize raw_images of its day again."
            ) from None

    def _folder(self, above: str, key: str) -> str:
        """The real place of a key's folder; the one last used is not looked up again."""
        last = self._last
        if last[0] != above:
            place = os.path.realpath(f"{self._real}/{above}")
            if ".." in key.split("/") or not f"{place}/".startswith(f"{self._real}/"):
                raise SourceError(f"{key}: leaves the source folder {self.root}.")
            last = self._last = above, place
        return last[1]

    def _telling(self, found: Iterator[Listed]) -> Iterator[Listed]:
        try:
            yield from found
        except OSError as error:
            where, why = str(error.filename or self.root).rstrip("/"), str(error.strerror).lower()
            raise SourceUnreachableError(
                f"data.source: {where} cannot be listed: {why}. Look at the folder and its rights, then materialize raw_images again."
            ) from None

    def _walk(self, above: str, start_after: str, wanted: Callable[[str], bool]) -> Iterator[Listed]:
        """The files below a folder; `above` is its key with a slash at the end. `wanted` chooses among its folders by name."""
        try:
            with os.scandir(f"{self.root}/{above}") as entries:
                # a folder sorts as its keys do, with the slash: "a-b" comes before "a/b", though "a" comes before "a-b"
                found = sorted(
                    (f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name, entry)
                    for entry in entries
                    if not entry.name.startswith(".") and not entry.is_symlink()
                )
        except FileNotFoundError:
            if above == _ROOT:
                raise
            return  # the folder was removed meanwhile, and its objects with it
        for name, entry in found:
            key = above + name
            if name.endswith("/"):
                if wanted(name[:-1]) and (key > start_after or start_after.startswith(key)):
                    yield from self._walk(key, start_after, lambda _: True)
            elif key > start_after:
                listed = _listed(key, entry)
                if listed is not None:
                    yield listed

    def _one(self, key: str) -> Iterator[Listed]:
        listed = _listed(key, self.root / key)
        if listed is not None:
            yield listed


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _listed(key: str, file: "os.DirEntry[str] | Path") -> Listed | None:
    try:
        key.encode()
    except UnicodeEncodeError:
        raise SourceError(f"data.source: the name of {os.fsencode(file)!r} is not UTF-8. Rename the file.") from None
    try:
        status = file.stat(follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    etag = f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"
    return Listed(key, status.st_size, etag, datetime.fromtimestamp(status.st_mtime, UTC))
