"""One tick of a scan: list on from where the last tick stopped, add up days, judge those that are whole."""

import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import PurePosixPath

from pipeline_project.ingest.scanning.days import look_at_day
from pipeline_project.ingest.scanning.judging import Judge
from pipeline_project.ingest.scanning.label_totals import FileTotals, LabelTotals
from pipeline_project.ingest.scanning.state import LabelFile, ScanState, Tally, scan_identity
from pipeline_project.ingest.scanning.taken import read_taken
from pipeline_project.ingest.sources import Listed, Source, assign_days, day_folder, open_source
from pipeline_project.stage import StageContext
from pipeline_project.storage.s3_client import IMPATIENT

_LISTING_SHARE = 0.6
"""Of a tick's seconds; the rest is for label files, and for what the caller does with the outcome."""
_LOOKING_SHARE = 0.8
"""Up to which share of a tick's seconds days that seem changed are looked at by themselves."""
_KEYS_A_LOOK = 500
"""Keys between two looks at the clock."""


@dataclass(frozen=True)
class ScanLimits:
    """What one tick may do. None: without limit."""

    keys: int | None = None
    seconds: float | None = None


def advance(context: StageContext, state: ScanState, limits: ScanLimits, *, now: datetime | None = None, settle: bool = True) -> ScanState:
    """Scan on for one tick; a scan that came to its end begins anew at the next one.

    Args:
        state: is changed, and given back.
        now: of the clock; given in tests.
        settle: whether changed days wait until their uploads have settled.

    Raises:
        SourceError: the source cannot be read, or holds what it must not: the state must not be kept then, the next tick tries again.
    """
    scanner = _Scanner(context, state, limits, now or datetime.now(UTC), settle=settle)
    try:
        scanner.run()
    finally:
        scanner.labels.save()  # what was learned of label files holds, whatever happened after it
    return state


def scan_to_end(context: StageContext, *, now: datetime | None = None, settle: bool = False) -> ScanState:
    """One whole scan at once, for a person who waits for it. Raises `SourceError`."""
    return advance(context, ScanState(scan_identity(context.settings)), ScanLimits(), now=now, settle=settle)


class _Scanner:
    def __init__(self, context: StageContext, state: ScanState, limits: ScanLimits, now: datetime, *, settle: bool) -> None:
        self._context, self._state, self._limits = context, state, limits
        self._started = time.monotonic()
        self._source: Source = open_source(context.settings, IMPATIENT)
        self.labels = LabelTotals(context, self._source, lambda: self._late(1.0))
        self._judge = Judge(context.settings, state, read_taken(context), now.timestamp(), settle=settle)

    def run(self) -> None:
        state = self._state
        self._judge.drop_what_was_taken_in()
        if not state.begun:
            state.early = state.plain and self._label_files_are_as_they_were()
        if not state.listed:
            self._list()
        if state.listed:
            self._end()

    def _late(self, share: float) -> bool:
        return self._limits.seconds is not None and time.monotonic() - self._started > share * self._limits.seconds

    def _list(self) -> None:
        """List on, then count what was listed, in order, up to the first label file that there is no time for."""
        state = self._state
        batch: list[Listed] = []
        whole = True
        for o in self._source.scan(state.position):
            if len(batch) == self._limits.keys or (batch and len(batch) % _KEYS_A_LOOK == 0 and self._late(_LISTING_SHARE)):
                whole = False
                break
            batch.append(o)
        days = assign_days([o for o in batch if not self._is_marker(o)], self._context.artifacts.bytes, self._context.settings)
        top = _top_day(state.position) if state.position else None
        for o in batch:
            here = _top_day(o.key)
            if top is not None and here != top:
                self._pass(top)
            if not self._count(o, days):
                return
            state.position, top = o.key, here
            state.keys += 1
        if whole:
            state.listed = True

    def _count(self, o: Listed, days: dict[str, date]) -> bool:
        """Add one object to its day; False: it is a label file that there is no time for."""
        state, top, folder = self._state, _top_day(o.key), day_folder(o.key)
        if self._is_marker(o):
            if folder is not None:
                state.tallies.setdefault(folder, Tally()).marker = True
        elif PurePosixPath(o.key).name == self._context.settings.data.labels_file:
            if folder is None:
                state.files.append(LabelFile.of(o))
                return True
            if not self.labels.add_dated(o, state.tallies.setdefault(folder, Tally()), self._judge.now):
                return False
        else:
            folder = days[o.key]
            state.tallies.setdefault(folder, Tally()).add(o, self._judge.now, dated=day_folder(o.key) is not None)
        state.mixed |= top != folder
        return True

    def _pass(self, day: date) -> None:
        """The listing has passed a day's topmost folder. Judge it now where that is safe, else at the end of the scan.

        It is safe where the last scan saw dated folders only and the label files of all days are as that scan left them; a day that seems
        changed is looked at by itself then, for a label file of all days that is new and that its last run knew already. In the first scan
        a day that was never taken in is asked for however it looks, and judged again at the end.
        """
        state, tally = self._state, self._state.tallies.get(day)
        if tally is None or tally.objects == 0:
            return
        if state.early and not state.mixed and self._known_totals is not None:
            labels = sum(totals.of(day) for totals in self._known_totals)
            if self._judge.is_plain(day, tally, labels):
                self._judge.judge(day, tally, labels, self._state.known or ())
            elif self._late(_LOOKING_SHARE) or not look_at_day(self._context, self._source, self.labels, self._judge, day):
                return  # no time to make sure: at the end of the scan, then
            del state.tallies[day]
            state.passed.add(day)
        elif state.known is None and self._judge.taken.of(day) is None and not {day} & (state.changes.keys() | state.waiting.keys()):
            self._judge.judge(day, tally, 0)

    def _end(self) -> None:
        """Everything is listed: add up the label files of all days, judge what is left, and conclude."""
        state = self._state
        found: list[FileTotals] = []
        files = []
        for file in state.files:
            try:
                totals = self.labels.of(file)
            except FileNotFoundError:  # deleted since it was listed
                continue
            if totals is None:
                return
            found.append(totals)
            files.append(file)
        seen = {day for day, tally in state.tallies.items() if tally.objects}
        for day in sorted((seen | self._judge.taken.days) - state.passed):
            labels = sum(totals.of(day) for totals in found)
            self._judge.judge(day, state.tallies.get(day, Tally()), labels, files)
        alive = seen | state.passed | self._judge.taken.days
        for notes in (state.changes, state.waiting):
            for day in notes.keys() - alive:
                del notes[day]  # it came and went without being taken in
        self.labels.forget_all_but(alive | set(state.tallies), files)
        state.known, state.plain = files, not state.mixed
        state.begin_again()
        state.scans += 1

    @cached_property
    def _known_totals(self) -> list[FileTotals] | None:
        """Of the label files of all days, which are as the last scan left them; None where they must be added up anew."""
        records = [self.labels.whole(file) for file in self._state.known or ()]
        return None if None in records else [totals for totals in records if totals is not None]

    def _label_files_are_as_they_were(self) -> bool:
        return all(self._is_as_it_was(file) for file in self._state.known or ()) and self._known_totals is not None

    def _is_as_it_was(self, file: LabelFile) -> bool:
        o = self._source.find(file.key)
        return o is not None and (o.size, o.etag) == (file.size, file.etag)

    def _is_marker(self, o: Listed) -> bool:
        marker = self._context.settings.ingest.marker
        return bool(marker) and PurePosixPath(o.key).name == marker


def _top_day(key: str) -> date | None:
    """The day that a key's topmost folder names."""
    top, slash, _ = key.partition("/")
    return day_folder(f"{top}/_") if slash else None
