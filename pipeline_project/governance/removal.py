"""Removing what a plan names, safely while runs publish and deploy, and told in the audit ledger.

For each batch: say what is about to go (`storage.removal`), read everything anew, spare what has become live, remove the rest. The record
of a version goes first, so a reader finds a version whole or not at all. A removal that is killed leaves files without a record, which
the next one takes; and its list, which the next one completes in the ledger.
"""

import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.governance import ledger
from pipeline_project.governance.liveness import LivenessReader
from pipeline_project.governance.retention import MIN_AGE, Piece, RemovalPlan, RetentionError, as_record, removable
from pipeline_project.governance.stored import Version
from pipeline_project.stage import StageContext
from pipeline_project.storage import ByteStore
from pipeline_project.storage.removal import NoticeExpiredError, RemovalNotice, drop_ended_notices, notices

_BEGUN = "artifacts/housekeeping/begun/"
_LISTS = "artifacts/housekeeping/removals/"
_BATCH = 200
_LOCAL = ("local cache", "tuning studies")


@dataclass(frozen=True)
class Removal:
    """What was removed. `spared`: planned, but it had become live meanwhile. `list_key`: the list's key in the store, "" for none."""

    versions: tuple[Version, ...]
    spared: tuple[Version, ...]
    pieces: tuple[Piece, ...]
    list_key: str

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(version.size for version in self.versions) + sum(piece.size for piece in self.pieces)


def apply_removal(context: StageContext, plan: RemovalPlan, *, actor: str = "pipeline gc") -> Removal:
    """Remove what a plan names and nothing has come to need since.

    Args:
        actor: who, for the audit ledger.

    Raises:
        RetentionError: what is live cannot be told, or another removal is at work.
        StoreError: the store failed. Run it again: what was removed is told in the ledger then.
    """
    store = context.artifacts.bytes
    at_work = notices(store)
    if at_work:
        raise RetentionError(f"Another removal is at work, by {at_work[0]['by']} (until {at_work[0]['until']}). Wait for it to end.")
    drop_ended_notices(store)
    for key in store.list(_BEGUN):
        _settle(store, key)
    if not plan.remove and not plan.pieces:
        return Removal((), (), (), "")
    token = secrets.token_hex(8)
    record = {"version": 1, "removal": token, "actor": actor, "begun": datetime.now(UTC).isoformat(), "horizon": plan.horizon.isoformat()}
    planned = record | {"removed": [as_record(v) for v in plan.remove], "other": [_as_record(p) for p in plan.pieces]}
    notice = RemovalNotice(store, actor)
    notice.announce(())
    try:
        store.write_json(f"{_BEGUN}{token}.json", planned)
        removed, spared = _remove_versions(context, plan, notice)
        pieces = tuple(_remove_pieces(context, plan, notice))
        list_key = _tell(store, record | {"removed": [as_record(v) for v in removed], "other": [_as_record(p) for p in pieces]})
        store.delete(f"{_BEGUN}{token}.json")
    except NoticeExpiredError as error:
        raise RetentionError(str(error)) from None
    finally:
        notice.withdraw()
    return Removal(tuple(removed), tuple(spared), pieces, list_key)


def _remove_versions(context: StageContext, plan: RemovalPlan, notice: RemovalNotice) -> tuple[list[Version], list[Version]]:
    reader = LivenessReader(context, plan.horizon)
    removed: list[Version] = []
    spared: list[Version] = []
    for start in range(0, len(plan.remove), _BATCH):
        batch = plan.remove[start : start + _BATCH]
        now = _announced(reader, notice, [version.prefix for version in batch])
        for version in batch:
            if version.prefix not in now:
                spared.append(version)
                continue
            for key in _in_order(now[version.prefix]):
                notice.keep_up()
                context.artifacts.bytes.delete(key)
            removed.append(now[version.prefix])
    notice.announce(())
    return removed, spared


def _announced(reader: LivenessReader, notice: RemovalNotice, prefixes: list[str]) -> dict[str, Version]:
    """Say what is about to go, and only then read what may: until that reading is done the notice must hold."""
    while True:
        notice.announce(prefixes)
        found = {version.prefix: version for version in removable(*reader.read())}
        if notice.holds:
            return found
        notice.seconds *= 2  # a large store


def _in_order(version: Version) -> list[str]:
    """A version's keys: the record, without which it is no version, then the payload, then the sidecars."""
    record, sidecars = f"{version.prefix}artifact.json", f"{version.prefix}sidecars/"
    return sorted((entry.key for entry in version.keys), key=lambda key: (key != record, key.startswith(sidecars), key))


def _remove_pieces(context: StageContext, plan: RemovalPlan, notice: RemovalNotice) -> Iterator[Piece]:
    """Remove the other things, those that were used meanwhile excepted."""
    store = context.artifacts.bytes
    for piece in plan.pieces:
        notice.keep_up()
        if piece.kind in _LOCAL:
            path = Path(piece.place)
            with suppress(FileNotFoundError):
                oldest = plan.made - MIN_AGE if path.name.startswith(".draft-") else plan.horizon
                if datetime.fromtimestamp(path.stat().st_mtime, UTC) >= oldest:
                    continue
            path.unlink(missing_ok=True)
            if piece.kind == "local cache":
                with suppress(OSError):  # not empty
                    path.parent.rmdir()
        elif _is_of_no_use(context, piece):
            store.delete(piece.place)
        else:
            continue
        yield piece


def _is_of_no_use(context: StageContext, piece: Piece) -> bool:
    """Look again at what may have come into use since it was planned."""
    if piece.kind == "reuse records":
        return _names_nothing(context, piece.place)
    if piece.kind == "heads of caches":
        _, name, partition, _ = piece.place.split("/")
        try:
            newest = context.artifacts.find(name, partition)
        except (ValueError, KeyError, TypeError):
            return True
        return newest is None or not context.artifacts.bytes.exists(f"{newest.prefix}artifact.json")
    return True


def _names_nothing(context: StageContext, key: str) -> bool:
    """Whether a reuse record's version is not there (any more): one that was spared keeps its record."""
    _, _, name, partition, file = key.split("/")
    if file == "newest.json":
        return context.artifacts.find(name, None if partition == "all" else partition) is None
    try:
        digest = str(context.artifacts.bytes.read_json(key)["digest"])
        context.artifacts.version(name, digest, None if partition == "all" else partition)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return True
    return False


def _settle(store: ByteStore, begun: str) -> None:
    """Tell the ledger what a removal that was killed had removed."""
    try:
        record: dict[str, Any] = store.read_json(begun)
        removed = [item for item in record["removed"] if not _is_there(store, item)]
        other = [item for item in record["other"] if item["kind"] not in _LOCAL and not store.exists(item["place"])]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        store.delete(begun)  # by another hand: our own writes are whole or not there
        return
    _tell(store, record | {"removed": removed, "other": other, "interrupted": True})
    store.delete(begun)


def _is_there(store: ByteStore, item: dict[str, Any]) -> bool:
    """Whether a listed version was not touched: its record is there, or, where it had none, any of its files."""
    return store.exists(f"{item['folder']}artifact.json") if item["digest"] else bool(store.list(item["folder"]))


def _tell(store: ByteStore, record: dict[str, Any]) -> str:
    """Keep the list and write the ledger's entry, once for each removal. Returns the list's key; "" where nothing was removed."""
    if not record["removed"] and not record["other"]:
        return ""
    data = canonical_json(record)
    key = f"{_LISTS}{record['begun'][:10]}-{record['removal']}.json"
    store.write(key, data)
    if not any(entry.details.get("removal") == record["removal"] for entry in ledger.entries(store)):
        size = sum(item["bytes"] for part in ("removed", "other") for item in record[part])
        details = {"removal": record["removal"], "artefacts": len(record["removed"]), "other": len(record["other"]), "bytes": size}
        details |= {"list_sha256": sha256_bytes(data), "interrupted": record.get("interrupted", False)}
        ledger.append(store, record["actor"], "removed", key, details)
    return key


def _as_record(piece: Piece) -> dict[str, Any]:
    return {"kind": piece.kind, "place": piece.place, "bytes": piece.size}
