"""What a scan of the source remembers from one tick to the next: where it is, what it added up, what it found."""

import base64
import binascii
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple, Self

from pipeline_project.digests import digest_of
from pipeline_project.ingest.fingerprint import DayFingerprint
from pipeline_project.ingest.sources import Listed, source_identity
from pipeline_project.settings import Settings

VERSION = 1
SHORT = 32
"""Digits of a fingerprint that tell two states of a day apart: 128 bits, and short enough for a run's tag."""

_SHOWN = 10


class Change(NamedTuple):
    """A day to take in: the state it is in now, and the one that was last taken in (None: none to its end)."""

    fingerprint: str
    taken: str | None


class Waiting(NamedTuple):
    """A day that changed and is not complete yet."""

    fingerprint: str
    since: float
    """When it was first seen in this state, by the clock of this machine, seconds since 1970."""
    why: str


class LabelFile(NamedTuple):
    """A label file as listed; `modified` in seconds since 1970."""

    key: str
    size: int
    etag: str
    modified: float

    @classmethod
    def of(cls, listed: Listed) -> Self:
        """The label file that a listing tells of."""
        return cls(listed.key, listed.size, listed.etag, listed.modified.timestamp())


@dataclass
class Tally:
    """What a scan has seen of a day so far."""

    total: int = 0
    objects: int = 0
    newest: float = 0.0
    """The latest modification, seconds since 1970, never in the future."""
    marker: bool = False
    dated: bool = False
    """Whether something lies in a folder of that day."""

    def add(self, o: Listed, now: float, *, dated: bool) -> None:
        """An image of the day."""
        fingerprint = DayFingerprint(self.total)
        fingerprint.add_object(o.key, o.size, o.etag)
        self.total = fingerprint.total
        self.objects += 1
        self.saw(o, now, dated=dated)

    def saw(self, o: Listed, now: float, *, dated: bool) -> None:
        """Anything of the day, such as its label file."""
        self.newest = max(self.newest, min(o.modified.timestamp(), now))
        self.dated |= dated


@dataclass
class ScanState:
    """Between two ticks.

    Attributes:
        identity: of the source and the settings that the state belongs to.
        position: the last key that was counted; None where a scan is to begin.
        listed: whether the listing came to its end and only label files remain to be read.
        keys: how many keys this scan has listed.
        tallies: days of this scan that are not judged yet.
        passed: days of this scan that were judged when the listing had passed their folder.
        files: label files in no dated folder that this scan has seen.
        mixed: whether this scan saw an image whose day is not that of its topmost folder.
        early: whether days may be judged as soon as their folder is passed: the label files of all days are as the last scan left them.
        known: the label files in no dated folder at the end of the last scan; None before the first.
        plain: whether that scan saw topmost dated folders only.
        changes: days to take in.
        waiting: days that changed and are not complete yet.
        told: days that a person was told of, with their fingerprints.
        scans: how many scans came to their end.
    """

    identity: str
    position: str | None = None
    listed: bool = False
    keys: int = 0
    tallies: dict[date, Tally] = field(default_factory=dict)
    passed: set[date] = field(default_factory=set)
    files: list[LabelFile] = field(default_factory=list)
    mixed: bool = False
    early: bool = False
    known: list[LabelFile] | None = None
    plain: bool = False
    changes: dict[date, Change] = field(default_factory=dict)
    waiting: dict[date, Waiting] = field(default_factory=dict)
    told: dict[date, str] = field(default_factory=dict)
    scans: int = 0

    @property
    def begun(self) -> bool:
        """Whether a scan is under way."""
        return self.position is not None or self.listed

    def in_words(self) -> str:
        """How far the scan is, and which changed days are not complete yet; empty where there is nothing to say."""
        shown = [f"{day} waits: {waiting.why}" for day, waiting in sorted(self.waiting.items())[:_SHOWN]]
        more = len(self.waiting) - len(shown)
        parts = [*shown, *([f"{more} more days wait"] if more else [])]
        if self.begun:
            parts.append(f"{self.keys:,} keys listed, up to {self.position}; the scan goes on at the next tick")
        return "; ".join(parts)

    def begin_again(self) -> None:
        """Forget the scan under way; what was found stays."""
        self.position, self.listed, self.keys, self.mixed, self.early = None, False, 0, False, False
        self.tallies, self.passed, self.files = {}, set(), []

    def dump(self) -> str:
        """As text of ASCII characters. At rest about 30 bytes for each day that changed; during a scan of a source without dated folders
        about 55 bytes more for each day (55 kB for 1,000 days); days that did not change cost nothing."""
        value = {
            "version": VERSION,
            "identity": self.identity,
            "at": [self.position, self.listed, self.keys, self.mixed, self.early, self.plain, self.scans],
            "tallies": {str(d): [f"{t.total:x}", t.objects, round(t.newest, 3), t.marker, t.dated] for d, t in self.tallies.items()},
            "passed": _ranges(self.passed),
            "files": self.files,
            "known": self.known,
            "changes": {str(d): change for d, change in self.changes.items()},
            "waiting": {str(d): waiting for d, waiting in self.waiting.items()},
            "told": {str(d): fingerprint for d, fingerprint in self.told.items()},
        }
        return base64.b85encode(zlib.compress(json.dumps(value, separators=(",", ":")).encode(), 9)).decode()

    @classmethod
    def load(cls, text: str | None, identity: str) -> Self:
        """What `dump` gave; a fresh state where there is none, or it is of another source, another version, or damaged."""
        try:
            value = json.loads(zlib.decompress(base64.b85decode(text or "")))
            if (value["version"], value["identity"]) != (VERSION, identity):
                return cls(identity)
            return cls._read(identity, value)
        except (ValueError, KeyError, TypeError, zlib.error, binascii.Error):
            return cls(identity)

    @classmethod
    def _read(cls, identity: str, value: dict[str, Any]) -> Self:
        position, listed, keys, mixed, early, plain, scans = value["at"]
        return cls(
            identity=identity,
            position=position,
            listed=listed,
            keys=keys,
            tallies={
                date.fromisoformat(d): Tally(int(total, 16), objects, newest, marker, dated)
                for d, (total, objects, newest, marker, dated) in value["tallies"].items()
            },
            passed={date.fromordinal(first + n) for first, count in value["passed"] for n in range(count)},
            files=[LabelFile(*file) for file in value["files"]],
            mixed=mixed,
            early=early,
            known=None if value["known"] is None else [LabelFile(*file) for file in value["known"]],
            plain=plain,
            changes={date.fromisoformat(d): Change(*change) for d, change in value["changes"].items()},
            waiting={date.fromisoformat(d): Waiting(*waiting) for d, waiting in value["waiting"].items()},
            told={date.fromisoformat(d): fingerprint for d, fingerprint in value["told"].items()},
            scans=scans,
        )


def scan_identity(settings: Settings) -> str:
    """16 hexadecimal digits over what a scan's state depends on."""
    data = settings.data
    return digest_of([source_identity(settings), data.start_date.isoformat(), settings.ingest.marker])[:16]


def _ranges(days: Iterable[date]) -> list[list[int]]:
    """Days as [first ordinal, count], consecutive ones together."""
    ranges: list[list[int]] = []
    for ordinal in sorted(day.toordinal() for day in days):
        if ranges and ordinal == sum(ranges[-1]):
            ranges[-1][1] += 1
        else:
            ranges.append([ordinal, 1])
    return ranges
