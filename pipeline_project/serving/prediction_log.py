"""The prediction log: one JSON line a request, in segments that only grow, written before the answer is sent.

A worker appends to a segment in a local spool folder; the supervisor copies segments to the artefact store. One `write` a line, so a
worker that is killed loses no acknowledged record; a machine that loses power may lose what was not yet shipped (seconds).
Ground truth posted to the API goes the same way.
"""

import fcntl
import os
import re
import secrets
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline_project.contracts import Environment, PredictionRecord, TruthRecord
from pipeline_project.digests import sha256_bytes
from pipeline_project.storage import ByteStore

Kind = Literal["prediction", "truth"]
KINDS: tuple[Kind, ...] = ("prediction", "truth")
REQUEST_ID = re.compile(r"^[A-Za-z0-9._:-]{1,128}$")  # what a client may call its request
SEGMENT_BYTES = 8_000_000
_WORKER = re.compile(r"^(?P<replica>[A-Za-z0-9][A-Za-z0-9.-]{0,99})-(?P<started>\d{8}T\d{6})-[0-9a-f]{8}$")
_R = TypeVar("_R", bound=BaseModel)


class SegmentError(ValueError):
    """A stored segment is damaged elsewhere than in its last line."""


def new_worker_id(replica: str) -> str:
    """A name for one process start, unique for ever: replica, start time (UTC), random. Letters, digits, dots and dashes."""
    safe = re.sub(r"[^A-Za-z0-9.-]+", "-", replica).strip("-.")[:100] or "replica"
    return f"{safe}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def spool_folder(home: Path, environment: Environment) -> Path:
    """Where the workers of one environment spool their segments."""
    return home / "spool" / environment


class SegmentWriter:
    """Appends lines to the segments of one worker and kind; safe for several threads.

    The open segment is locked (`flock`) for as long as it may grow, so whoever gets the lock knows that it is sealed, also after a kill.

    Args:
        spool: folder of the environment's spool.
        worker: the worker's id.
        segment_bytes: a segment that has grown beyond this is sealed.
    """

    def __init__(self, spool: Path, kind: Kind, worker: str, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._root = spool / f"{kind}-segments"
        self._worker, self._segment_bytes = worker, segment_bytes
        self._descriptor: int | None = None
        self._day: date | None = None
        self._size, self._segment = 0, 0

    def append(self, line: bytes, day: date) -> None:
        """Append one line (without its newline) to the day's segment.

        Raises:
            OSError: the disk is full or failed. The record is not in the log; what was written of it is a torn last line.
        """
        if self._descriptor is None or day != self._day or self._size >= self._segment_bytes:
            self._rotate(day)
        assert self._descriptor is not None
        data = line + b"\n"
        try:
            written = os.write(self._descriptor, data)
        except OSError:
            self.close()
            raise
        self._size += written
        if written != len(data):
            self.close()  # the torn line stays the last one of its segment, where readers expect it
            raise OSError(f"{self._root}: wrote {written} of {len(data)} bytes; is the disk full?")

    def close(self) -> None:
        """Seal the open segment."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _rotate(self, day: date) -> None:
        self.close()
        folder = self._root / day.isoformat()
        folder.mkdir(parents=True, exist_ok=True)
        self._segment += 1
        name = f"{self._worker}-{self._segment:05d}.jsonl"
        draft = folder / f".{name}"  # not seen by the shipper before it is locked
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        draft.rename(folder / name)
        self._descriptor, self._day, self._size = descriptor, day, 0


class PredictionLog:
    """One worker's prediction log and truth log. `sequence` is counted here, so it rises by one with every record that was kept."""

    def __init__(self, spool: Path, worker: str, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.worker = worker
        self._predictions = SegmentWriter(spool, "prediction", worker, segment_bytes=segment_bytes)
        self._truth = SegmentWriter(spool, "truth", worker, segment_bytes=segment_bytes)
        self._sequence = 0
        self._lock = threading.Lock()

    def append(self, record: PredictionRecord) -> PredictionRecord:
        """Write a record with this worker's id and next sequence number (those it has are replaced). Returns what was written.

        Raises:
            OSError: the record could not be written; the request must not be acknowledged.
        """
        with self._lock:
            kept = record.model_copy(update={"worker": self.worker, "sequence": self._sequence + 1})
            self._predictions.append(kept.model_dump_json().encode(), kept.time.astimezone(UTC).date())
            self._sequence += 1
        return kept

    def append_truth(self, record: TruthRecord) -> None:
        """Write a true label. Raises `OSError`."""
        with self._lock:
            self._truth.append(record.model_dump_json().encode(), record.received.astimezone(UTC).date())

    def close(self) -> None:
        """Seal the open segments."""
        with self._lock:
            self._predictions.close()
            self._truth.close()


class Shipper:
    """Copies segments from a spool to the store: growing ones as far as they are, sealed ones verified and then removed here.

    Idempotent: a segment is one object under one key, and a later copy of it only adds lines.
    """

    def __init__(self, spool: Path, store: ByteStore, environment: Environment) -> None:
        self._spool, self._store, self._environment = spool, store, environment
        self._shipped: dict[Path, int] = {}

    def ship(self) -> int:
        """Copy what is new. Returns how many segments were copied.

        Raises:
            OSError: the store did not take a segment; it stays in the spool, and the next call tries again.
        """
        copied = 0
        for kind in KINDS:
            root = self._spool / f"{kind}-segments"
            for path in sorted(root.glob("[!.]*/[!.]*.jsonl")):
                copied += self._ship_one(kind, path)
        return copied

    def _ship_one(self, kind: Kind, path: Path) -> bool:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False  # another supervisor of this spool was first
        with os.fdopen(descriptor, "rb") as file:
            sealed = _try_lock(file.fileno())
            size = os.fstat(file.fileno()).st_size
            if not sealed and size == self._shipped.get(path, 0):
                return False
            data = file.read(size)
            key = f"{segments_prefix(kind, self._environment)}/{path.parent.name}/{path.name}"
            if not sealed:
                data = data[: data.rfind(b"\n") + 1]
                if data:
                    self._store.write(key, data)
                self._shipped[path] = size
                return bool(data)
            if data:
                self._store.write(key, data)
                if sha256_bytes(self._store.read(key)) != sha256_bytes(data):
                    raise OSError(f"{key}: {self._store.uri} gave back other bytes than were written; {path} is kept.")
            path.unlink(missing_ok=True)
            self._shipped.pop(path, None)
            return bool(data)


def ship(spool: Path, store: ByteStore, environment: Environment) -> int:
    """Copy the segments of a spool to the store once (see `Shipper.ship`)."""
    return Shipper(spool, store, environment).ship()


def segments_prefix(kind: Kind, environment: Environment) -> str:
    """The store prefix of an environment's segments of a kind; below it one folder a UTC day."""
    return f"features/{kind}-segments/{environment}"


def read_segments(store: ByteStore, environment: Environment, day: date, *, request_id: str | None = None) -> Iterator[PredictionRecord]:
    """The predictions of one UTC day, worker by worker in the order of their sequence.

    Args:
        request_id: only this request's; lines that do not name it are not parsed.

    Raises:
        SegmentError: a line that is not the last of its segment is damaged; the message names segment and line.
    """
    records = _read(store, "prediction", environment, day, PredictionRecord, _naming(request_id))
    return records if request_id is None else (record for record in records if record.request_id == request_id)


def read_truth(store: ByteStore, environment: Environment, day: date, *, request_id: str | None = None) -> Iterator[TruthRecord]:
    """The true labels received on one UTC day, or only a request's. Raises `SegmentError` as `read_segments` does."""
    records = _read(store, "truth", environment, day, TruthRecord, _naming(request_id))
    return records if request_id is None else (record for record in records if record.request_id == request_id)


def _naming(request_id: str | None) -> bytes:
    """What stands in every line of a request: its characters need no escape in JSON."""
    if request_id is None:
        return b""
    if not REQUEST_ID.fullmatch(request_id):
        raise ValueError(f"{request_id[:80]!r} is no request id: 1-128 letters, digits, dots, colons, dashes or underscores.")
    return f'"{request_id}"'.encode()


def _read(store: ByteStore, kind: Kind, environment: Environment, day: date, model: type[_R], naming: bytes) -> Iterator[_R]:
    for key in store.list(f"{segments_prefix(kind, environment)}/{day.isoformat()}/"):
        lines = store.read(key).split(b"\n")
        last = lines.pop()  # empty after a whole line, else what a killed worker or a full disk left of one
        for number, line in enumerate(lines, start=1):
            if naming not in line:
                continue
            try:
                yield model.model_validate_json(line)
            except ValidationError as error:
                raise SegmentError(f"{key}:{number}: not a {kind} record: {error}") from None
        if last and naming in last:
            try:
                yield model.model_validate_json(last)  # whole but for its newline: it may have been acknowledged
            except ValidationError:
                continue


@dataclass(frozen=True)
class Gap:
    """Records that are missing from a worker's sequence: `first` to `last`, both missing."""

    worker: str
    first: int
    last: int


def find_gaps(records: Iterable[PredictionRecord]) -> list[Gap]:
    """The records that are missing between those given.

    A worker that started on the UTC day of its first record must begin with 1. For one that started earlier, what is missing before its
    first record is not judged: give the day before as well to judge that.
    """
    spans: dict[str, list[list[int]]] = {}
    begun: dict[str, datetime] = {}
    for record in records:
        _add(spans.setdefault(record.worker, []), record.sequence)
        begun[record.worker] = min(record.time, begun.get(record.worker, record.time))
    gaps = []
    for worker, found in sorted(spans.items()):
        found.sort()
        last = 0 if _starts_within(worker, begun[worker]) else found[0][0] - 1
        for low, high in found:
            if low > last + 1:
                gaps.append(Gap(worker, last + 1, low - 1))
            last = max(last, high)
    return gaps


def _add(spans: list[list[int]], sequence: int) -> None:
    """Keep spans instead of every number: a day may hold millions, nearly always in order."""
    if spans and spans[-1][0] <= sequence <= spans[-1][1] + 1:
        spans[-1][1] = max(spans[-1][1], sequence)
    else:
        spans.append([sequence, sequence])


def _starts_within(worker: str, first: datetime) -> bool:
    named = _WORKER.match(worker)
    if named is None:
        return True
    started = datetime.strptime(named["started"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return started.date() == first.astimezone(UTC).date()


def days_with_segments(store: ByteStore, environment: Environment, kind: Kind = "prediction") -> list[date]:
    """The UTC days that have segments in the store, ascending."""
    prefix = f"{segments_prefix(kind, environment)}/"
    names = {key.removeprefix(prefix).split("/")[0] for key in store.list(prefix)}
    return sorted(date.fromisoformat(name) for name in names)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
