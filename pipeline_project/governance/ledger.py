"""The audit ledger (R194, R196): who did what to which subject, and when; appended, never changed.

One object per entry, created once, each naming the digest of the entry before it. Changing, removing or inserting an entry breaks the
chain at that number. Cutting off the end leaves a shorter, whole chain; `verify` finds that when it is given an earlier state, which is
why the dossier records one.
"""

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field, ValidationError

from pipeline_project.contracts import Record
from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.storage import AlreadyExistsError, ByteStore

PREFIX = "artifacts/audit/"
GENESIS = "0" * 64
_ATTEMPTS = 200
_DOES_NOT_FOLLOW = "it does not follow from the bytes of the entry before"


class LedgerEntry(Record):
    """One action. `previous` is the SHA-256 of the stored bytes of the entry before, 64 zeros for the first."""

    version: Literal[1] = 1
    number: int = Field(ge=1)
    time: datetime
    actor: str = Field(min_length=1, max_length=200)
    action: str = Field(min_length=1, max_length=200)
    subject: str = Field(min_length=1, max_length=500)
    details: dict[str, Any]
    previous: str = Field(pattern=r"^[0-9a-f]{64}$")


class LedgerState(Record):
    """What `verify` found. `head` is the digest of entry `entries`; `broken` is the first number that does not hold, else None."""

    entries: int
    head: str
    broken: int | None
    reason: str

    @property
    def intact(self) -> bool:
        """Whether every entry holds."""
        return self.broken is None


def append(store: ByteStore, actor: str, action: str, subject: str, details: dict[str, Any] | None = None) -> LedgerEntry:
    """Add an entry after the newest one. Of concurrent writers each gets its own number.

    Args:
        actor: who: a person, or the name of a service.
        action: what, in the past tense of one verb: "approved", "deployed", "rolled_back", "erased".
        subject: of what: a digest, a document, an image id.
        details: JSON values.

    Raises:
        ValueError: `details` is not JSON, a text is empty or too long, or the ledger's last entry is unreadable.
        RuntimeError: other writers were faster in every attempt.
    """
    canonical_json(details or {})  # refuses NaN, which would be stored as null
    for attempt in range(_ATTEMPTS):
        keys = store.list(PREFIX)
        number, previous = 1, GENESIS
        if keys:
            number, previous = _number(keys[-1]) + 1, sha256_bytes(store.read(keys[-1]))
        entry = LedgerEntry(
            number=number, time=datetime.now(UTC), actor=actor, action=action, subject=subject, details=details or {}, previous=previous
        )
        try:
            store.create(_key(number), canonical_json(entry.model_dump(mode="json")))
        except AlreadyExistsError:
            time.sleep(random.uniform(0, 0.002 * min(attempt + 1, 20)))  # noqa: S311 - spreads writers, keeps no secret
            continue
        return entry
    raise RuntimeError(f"{store.uri}/{PREFIX}: {_ATTEMPTS} attempts to append lost to other writers. Try again when it is quieter.")


def entries(store: ByteStore) -> Iterator[LedgerEntry]:
    """Every entry in order, unverified. Raises `ValueError` at one that cannot be read."""
    for key in store.list(PREFIX):
        yield LedgerEntry.model_validate_json(store.read(key))


def verify(store: ByteStore, since: LedgerState | None = None) -> LedgerState:
    """Walk the chain from the first entry.

    Args:
        since: a state seen before; the ledger must still contain it, which finds a cut-off end and a rewritten whole.

    Returns:
        The state; `broken` names the first number that is missing, altered or does not follow from the one before.
    """
    previous, stored = GENESIS, store.list(PREFIX)
    for expected, key in enumerate(stored, start=1):
        data = store.read(key)
        problem = _problem(key, data, expected, previous)
        if problem:
            # The digest of n stands in n + 1. Where n + 2 agrees with the bytes of n + 1, it was n that was altered.
            blamed = expected - 1 if problem == _DOES_NOT_FOLLOW and _agrees(store, stored, expected, data) else expected
            return _broken(max(1, blamed), previous, f"entry {expected}: {problem}")
        previous = sha256_bytes(data)
        if since is not None and expected == since.entries and previous != since.head:
            return _broken(expected, previous, f"entry {expected} differs from the state recorded earlier")
    if since is not None and len(stored) < since.entries:
        reason = f"the ledger ends at {len(stored)}; entries up to {since.entries} were recorded earlier"
        return _broken(len(stored) + 1, previous, reason)
    return LedgerState(entries=len(stored), head=previous, broken=None, reason="")


def _problem(key: str, data: bytes, expected: int, previous: str) -> str:
    """What is wrong with the entry that should be number `expected`, or an empty text."""
    if key != _key(expected):
        return f"it is missing; the next object is {key}"
    try:
        entry = LedgerEntry.model_validate_json(data)
    except ValidationError:
        return "it cannot be read"
    if entry.number != expected:
        return f"it says that it is number {entry.number}"
    return "" if entry.previous == previous else _DOES_NOT_FOLLOW


def _agrees(store: ByteStore, stored: list[str], number: int, data: bytes) -> bool:
    """Whether the entry after `number` carries the digest of its bytes; true where there is none."""
    if number >= len(stored):
        return True
    try:
        return LedgerEntry.model_validate_json(store.read(stored[number])).previous == sha256_bytes(data)
    except ValidationError:
        return True


def _broken(number: int, head: str, reason: str) -> LedgerState:
    return LedgerState(entries=number - 1, head=head, broken=number, reason=reason)


def _key(number: int) -> str:
    return f"{PREFIX}{number:012d}.json"


def _number(key: str) -> int:
    return int(key.removeprefix(PREFIX).removesuffix(".json"))
