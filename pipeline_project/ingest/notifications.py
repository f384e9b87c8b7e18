"""Event notifications of a bucket too large to list: which days to look at, kept safely before the queue may forget them.

A message is only a hint that a day may have changed: the day is listed and judged as a scan would, so messages that come twice, late or
out of order do no harm. The days that were named are kept in the store until they are as they were last taken in.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pipeline_project.digests import sha256_bytes
from pipeline_project.ingest.event_messages import MalformedMessageError, key_in_source, parse_message, source_keys
from pipeline_project.ingest.scanning import ScanState, judge_days
from pipeline_project.ingest.scanning.label_totals import FileTotals, LabelTotals
from pipeline_project.ingest.scanning.state import LabelFile
from pipeline_project.ingest.sources import SourceError, SourceUnreachableError, arrival_ledger, day_folder, open_source
from pipeline_project.stage import StageContext
from pipeline_project.storage.s3_client import IMPATIENT

PENDING = "processed-data/scan/events.json"
ASIDE = "processed-data/scan/aside"
_MESSAGES_A_TICK = 2_000
_MESSAGES_AT_ONCE = 500  # kept in the store, then deleted
_EVERY_DAY = "*"
_A_CALL = 10  # SQS gives and deletes at most ten
_VISIBILITY_S = 120
"""Longer than a tick: what a killed one had received comes again after that."""
_RECEIVING_SHARE = 0.4
_ASIDE_BYTES = 64_000
_EMPTY_CALLS = 2  # a short poll asks some of the queue's servers only
_REGION = re.compile(r"^(?:sqs\.|queue\.)?([a-z]{2}(?:-[a-z]+)+-\d)\.|^sqs\.([a-z]{2}(?:-[a-z]+)+-\d)\.")


@dataclass
class Pending:
    """What messages named and has not been settled yet.

    Attributes:
        days: to look at, those that have waited longest first.
        files: label files of all days that changed: {key: [size, etag, modified]}; None for one that was removed.
        rows: what the label files added to each day when they were last looked at: {key: {day: total}}; "*": to every day.
    """

    days: list[date] = field(default_factory=list)
    files: dict[str, list[Any] | None] = field(default_factory=dict)
    rows: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, day: date) -> None:
        """A day to look at."""
        if day not in self.days:
            self.days.append(day)


@dataclass
class Taken:
    """What one tick did with the queue."""

    messages: int = 0
    aside: list[str] = field(default_factory=list)
    """Why messages were put aside."""
    foreign: int = 0
    """Events of objects that do not belong to the source."""
    pending: int = 0
    """Days that are to be looked at again."""

    def in_words(self) -> str:
        """For people; empty where there is nothing to say."""
        parts = [f"{self.messages} messages read"] if self.messages else []
        parts += [f"{len(self.aside)} put aside under {ASIDE}/, the first: {self.aside[0]}"] if self.aside else []
        parts += [f"{self.foreign} events of objects outside of data.source"] if self.foreign else []
        parts += [f"{self.pending} days are looked at again"] if self.pending else []
        return "; ".join(parts)


def take_notifications(context: StageContext, state: ScanState, seconds: float, *, now: datetime | None = None) -> Taken:
    """Read the queue for one tick, and note in the state which of the named days are to be taken in.

    The order makes a kill at any moment harmless: days into the store, then messages off the queue, then the look at the days.

    Raises:
        SourceError: the queue or the source cannot be reached; what was read is kept and looked at by the next tick.
    """
    started, done = time.monotonic(), Taken()
    pending = _read(context)
    queue = _Queue(context.settings.ingest.notifications)
    for messages in _together(queue.batches(started + seconds * _RECEIVING_SHARE)):
        for message in messages:
            _note(context, message["Body"], pending, done)
        _write(context, pending)
        queue.delete(messages)
        done.messages += len(messages)
    _look_at_label_files(context, pending, lambda: time.monotonic() - started > seconds)
    left = max(0.0, seconds - (time.monotonic() - started))
    moment = now or datetime.now(UTC)
    judged = judge_days(context, state, pending.days, left, now=moment)
    open_ = state.changes.keys() | state.waiting.keys()
    settled = {day for day in judged if day not in open_ and day <= moment.date()}
    pending.days = [*(d for d in pending.days if d not in judged), *(d for d in pending.days if d in judged - settled)]
    _write(context, pending)
    done.pending = len(pending.days) + len(pending.files)
    return done


def _note(context: StageContext, body: str, pending: Pending, done: Taken) -> None:
    """What one message names, as days or label files to look at; what cannot be understood goes aside."""
    settings = context.settings
    places = source_keys(settings)
    try:
        for event in parse_message(body):
            key = key_in_source(event, places)
            if key is None:
                done.foreign += 1
                continue
            folder = day_folder(key)
            if folder is None and PurePosixPath(key).name == settings.data.labels_file:
                pending.files[key] = None if event.removed else [event.size, event.etag, event.moment.timestamp()]
                arrival_ledger.first_seen(context.artifacts.bytes, {key: event.moment.date()})
                continue
            day = folder or _arrival(context, key, event.moment.date(), removed=event.removed)
            if day is not None and day < settings.data.start_date:
                raise MalformedMessageError(
                    f"{key} of {day} lies before data.start_date ({settings.data.start_date}). Set data.start_date to {day} or earlier"
                )
            if day is not None:
                pending.add(day)
    except (MalformedMessageError, SourceError) as error:
        done.aside.append(str(error))
        context.log(f"a message of the queue is put aside: {error}")
        data = body.encode("utf-8", "replace")[:_ASIDE_BYTES]
        record = {"why": str(error), "body": data.decode("utf-8", "replace")}
        context.artifacts.bytes.write_json(f"{ASIDE}/{sha256_bytes(data)[:32]}.json", record)


def _arrival(context: StageContext, key: str, day: date, *, removed: bool) -> date | None:
    store = context.artifacts.bytes
    if removed:
        return arrival_ledger.read_ledger(store).get(key)
    return arrival_ledger.first_seen(store, {key: day})[key]


def _look_at_label_files(context: StageContext, pending: Pending, late: Callable[[], bool]) -> None:
    """The days whose rows changed in label files of all days; a file that there is no time for waits for the next tick."""
    if not pending.files:
        return
    labels = LabelTotals(context, open_source(context.settings, IMPATIENT), late)
    start = context.settings.data.start_date
    for key, listed in list(pending.files.items()):
        try:
            totals = FileTotals() if listed is None else labels.of(LabelFile(key, *listed))
        except FileNotFoundError:  # removed since, which another message tells
            totals = FileTotals()
        if totals is None:
            continue
        rows = {str(day): f"{total:x}" for day, total in totals.by_day.items()}
        rows |= {_EVERY_DAY: f"{totals.every_day:x}"} if totals.every_day else {}
        before = pending.rows.pop(key, {})
        changed = {day for day in before.keys() | rows.keys() if before.get(day) != rows.get(day)}
        if _EVERY_DAY in changed:
            changed |= set(context.artifacts.partitions("raw_images"))
        for day in sorted(date.fromisoformat(text) for text in changed - {_EVERY_DAY}):
            if day >= start:
                pending.add(day)
        if rows:
            pending.rows[key] = rows
        del pending.files[key]


class _Queue:
    """One SQS queue."""

    def __init__(self, url: str) -> None:
        import boto3
        from botocore.config import Config

        address = urlsplit(url)
        found = _REGION.match(address.hostname or "")
        region = next((name for name in found.groups() if name), None) if found else None
        session = boto3.session.Session()
        self._url = url
        self._client = session.client(
            "sqs",
            endpoint_url=f"{address.scheme}://{address.netloc}",
            region_name=region or session.region_name or "us-east-1",
            config=Config(retries={"mode": "standard", "max_attempts": 3}, connect_timeout=5, read_timeout=10),
        )

    def batches(self, deadline: float) -> Iterator[Sequence[dict[str, Any]]]:
        """Messages until the queue is empty, the deadline has come, or one tick has enough."""
        received = empty = 0
        while received < _MESSAGES_A_TICK and empty < _EMPTY_CALLS and (not received or time.monotonic() < deadline):
            answer = self._call("receive_message", MaxNumberOfMessages=_A_CALL, WaitTimeSeconds=0, VisibilityTimeout=_VISIBILITY_S)
            messages = answer.get("Messages", [])
            empty = 0 if messages else empty + 1
            received += len(messages)
            if messages:
                yield messages

    def delete(self, messages: Sequence[dict[str, Any]]) -> None:
        """Off the queue; one that stays is read once more, which does no harm."""
        for first in range(0, len(messages), _A_CALL):
            some = enumerate(messages[first : first + _A_CALL])
            self._call("delete_message_batch", Entries=[{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in some])

    def _call(self, name: str, **arguments: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer: dict[str, Any] = getattr(self._client, name)(QueueUrl=self._url, **arguments)
        except (BotoCoreError, ClientError) as error:
            raise SourceUnreachableError(
                f"ingest.notifications: the queue {self._url} does not answer: {error}. Check the address, the credentials "
                "(sqs:ReceiveMessage, sqs:DeleteMessage) and the network."
            ) from None
        return answer


def _together(batches: Iterator[Sequence[dict[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
    held: list[dict[str, Any]] = []
    for batch in batches:
        held += batch
        if len(held) >= _MESSAGES_AT_ONCE:
            yield held
            held = []
    if held:
        yield held


def _read(context: StageContext) -> Pending:
    try:
        value = context.artifacts.bytes.read_json(PENDING)
    except FileNotFoundError:
        return Pending()
    return Pending([date.fromisoformat(day) for day in value["days"]], value["files"], value["rows"])


def _write(context: StageContext, pending: Pending) -> None:
    value = {"version": 1, "days": [str(day) for day in pending.days], "files": pending.files, "rows": pending.rows}
    context.artifacts.bytes.write_json(PENDING, value)
