"""What was last taken in of each day, to its end; for thousands of days in a few listings and one read, not in reads of each day."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from pipeline_project.digests import digest_of
from pipeline_project.stage import StageContext
from pipeline_project.storage import ByteStore, StoredKey
from pipeline_project.storage.artifacts import ZONES

STEPS = ("raw_images", "validated_manifest", "image_pack", "image_features")
INDEX = "processed-data/scan/taken.json"
_HEAD = "head.json"
_RACY = timedelta(minutes=2)
"""A head younger than this when it was read is read again: some stores' times have whole seconds, and clocks differ."""
_READERS = 8


@dataclass(frozen=True)
class Taken:
    """What was taken in: for each day with an inventory its fingerprint, None where that did not go through to its end."""

    fingerprints: dict[date, str | None]

    def of(self, day: date) -> str | None:
        """The fingerprint of the day's last good materialization; None: there is none, or a newer inventory did not get through."""
        return self.fingerprints.get(day)

    @property
    def days(self) -> set[date]:
        """Days with an inventory."""
        return set(self.fingerprints)


def read_taken(context: StageContext) -> Taken:
    """What was taken in of every day. The store is asked for four listings and the index; only heads that changed since are read."""
    store = context.artifacts.bytes
    heads = [_heads(store, name) for name in STEPS]
    now = max([datetime.now(UTC), *(entry.modified for found in heads for entry in found.values())])
    known = _read_index(store)
    stamps: dict[str, str] = {}
    fingerprints: dict[str, str | None] = {}
    stale = []
    for day in heads[0]:
        entries = [found.get(day) for found in heads]
        stamp = digest_of([[entry.size, entry.modified.isoformat()] if entry else None for entry in entries])[:16]
        stamps[day] = "" if any(entry and now - entry.modified < _RACY for entry in entries) else stamp
        fingerprint, earlier = known.get(day, (None, ""))
        if earlier and earlier == stamp:
            fingerprints[day] = fingerprint
        else:
            stale.append(day)
    with ThreadPoolExecutor(_READERS) as readers:
        fingerprints.update(zip(stale, readers.map(lambda day: taken_in(context, date.fromisoformat(day)), stale), strict=True))
    index = {day: (fingerprint, stamps[day]) for day, fingerprint in fingerprints.items()}
    if index != known:
        store.write_json(INDEX, {"version": 1, "days": index})
    return Taken({date.fromisoformat(day): fingerprint for day, fingerprint in fingerprints.items()})


def taken_in(context: StageContext, day: date) -> str | None:
    """The fingerprint of what was taken in, if that went through to its end; a run that failed or was killed half-way does not count."""
    found = {name: context.artifacts.find(name, day.isoformat()) for name in STEPS}
    raw, manifest, pack, features = (found[name] for name in STEPS)
    if raw is None or manifest is None or pack is None or features is None or manifest.info.get("inventory") != raw.digest:
        return None
    origin = features.json("origin.json")
    if origin.get("manifest") != manifest.digest or origin.get("pack") != pack.digest:
        return None
    fingerprint: str | None = raw.info.get("fingerprint")
    return fingerprint


def _heads(store: ByteStore, name: str) -> dict[str, StoredKey]:
    """{day: head} of an asset."""
    prefix = f"{ZONES[name]}/{name}/"
    found = {}
    for entry in store.entries(prefix):
        day, _, file = entry.key.removeprefix(prefix).partition("/")
        if file == _HEAD:
            with suppress(ValueError):  # no day: not ours
                found[date.fromisoformat(day).isoformat()] = entry
    return found


def _read_index(store: ByteStore) -> dict[str, tuple[str | None, str]]:
    try:
        value = store.read_json(INDEX)
        return {day: (fingerprint, stamp) for day, (fingerprint, stamp) in value["days"].items()} if value["version"] == 1 else {}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):  # damaged: it is only a memory of what the heads say
        return {}
