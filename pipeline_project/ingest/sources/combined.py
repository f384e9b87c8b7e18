"""Several sources side by side, as one: the key of an object begins with the name of its source."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date

from pipeline_project.ingest.sources.base import Listed, Source, SourceError, SourceUnreachableError

_AT_ONCE = 8  # sources that are listed at the same time


class CombinedSource(Source):
    """Sources by name. Each counts: where one cannot be listed, the whole cannot, and the error names it.

    Args:
        sources: {name: source}; names hold no slash.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = dict(sorted(sources.items(), key=lambda item: f"{item[0]}/"))

    def scan(self, start_after: str | None = None) -> Iterator[Listed]:
        for name, source in self._sources.items():
            below = f"{name}/"
            if start_after is None or start_after < below:
                yield from self._scan(name, source, None)
            elif start_after.startswith(below):
                yield from self._scan(name, source, start_after.removeprefix(below))

    def list_day(self, day: date) -> list[Listed]:
        return self._at_once(lambda source: source.list_day(day))

    def list_all(self) -> list[Listed]:
        return self._at_once(lambda source: source.list_all())

    def read(self, key: str, first_bytes: int | None = None) -> bytes:
        name, _, below = key.partition("/")
        source = self._sources.get(name)
        if source is None:
            raise FileNotFoundError(f"{key}: data.source has no source {name}; there are {', '.join(self._sources)}.")
        with _naming(name):
            return source.read(below, first_bytes)

    def _scan(self, name: str, source: Source, start_after: str | None) -> Iterator[Listed]:
        with _naming(name):
            yield from (_renamed(name, found) for found in source.scan(start_after))

    def _at_once(self, listing: Callable[[Source], list[Listed]]) -> list[Listed]:
        def listed(name: str) -> list[Listed]:
            with _naming(name):
                return [_renamed(name, found) for found in listing(self._sources[name])]

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return [found for part in pool.map(listed, self._sources) for found in part]


def _renamed(name: str, found: Listed) -> Listed:
    return found._replace(key=f"{name}/{found.key}")


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Say in an error which source it was."""
    try:
        yield
    except SourceUnreachableError as error:
        raise SourceUnreachableError(f"source {name}: {error}") from error
    except SourceError as error:
        raise SourceError(f"source {name}: {error}") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"source {name}: {error}") from error
