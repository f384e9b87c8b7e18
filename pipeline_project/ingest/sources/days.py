"""Which day an object belongs to: its `YYYY-MM-DD` folder's, else the day it was last modified when first seen, fixed in a ledger."""

from datetime import UTC, date
from pathlib import PurePosixPath

from pipeline_project.ingest.sources import arrival_ledger
from pipeline_project.ingest.sources.base import Listed, SourceError, day_folder
from pipeline_project.settings import Settings
from pipeline_project.storage import ByteStore


def assign_days(listed: list[Listed], store: ByteStore, settings: Settings) -> dict[str, date]:
    """The day of each object, remembering first arrivals of undated ones.

    Raises:
        SourceError: an image's day lies before data.start_date.
    """
    days: dict[str, date] = {}
    undated: dict[str, date] = {}
    for o in listed:
        folder = day_folder(o.key)
        if folder is None:
            undated[o.key] = o.modified.astimezone(UTC).date()
        else:
            days[o.key] = folder
    if undated:
        days |= arrival_ledger.first_seen(store, undated)
    start = settings.data.start_date
    early = sorted((day, key) for key, day in days.items() if day < start and PurePosixPath(key).name != settings.data.labels_file)
    if early:
        day, key = early[0]
        raise SourceError(
            f"{len(early)} objects lie before data.start_date ({start}), the first is {key} of {day}. "
            f"Set data.start_date to {day} or earlier."
        )
    return days
