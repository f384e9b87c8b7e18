"""The store in a folder."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from pipeline_project.storage.byte_store.base import DRAFT, AlreadyExistsError, ByteStore, StoredKey, checked
from pipeline_project.storage.errors import StoreError, explain_os_error

_PIECE = 1 << 20  # bytes copied at a time


class FolderStore(ByteStore):
    """A folder of a local or shared file system.

    Power cuts: every file is flushed before it gets its name, so there are no half ones. A document that was created once is on the disk
    when `create` returns, its name too. The name of a file that was merely written may be lost with the last seconds before the cut,
    then the bytes before it count; on one disk a journalling file system (ext4, XFS) loses no name that is older than another it kept.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, key: str) -> bytes:
        path = self.root / checked(key)
        with self._telling(f"read {key}"):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                raise FileNotFoundError(f"{key}: not in {self.root}") from None

    def write(self, key: str, data: bytes) -> None:
        with self._draft(key, len(data), lambda file: file.write(data)) as (draft, path):
            draft.replace(path)

    def write_file(self, key: str, path: Path) -> None:
        place = self.root / checked(key)
        draft = place.with_name(f"{DRAFT}{secrets.token_hex(8)}")
        with self._telling(f"write {key} ({path.stat().st_size:,} bytes)"), path.open("rb") as source:
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.fsync(source.fileno())
                os.link(path, draft)  # of one file system: nothing is copied
            except OSError:
                with self._draft(key, path.stat().st_size, lambda file: shutil.copyfileobj(source, file, _PIECE)) as (copy, _):
                    copy.replace(place)
            else:
                draft.replace(place)

    def create(self, key: str, data: bytes) -> None:
        with self._draft(key, len(data), lambda file: file.write(data)) as (draft, path):
            try:
                os.link(draft, path)  # fails when the name is taken, unlike a rename
            except FileExistsError:
                raise AlreadyExistsError(f"{key} exists already in {self.root}") from None
            for folder in (path.parent, *path.parent.relative_to(self.root).parents):
                _flush_folder(self.root / folder)

    def exists(self, key: str) -> bool:
        path = self.root / checked(key)
        with self._telling(f"look for {key}"):
            return path.is_file()

    def list(self, prefix: str) -> list[str]:
        above = prefix.rpartition("/")[0]
        folder = self.root / (checked(above) if above else "")
        with self._telling(f"list {prefix or 'all keys'}"):
            found = [
                path.relative_to(self.root).as_posix()
                for path in (folder.rglob("*") if folder.is_dir() else ())
                if path.is_file() and not path.name.startswith(DRAFT)
            ]
        return sorted(key for key in found if key.startswith(prefix))

    def entries(self, prefix: str) -> Sequence[StoredKey]:
        found = (self._entry(key) for key in self.list(prefix))
        return [entry for entry in found if entry is not None]

    def drafts(self) -> Sequence[StoredKey]:
        with self._telling("list drafts"):
            names = sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob(f"{DRAFT}*") if path.is_file())
        found = (self._entry(name) for name in names)
        return [entry for entry in found if entry is not None]

    def delete(self, key: str) -> None:
        path = self.root / checked(key)
        with self._telling(f"delete {key}"):
            path.unlink(missing_ok=True)

    def local_path(self, key: str) -> Path:
        if not self.exists(key):
            raise FileNotFoundError(f"{key}: not in {self.root}")
        return self.root / key

    @property
    def uri(self) -> str:
        return str(self.root)

    def _entry(self, key: str) -> StoredKey | None:
        with self._telling(f"look for {key}"):
            try:
                found = (self.root / key).stat()
            except FileNotFoundError:
                return None
        return StoredKey(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """The system's errors as `StoreError`; a missing key stays a `FileNotFoundError`."""
        try:
            yield
        except (StoreError, AlreadyExistsError, FileNotFoundError):
            raise
        except OSError as error:
            raise StoreError(what, self.uri, *explain_os_error(error, self.root)) from error

    @contextmanager
    def _draft(self, key: str, size: int, fill: Callable[[BinaryIO], object]) -> Iterator[tuple[Path, Path]]:
        """The bytes in a hidden file beside the key's own, and that key's path; the draft never stays."""
        path = self.root / checked(key)
        draft = path.with_name(f"{DRAFT}{secrets.token_hex(8)}")
        with self._telling(f"write {key} ({size:,} bytes)"):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with draft.open("xb") as file:
                    fill(file)
                    file.flush()
                    os.fsync(file.fileno())
                yield draft, path
            except FileNotFoundError as error:  # the folder was removed meanwhile: no missing key
                raise StoreError(f"write {key}", self.uri, *explain_os_error(error, self.root)) from error
            finally:
                with suppress(OSError):  # renamed, or a path that leads nowhere
                    draft.unlink()


def _flush_folder(folder: Path) -> None:
    """Bring a folder's names to the disk, where its file system knows how to."""
    with suppress(OSError):  # some network file systems refuse it; they keep names as well as they can
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(at)
        finally:
            os.close(at)
