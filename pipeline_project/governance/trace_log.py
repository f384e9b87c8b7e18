"""Finding one request in the prediction log, and its true label: compacted days first, newest first, then what is not compacted yet."""

import io
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, TypeVar

from pipeline_project.contracts import Digest, Environment, PredictionRecord, Record, TruthRecord
from pipeline_project.monitoring.predictions import ENVIRONMENTS
from pipeline_project.serving.prediction_log import REQUEST_ID, Kind, days_with_segments, read_segments
from pipeline_project.serving.prediction_log import read_truth as read_truth_segments
from pipeline_project.stage import StageContext

_LATE = timedelta(days=1)  # a machine that was cut off may ship a day's segments this much after its end
_T = TypeVar("_T", bound=Record)


class UnknownRequestError(ValueError):
    """The prediction log does not have a request; the message says where was searched."""


class Answer(Record):
    """What the log keeps of an answered request. `predicted_class` is None where the request was refused; see `status`."""

    time: datetime
    environment: Environment
    route: str
    document: int
    package: Digest
    predicted_class: str | None
    confidence: float | None
    status: int
    image_id: Digest | None
    latency_ms: float
    worker: str
    sequence: int


class TruthFound(Record):
    """The true label that was reported for a request; of several the last one received."""

    label: str
    source: str
    received: datetime


class LogPlace(Record):
    """Where a request was found: in a compacted day with its artefact, or in a segment of a worker."""

    where: Literal["prediction_log", "segments"]
    day: date
    digest: str | None
    run: str | None


def find_answers(context: StageContext, request_id: str, day: date | None) -> tuple[LogPlace, list[Answer], list[str]]:
    """The answers to a request on the newest day that has one, the newest first; and what could not be read on the way.

    Raises:
        ValueError: this is no request id.
        UnknownRequestError: the log does not have it.
    """
    if not REQUEST_ID.fullmatch(request_id):
        raise ValueError(f"{request_id[:80]!r} is no request id: 1-128 letters, digits, dots, colons, dashes or underscores.")

    def segments(where: Environment, of: date) -> Iterator[PredictionRecord]:
        return read_segments(context.artifacts.bytes, where, of, request_id=request_id)

    search = _Search(context, "prediction_log", "prediction", "predictions.parquet", request_id)
    days = [found for found in search.days() if day in (None, found)]
    for searched in days:
        place, answers = search.on(searched, Answer, lambda of: _answers(segments, of))
        if answers:
            return place, sorted(answers, key=lambda a: (a.time, a.sequence), reverse=True), search.notes
    raise UnknownRequestError(_unknown(context, request_id, day, days, search.notes))


def find_truth(context: StageContext, request_id: str, since: date) -> tuple[TruthFound | None, list[str]]:
    """The true label reported for a request on or after a day, or None; and what could not be read."""
    store = context.artifacts.bytes

    def segments(of: date) -> list[TruthFound]:
        records: list[TruthRecord] = [
            record for where in ENVIRONMENTS for record in read_truth_segments(store, where, of, request_id=request_id)
        ]
        return [TruthFound(label=r.label, source=r.source, received=r.received) for r in records]

    search = _Search(context, "ground_truth", "truth", "truth.parquet", request_id)
    found = [truth for day in search.days() if day >= since for truth in search.on(day, TruthFound, segments)[1]]
    return max(found, key=lambda truth: truth.received, default=None), search.notes


class _Search:
    """Looks for a request day by day, in the artefact of the day and in segments that it may not hold."""

    def __init__(self, context: StageContext, asset: str, kind: Kind, file: str, request_id: str) -> None:
        self._artifacts, self._asset, self._kind, self._file, self._request_id = context.artifacts, asset, kind, file, request_id
        self._compacted = {date.fromisoformat(day) for day in self._artifacts.partitions(asset)}
        self.notes: list[str] = []

    def days(self) -> list[date]:
        """Every day that has something, the newest first."""
        raw = (day for environment in ENVIRONMENTS for day in days_with_segments(self._artifacts.bytes, environment, self._kind))
        return sorted(self._compacted | set(raw), reverse=True)

    def on(self, day: date, model: type[_T], segments: Callable[[date], list[_T]]) -> tuple[LogPlace, list[_T]]:
        """What a day has of the request, and where."""
        complete, place, found = False, LogPlace(where="segments", day=day, digest=None, run=None), []
        if day in self._compacted:
            try:
                artifact = self._artifacts.latest(self._asset, day.isoformat())
                found = [model.model_validate(row) for row in _rows(artifact.read(self._file), self._request_id, list(model.model_fields))]
                complete = datetime.fromisoformat(artifact.created) >= datetime(day.year, day.month, day.day, tzinfo=UTC) + 2 * _LATE
                if found:
                    place = LogPlace(where="prediction_log", day=day, digest=artifact.digest, run=artifact.run)
            except (ValueError, OSError) as error:
                self.notes.append(f"{self._asset} of {day} could not be read: {error}")
        if not found and not complete:
            try:
                found = segments(day)
            except (ValueError, OSError) as error:
                self.notes.append(f"the segments of {day} could not be read: {error}")
        return place, found


def _rows(table: bytes, request_id: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a request; of the other rows only one column is decoded."""
    import pandas as pd

    frame = pd.read_parquet(io.BytesIO(table), columns=list(columns), filters=[("request_id", "==", request_id)])
    plain = frame.astype(object).where(frame.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]


def _answers(segments: Callable[[Environment, date], Iterator[PredictionRecord]], day: date) -> list[Answer]:
    kept = set(Answer.model_fields)
    return [Answer.model_validate(record.model_dump(include=kept)) for where in ENVIRONMENTS for record in segments(where, day)]


def _unknown(context: StageContext, request_id: str, day: date | None, days: Sequence[date], notes: Sequence[str]) -> str:
    store = context.artifacts.bytes.uri
    if not days:
        where = f"{store} has no prediction log of {day}" if day else f"{store} has no prediction log yet"
    else:
        count = f"{len(days)} days" if len(days) > 1 else "1 day"
        span = f"{days[-1]} to {days[0]}" if len(days) > 1 else str(days[0])
        where = f"searched: prediction_log and the segments not yet compacted of {count} ({span}) in {store}"
    unread = f" Not searched: {'; '.join(notes)}." if notes else ""
    return (
        f"Request {request_id} is not in the prediction log; {where}.{unread} "
        "Check the id (header X-Request-ID of the answer); an answer reaches the store a few seconds after it was given."
    )
