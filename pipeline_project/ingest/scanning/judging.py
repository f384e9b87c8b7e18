"""Whether a day as it is now is to be taken in: it differs from what was taken in, and its uploads have settled."""

from collections.abc import Iterable
from datetime import UTC, date, datetime

from pipeline_project.ingest.fingerprint import DayFingerprint
from pipeline_project.ingest.scanning.state import SHORT, Change, LabelFile, ScanState, Tally, Waiting
from pipeline_project.ingest.scanning.taken import Taken
from pipeline_project.settings import Settings


class Judge:
    """Judges days at one moment, and notes the outcome in a state: as a change, as waiting, or as nothing to do.

    Args:
        now: seconds since 1970.
        settle: whether to wait for uploads to settle (a person who asks does not wait).
    """

    def __init__(self, settings: Settings, state: ScanState, taken: Taken, now: float, *, settle: bool = True) -> None:
        self._ingest, self._state, self.taken, self.now, self._settle = settings.ingest, state, taken, now, settle
        self._today = datetime.fromtimestamp(now, UTC).date()

    def judge(self, day: date, tally: Tally, labels: int, files: Iterable[LabelFile] = ()) -> None:
        """Judge one day.

        Args:
            tally: of its objects, and of label files in its folder.
            labels: what the rows of other label files add to its fingerprint.
            files: those label files.
        """
        fingerprint = fingerprint_of(tally, labels)
        taken, state = self.taken.of(day), self._state
        if day > self._today or fingerprint == _short(taken):
            state.changes.pop(day, None)
            state.waiting.pop(day, None)
            return
        why = self._why_not_yet(day, fingerprint, tally, files) if self._settle else ""
        if why:
            before = state.waiting.get(day)
            since = before.since if before and before.fingerprint == fingerprint else self.now
            state.waiting[day] = Waiting(fingerprint, since, why)
            state.changes.pop(day, None)
        else:
            state.waiting.pop(day, None)
            state.changes[day] = Change(fingerprint, _short(taken))

    def is_plain(self, day: date, tally: Tally, labels: int) -> bool:
        """Whether nothing has to be made sure of: the day is as it was taken in, or never was, or was found in this state before."""
        fingerprint, taken, change = fingerprint_of(tally, labels), self.taken.of(day), self._state.changes.get(day)
        return taken is None or fingerprint == _short(taken) or (change is not None and change.fingerprint == fingerprint)

    def drop_what_was_taken_in(self) -> None:
        """Changes of days that were taken in since they were found: what they are now, the next look at them tells."""
        for day, change in list(self._state.changes.items()):
            if _short(self.taken.of(day)) != change.taken:
                del self._state.changes[day]

    def _why_not_yet(self, day: date, fingerprint: str, tally: Tally, files: Iterable[LabelFile]) -> str:
        """Why the day is not complete, for people; empty: it is.

        A day is complete when the newest of it is old enough by the source's clock, or when it has looked the same for as long by ours:
        so neither clocks that differ nor a label file of all days that grows all the time hold it up for ever.
        """
        if self._ingest.marker and tally.dated and tally.objects:
            return "" if tally.marker else f"its folder has no {self._ingest.marker} yet"
        wait = self._ingest.settle_minutes * 60
        change, before = self._state.changes.get(day), self._state.waiting.get(day)
        if change and change.fingerprint == fingerprint:
            return ""
        newest = max([tally.newest or self.now, *(min(file.modified, self.now) for file in files)])
        same_since = before.since if before and before.fingerprint == fingerprint else self.now
        due = min(newest, same_since) + wait
        return "" if due <= self.now else f"uploads settle until {datetime.fromtimestamp(due, UTC):%H:%M} UTC"


def fingerprint_of(tally: Tally, labels: int) -> str:
    """The first digits of the fingerprint of a day: its objects and all its label rows."""
    whole = DayFingerprint(tally.total)
    whole.add_total(labels)
    return whole.hexdigest()[:SHORT]


def _short(fingerprint: str | None) -> str | None:
    return fingerprint[:SHORT] if fingerprint else None
