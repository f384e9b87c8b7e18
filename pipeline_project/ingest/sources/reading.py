"""Reading many objects: one by one where they are near, by waiting threads where they are far."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipeline_project.ingest.sources.base import Source

_READERS = 16
_SLOW_S = 0.003  # what a near source needs for a small object is far less
_AHEAD = 1024  # objects asked for at a time, so that few are in memory


class Reader:
    """Reads a source's objects in the order asked for. It remembers how far the source is."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._threads: ThreadPoolExecutor | None = None

    def read(self, keys: Sequence[str], first_bytes: int | None = None) -> Iterator[bytes]:
        """The bytes of each object, or its first ones. Raises what `Source.read` raises."""
        for place, key in enumerate(keys):
            if self._threads is not None:
                for start in range(place, len(keys), _AHEAD):
                    yield from self._threads.map(lambda one: self._source.read(one, first_bytes), keys[start : start + _AHEAD])
                return
            began = time.monotonic()
            data = self._source.read(key, first_bytes)
            if time.monotonic() - began > _SLOW_S:
                self._threads = ThreadPoolExecutor(_READERS)
            yield data
