"""A look at some days alone, without listing the rest of the source."""

import time
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import PurePosixPath

from pipeline_project.ingest.labels import speaks_of
from pipeline_project.ingest.scanning.judging import Judge
from pipeline_project.ingest.scanning.label_totals import LabelTotals
from pipeline_project.ingest.scanning.state import LabelFile, ScanState, Tally
from pipeline_project.ingest.scanning.taken import read_taken
from pipeline_project.ingest.sources import Source, assign_days, day_folder, open_source
from pipeline_project.stage import StageContext
from pipeline_project.storage.s3_client import IMPATIENT


def judge_days(
    context: StageContext,
    state: ScanState,
    days: Iterable[date],
    seconds: float | None = None,
    *,
    now: datetime | None = None,
    settle: bool = True,
) -> set[date]:
    """List these days only, and note in the state which are to be taken in. Returns those that there was time for, at least one.

    Raises:
        SourceError: the source cannot be read, or holds what it must not.
    """
    started = time.monotonic()

    def late() -> bool:
        return seconds is not None and time.monotonic() - started > seconds

    source = open_source(context.settings, IMPATIENT)
    labels = LabelTotals(context, source, late)
    judge = Judge(context.settings, state, read_taken(context), (now or datetime.now(UTC)).timestamp(), settle=settle)
    judge.drop_what_was_taken_in()
    judged: set[date] = set()
    try:
        for day in days:
            if judged and late():
                break
            if not look_at_day(context, source, labels, judge, day):
                break
            judged.add(day)
    finally:
        labels.save()
    return judged


def look_at_day(context: StageContext, source: Source, labels: LabelTotals, judge: Judge, day: date) -> bool:
    """List one day and judge it; False: there was no time for its label files."""
    names, marker = context.settings.data.labels_file, context.settings.ingest.marker
    listed = source.list_day(day)
    objects = [o for o in listed if not marker or PurePosixPath(o.key).name != marker]
    assigned = assign_days(objects, context.artifacts.bytes, context.settings)
    tally = Tally(marker=any(day_folder(o.key) == day for o in listed if marker and PurePosixPath(o.key).name == marker))
    others, whole = 0, True
    files = []
    for o in objects:
        if PurePosixPath(o.key).name != names:
            if assigned[o.key] == day:
                tally.add(o, judge.now, dated=day_folder(o.key) is not None)
        elif day_folder(o.key) == day:
            whole &= labels.add_dated(o, tally, judge.now)
        elif speaks_of(o, day):
            totals = labels.of(LabelFile.of(o))
            whole &= totals is not None
            others += totals.of(day) if totals else 0
            files.append(LabelFile.of(o))
    if whole and (tally.objects or day in judge.taken.days):
        judge.judge(day, tally, others, files)
    return whole
