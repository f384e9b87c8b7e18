"""The arrival ledger: on which day each object without a dated folder was first seen, fixed from then on.

It is a set of files, each named after its content, that say {key: day}; where two speak of one key, the earlier day counts. So files may be
written at the same time, twice or in any order, and merged into one: a merged file is there before those it replaces are deleted, and who
meets a deleted file lists again.
"""

import contextlib
import threading
from collections.abc import Mapping
from datetime import date

from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.storage import AlreadyExistsError, ByteStore

LEDGER = "processed-data/arrivals"
MERGE_ABOVE = 32  # files
_TRIES = 5

_last: dict[str, tuple[frozenset[str], dict[str, date]]] = {}  # what this process read last, for one store
_lock = threading.Lock()


def first_seen(store: ByteStore, seen: Mapping[str, date]) -> dict[str, date]:
    """The day of each key: the one the ledger has, else the one given here, which the ledger has from now on.

    Costs a listing and the files that this process has not read yet: at most `MERGE_ABOVE` of them.
    """
    files, known = _read(store)
    new = {key: day for key, day in seen.items() if key not in known}
    if new:
        files |= {_write(store, new)}
    if len(files) > MERGE_ABOVE:
        merged = _write(store, _joined(known, new))
        for file in files - {merged}:
            store.delete(file)
    return {key: known.get(key) or new[key] for key in seen}


def read_ledger(store: ByteStore) -> dict[str, date]:
    """{key: day} of everything that was ever seen."""
    return dict(_read(store)[1])


def _write(store: ByteStore, arrivals: Mapping[str, date]) -> str:
    record = canonical_json({key: day.isoformat() for key, day in sorted(arrivals.items())})
    file = f"{LEDGER}/{sha256_bytes(record)[:32]}.json"
    with contextlib.suppress(AlreadyExistsError):  # another run of the same scan wrote the same arrivals
        store.create(file, record)
    return file


def _read(store: ByteStore) -> tuple[frozenset[str], dict[str, date]]:
    for _ in range(_TRIES):
        files = frozenset(store.list(f"{LEDGER}/"))
        with _lock:
            before, known = _last.get(store.uri, (frozenset(), {}))
        try:
            if before - files:  # merged into another, or a ledger that was put back by hand: what is there now decides
                before, known = frozenset(), {}
            fresh = _joined(known, *(_days(store.read_json(file)) for file in sorted(files - before)))
        except FileNotFoundError:  # merged into another and deleted after it was listed
            continue
        with _lock:
            _last.clear()
            _last[store.uri] = (files, fresh)
        return files, fresh
    raise OSError(f"{LEDGER} in {store.uri} changes faster than it can be read. Try again in a minute.")


def _days(record: Mapping[str, str]) -> dict[str, date]:
    return {key: date.fromisoformat(text) for key, text in record.items()}


def _joined(first: Mapping[str, date], *others: Mapping[str, date]) -> dict[str, date]:
    if not any(others):
        return dict(first)
    days = dict(first)
    for other in others:
        for key, day in other.items():
            days[key] = min(day, days.get(key, day))
    return days
