import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline_project.digests import canonical_json
from pipeline_project.governance import ledger
from pipeline_project.storage import FolderStore


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path)


def key(number):
    return f"{ledger.PREFIX}{number:012d}.json"


def fill(store, count=6):
    for number in range(count):
        ledger.append(store, "Ada", "deployed", f"document {number}", {"weight": 0.1})
    return ledger.verify(store)


def change(store, at, **values):
    store.write(key(at), canonical_json({**json.loads(store.read(key(at))), **values}))


def test_an_empty_and_a_whole_ledger_hold(store):
    assert ledger.verify(store) == ledger.LedgerState(entries=0, head=ledger.GENESIS, broken=None, reason="")
    state = fill(store)
    assert state.intact and state.entries == 6
    assert [entry.subject for entry in ledger.entries(store)] == [f"document {n}" for n in range(6)]


@pytest.mark.parametrize("number", [1, 3, 5])
def test_an_altered_entry_is_named(store, number):
    fill(store)
    change(store, number, actor="Mallory")
    assert ledger.verify(store).broken == number


@pytest.mark.parametrize("number", [2, 4])
def test_an_entry_whose_link_was_altered_is_named(store, number):
    fill(store)
    change(store, number, previous="f" * 64)
    assert ledger.verify(store).broken == number


@pytest.mark.parametrize("number", [1, 3])
def test_a_removed_entry_is_named(store, number):
    fill(store)
    store.delete(key(number))
    state = ledger.verify(store)
    assert state.broken == number and "missing" in state.reason


def test_garbage_renumbering_and_foreign_objects_are_found(store):
    fill(store)
    change(store, 4, number=5)
    assert ledger.verify(store).broken == 4
    store.write(key(2), b"not json")
    assert ledger.verify(store).broken == 2
    store.write(f"{ledger.PREFIX}0.json", b"{}")
    assert ledger.verify(store).broken == 1


def test_the_last_entry_altered_or_cut_off_is_found_with_an_earlier_state(store):
    state = fill(store)
    assert ledger.verify(store, state).intact
    change(store, 6, actor="Mallory")
    assert ledger.verify(store).intact and ledger.verify(store, state).broken == 6
    store.delete(key(6))
    assert ledger.verify(store, state).broken == 6


def test_writers_at_once_get_a_number_each_and_the_chain_holds(store):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: ledger.append(store, f"worker {n}", "served", "x").number, range(60)))
    assert sorted(found) == list(range(1, 61))
    assert ledger.verify(store).intact


def test_what_is_no_json_is_refused(store):
    with pytest.raises(ValueError, match="Out of range float"):
        ledger.append(store, "Ada", "measured", "x", {"value": float("nan")})
    with pytest.raises(ValueError, match="actor"):
        ledger.append(store, "", "measured", "x")
    assert ledger.verify(store).entries == 0
