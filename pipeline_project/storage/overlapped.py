"""Many small reads: one by one where each is quick, in waiting threads where they are slow."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS = 16
_SLOW_S = 0.003  # what a local disk needs for a small file is far less, what a network needs is more
_AHEAD = 1024  # items begun before the first of them is taken, so that few results are in memory


class Overlapped:
    """Calls functions that wait, in order. It remembers whether they were slow, so one object serves many calls."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """The function of each item, in order; what it raises is raised."""
        for place, item in enumerate(items):
            if self._threads is not None:
                for start in range(place, len(items), _AHEAD):
                    yield from self._threads.map(function, items[start : start + _AHEAD])
                return
            began = time.monotonic()
            found = function(item)
            if time.monotonic() - began > _SLOW_S:
                self._threads = ThreadPoolExecutor(THREADS)
            yield found
