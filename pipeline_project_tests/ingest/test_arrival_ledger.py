"""The arrival ledger: what was first seen stays, however many write and merge at the same time, and reading it stays cheap."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_project.ingest.sources import arrival_ledger
from pipeline_project.ingest.sources.arrival_ledger import LEDGER, MERGE_ABOVE, first_seen, read_ledger
from pipeline_project.storage import FolderStore

ONE = date(2026, 11, 1)


class CountingStore(FolderStore):
    """A folder that counts what is asked of it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads = self.lists = self.creates = 0

    def read(self, key: str) -> bytes:
        self.reads += 1
        return super().read(key)

    def list(self, prefix: str) -> list[str]:
        self.lists += 1
        return super().list(prefix)

    def create(self, key: str, data: bytes) -> None:
        self.creates += 1
        super().create(key, data)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path)


def forget() -> None:
    """As another process, which has read nothing yet."""
    arrival_ledger._last.clear()


def test_first_day_stays(store: CountingStore) -> None:
    assert first_seen(store, {"a": ONE}) == {"a": ONE}
    assert first_seen(store, {"a": ONE + timedelta(1), "b": ONE}) == {"a": ONE, "b": ONE}
    forget()
    assert first_seen(store, {"a": ONE - timedelta(1)}) == {"a": ONE}
    assert read_ledger(store) == {"a": ONE, "b": ONE}


def test_reading_stays_bounded_over_many_arrivals(store: CountingStore) -> None:
    for n in range(200):
        first_seen(store, {f"{n:04d}.jpg": ONE + timedelta(n // 10)})
        assert len(FolderStore(store.root).list(f"{LEDGER}/")) <= MERGE_ABOVE
    store.reads = store.lists = store.creates = 0
    forget()
    assert first_seen(store, {"0199.jpg": ONE, "0000.jpg": ONE}) == {"0199.jpg": ONE + timedelta(19), "0000.jpg": ONE}
    assert (store.lists, store.creates) == (1, 0)
    assert store.reads <= MERGE_ABOVE
    store.reads = 0
    first_seen(store, {"0150.jpg": ONE})
    assert store.reads == 0, "files never change, so this process has them already"
    assert len(read_ledger(store)) == 200


def test_many_writers_and_mergers_lose_nothing(store: CountingStore) -> None:
    def arrive(writer: int) -> None:
        own = FolderStore(store.root)
        for n in range(40):
            key = f"{n % 7}-{writer}-{n}"
            assert first_seen(own, {key: ONE + timedelta(n), "shared": ONE + timedelta(writer)})[key] == ONE + timedelta(n)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(arrive, range(6)))
    forget()
    known = read_ledger(store)
    assert {key for key in known if key != "shared"} == {f"{n % 7}-{writer}-{n}" for writer in range(6) for n in range(40)}
    assert all(known[f"{n % 7}-{writer}-{n}"] == ONE + timedelta(n) for writer in range(6) for n in range(40))
    assert ONE <= known["shared"] <= ONE + timedelta(5)


def test_merger_that_was_killed_before_it_deleted(store: CountingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "delete", lambda _: None)
    for n in range(MERGE_ABOVE + 5):
        first_seen(store, {str(n): ONE})
    monkeypatch.undo()
    forget()
    assert set(first_seen(store, {"new": ONE})) == {"new"}
    assert set(read_ledger(store)) == {"new", *(str(n) for n in range(MERGE_ABOVE + 5))}
    assert len(store.list(f"{LEDGER}/")) == 1


def test_file_that_goes_between_listing_and_reading(store: CountingStore) -> None:
    """Another process merges right after this one listed."""
    for n in range(3):
        first_seen(store, {str(n): ONE})
    forget()
    original, done = store.list, []

    def list_then_merge(prefix: str) -> list[str]:
        found = original(prefix)
        if not done:
            done.append(1)
            other = FolderStore(store.root)
            merged = arrival_ledger._write(other, {str(n): ONE for n in range(3)})
            for key in found:
                assert key != merged
                other.delete(key)
        return found

    store.list = list_then_merge  # type: ignore[method-assign]
    assert read_ledger(store) == {str(n): ONE for n in range(3)}


def test_ledger_that_was_restored_by_hand(store: CountingStore) -> None:
    first_seen(store, {"a": ONE})
    [file] = store.list(f"{LEDGER}/")
    store.delete(file)
    assert first_seen(store, {"b": ONE}) == {"b": ONE}
    assert read_ledger(store) == {"b": ONE}


@settings(max_examples=30, deadline=None)
@given(batches=st.lists(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9), max_size=4), max_size=12), every=st.integers(1, 4))
def test_like_a_dictionary_that_keeps_the_first(
    tmp_path_factory: pytest.TempPathFactory, batches: list[dict[str, int]], every: int
) -> None:
    store = FolderStore(tmp_path_factory.mktemp("ledger"))
    model: dict[str, date] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrival_ledger, "MERGE_ABOVE", every)
        for batch in batches:
            days = {key: ONE + timedelta(n) for key, n in batch.items()}
            for key, day in days.items():
                model.setdefault(key, day)
            assert first_seen(store, days) == {key: model[key] for key in days}
            forget()
    assert read_ledger(store) == model
