"""What the sources in a bucket have in common, whatever the cloud."""

from abc import abstractmethod
from collections.abc import Iterator
from datetime import date

from pipeline_project.ingest.sources.base import Listed, Source, is_day_folder


class BucketSource(Source):
    """Objects below a prefix of a bucket. Empty objects that stand for folders (their keys end with a slash) are none."""

    def scan(self, start_after: str | None = None) -> Iterator[Listed]:
        return (o for o in self._below("", start_after or "") if _is_object(o))

    def list_day(self, day: date) -> list[Listed]:
        found, folders = self._top()
        for name in folders:
            if not is_day_folder(name) or name == day.isoformat():
                found += self._below(f"{name}/", "")
        return sorted((o for o in found if _is_object(o)), key=lambda o: o.key)

    @abstractmethod
    def _below(self, folder: str, start_after: str) -> Iterator[Listed]:
        """Objects whose keys begin with `folder` (empty, or with a slash at the end) and come after `start_after`, in key order."""

    @abstractmethod
    def _top(self) -> tuple[list[Listed], list[str]]:
        """Objects in no folder, and the names of the topmost folders."""


def _is_object(found: Listed) -> bool:
    return bool(found.key) and not found.key.endswith("/")
