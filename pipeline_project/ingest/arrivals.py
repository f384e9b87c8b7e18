"""Which days of the source differ from what was last taken in: level-triggered, so nothing is missed and nothing asked for twice."""

from datetime import date, datetime

from pipeline_project.ingest.scanning import ScanLimits, ScanState, advance, judge_days, scan_identity, scan_to_end
from pipeline_project.stage import StageContext

_NIGHTLY = "processed-data/scan/nightly.txt"


def changed_days(context: StageContext, *, now: datetime | None = None) -> dict[date, str]:
    """{day: fingerprint} of the days to take in, oldest first: new ones, those with changed objects, those not taken in to the end.

    The whole source is listed, however long that takes, and nothing waits for uploads to settle: a person asked. Days after today wait.
    Raises `SourceError` when the source cannot be read: an unreachable source is never quiet.
    """
    state = scan_to_end(context, now=now)
    return {day: change.fingerprint for day, change in sorted(state.changes.items())}


def nightly_scan(context: StageContext, ended: date, *, now: datetime | None = None) -> ScanState:
    """What the daily schedule knows: the day that ended, looked at by itself, and as much of the rest as one tick has time for.

    A schedule has no cursor, so where a source takes longer than a tick the scan goes on in the next night from what the store remembers;
    the sensor is what covers such a source within minutes. The caller keeps the state once it has asked, see `keep_nightly`.

    Raises:
        SourceError: the source cannot be read.
    """
    store, seconds = context.artifacts.bytes, context.settings.ingest.scan_seconds
    try:
        kept: str | None = store.read(_NIGHTLY).decode("ascii", "replace")
    except FileNotFoundError:
        kept = None
    state = ScanState.load(kept, scan_identity(context.settings))
    advance(context, state, ScanLimits(seconds=seconds), now=now)
    if state.begun:  # not through: whatever the scan has not come to, the day that ended is looked at
        judge_days(context, state, [ended], now=now)
    return state


def keep_nightly(context: StageContext, state: ScanState) -> None:
    """Remember a nightly scan's state until the next night."""
    context.artifacts.bytes.write(_NIGHTLY, state.dump().encode())
