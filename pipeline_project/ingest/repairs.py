"""Repaired images: what takes the place of bytes in quarantine, and on whose word.

A repair is `restricted/repaired/<image id of the original>/<image id of the repaired bytes>` and beside it `record.json`, written last: it
names the repair that counts.
"""

import json
from datetime import date, datetime
from typing import Literal

from pipeline_project.contracts import Digest, Record
from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.storage import ByteStore

REPAIRED = "restricted/repaired"


class Repair(Record):
    """Who gave which bytes for an image in quarantine, why, and on which days the original had been rejected."""

    version: Literal[1] = 1
    original: Digest
    repaired: Digest
    who: str
    when: datetime
    reason: str
    days: list[date]

    @property
    def key(self) -> str:
        """Where the repaired bytes lie in the store."""
        return f"{REPAIRED}/{self.original}/{self.repaired}"


def repairs(store: ByteStore) -> dict[str, str]:
    """{image id of the bytes in quarantine: store key of the repaired bytes}."""
    return {repair.original: repair.key for repair in repair_records(store)}


def repair_records(store: ByteStore) -> list[Repair]:
    """Every repair that counts, sorted by original.

    Raises:
        ValueError: a record is damaged.
    """
    return [_read(store, key) for key in store.list(f"{REPAIRED}/") if key.endswith("/record.json")]


def write_repair(store: ByteStore, repair: Repair, data: bytes) -> None:
    """Keep repaired bytes and their record; an earlier repair of the same original counts no more, and its bytes go."""
    assert sha256_bytes(data) == repair.repaired
    store.write(repair.key, data)
    record = f"{REPAIRED}/{repair.original}/record.json"
    store.write(record, canonical_json(repair.model_dump(mode="json")))
    for key in store.list(f"{REPAIRED}/{repair.original}/"):
        if key not in (record, repair.key):
            store.delete(key)


def _read(store: ByteStore, key: str) -> Repair:
    try:
        return Repair.model_validate(json.loads(store.read(key)))
    except ValueError as error:
        raise ValueError(f"{key} in {store.uri} is damaged ({error}). Restore it, or release the repaired image again.") from None
