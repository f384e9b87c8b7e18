"""What the rows of label files add to the fingerprints of their days; a file that did not change is not read again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from itertools import islice
from typing import Any

from pipeline_project.digests import digest_of
from pipeline_project.ingest.fingerprint import DayFingerprint
from pipeline_project.ingest.labels import read_rows, row_day
from pipeline_project.ingest.scanning.state import LabelFile, Tally
from pipeline_project.ingest.sources import Listed, Source, arrival_ledger, day_folder
from pipeline_project.stage import StageContext

FOLDER = "processed-data/scan/labels"
_DATED = f"{FOLDER}/dated.json"
_ROWS_A_LOOK = 5_000
"""Rows between two looks at the clock."""
_LARGE = 1_000_000
"""Bytes above which a label file of one day is kept by itself, to go on with at the next tick."""


@dataclass
class FileTotals:
    """What one label file adds to the fingerprint of each day, and of every day there is (a file whose rows cannot be told)."""

    by_day: dict[date, int] = field(default_factory=dict)
    every_day: int = 0

    def of(self, day: date) -> int:
        """What it adds to this day."""
        return self.by_day.get(day, 0) + self.every_day


class LabelTotals:
    """Label files of one tick. Reading and adding up stops at the deadline and goes on at the next tick.

    Args:
        out_of_time: whether the tick is to end now.
    """

    def __init__(self, context: StageContext, source: Source, out_of_time: Callable[[], bool] = lambda: False) -> None:
        self._context, self._source, self._out_of_time = context, source, out_of_time
        data = context.settings.data
        self._columns = digest_of([data.labels_file, data.image_column, data.label_column])[:16]
        self._changed = False
        self.read = 0
        """Files that were read from the source."""

    def add_dated(self, o: Listed, tally: Tally, now: float) -> bool:
        """Add a label file of a dated folder to its day; False: out of time, ask again at the next tick.

        Raises:
            SourceUnreachableError: it cannot be read.
        """
        try:
            total = self._of_dated(LabelFile.of(o))
        except FileNotFoundError:  # deleted since it was listed
            return True
        if total is None:
            return False
        tally.total += total
        tally.saw(o, now, dated=True)
        return True

    def _of_dated(self, file: LabelFile) -> int | None:
        known = self._dated.get(file.key)
        if known is not None and known[:2] == [file.size, file.etag]:
            return int(known[2], 16)
        totals = self.of(file)
        if totals is None:
            return None
        day = day_folder(file.key)
        assert day is not None, "it lies in a dated folder"
        total = totals.of(day)
        self._dated[file.key] = [file.size, file.etag, f"{total:x}"]
        self._changed = True
        return total

    def of(self, file: LabelFile) -> FileTotals | None:
        """What a label file adds to its days; None: out of time, ask again at the next tick.

        Raises:
            FileNotFoundError: it is gone since it was listed.
            SourceUnreachableError: it cannot be read.
        """
        kept = day_folder(file.key) is None or file.size > _LARGE
        record = self.recorded(file) if kept else None
        if record is not None and record["done"]:
            return _totals(record)
        if self.read and self._out_of_time():  # at least one a tick, so that a slow source is got through, too
            return None
        rows, problems = read_rows(file.key, self._source.read(file.key), self._context.settings.data)
        self.read += 1
        record = record or {"key": file.key, "state": self._state(file), "ledger": "", "rows": 0, "days": {}, "every": "0"}
        if problems:
            unreadable = DayFingerprint()
            unreadable.add_unreadable_label_file(file.key, file.size, file.etag)
            if kept:
                self._keep(file, {**record, "done": True, "every": f"{unreadable.total:x}"})
            return FileTotals({}, unreadable.total)
        undated = day_folder(file.key) is None and any(_day(row.image) is None for row in rows)
        arrivals: Mapping[str, date] = self._ledger if undated else {}
        days = {date.fromisoformat(d): DayFingerprint.of_text(total) for d, total in record["days"].items()}
        done = record["rows"]
        remaining = islice(rows, done, None)
        while some := list(islice(remaining, _ROWS_A_LOOK)):
            for row in some:
                day = row_day(file, row, arrivals)
                days.setdefault(day, DayFingerprint()).add_label(row.image, row.label, row.attributes)
            done += len(some)
            if kept and done < len(rows) and self._out_of_time():
                break
        whole = done >= len(rows)
        record |= {
            "ledger": self._ledger_state if undated else "",
            "rows": done,
            "days": {str(d): f"{f.total:x}" for d, f in days.items()},
            "done": whole,
        }
        if kept:
            self._keep(file, record)
        return _totals(record) if whole else None

    def whole(self, file: LabelFile) -> FileTotals | None:
        """What is kept of this very file; None where it must be read."""
        record = self.recorded(file)
        return _totals(record) if record is not None and record["done"] else None

    def recorded(self, file: LabelFile) -> dict[str, Any] | None:
        """What is kept of this very file: whole, or up to where the last tick came."""
        try:
            record: dict[str, Any] = self._context.artifacts.bytes.read_json(_place(file.key))
        except (FileNotFoundError, ValueError):
            return None
        if record.get("key") != file.key or record.get("state") != self._state(file):
            return None
        return record if not record["ledger"] or record["ledger"] == self._ledger_state else None

    def last_totals(self, key: str) -> FileTotals | None:
        """What the file added when it was last added up, whatever it holds now."""
        try:
            record = self._context.artifacts.bytes.read_json(_place(key))
        except (FileNotFoundError, ValueError):
            return None
        return _totals(record) if record.get("key") == key and record.get("done") else None

    def save(self) -> None:
        """Keep what was learned of files in dated folders."""
        if self._changed:
            self._context.artifacts.bytes.write_json(_DATED, {"columns": self._columns, "files": self._dated})
            self._changed = False

    def forget_all_but(self, days: set[date], files: list[LabelFile]) -> None:
        """After a whole scan: forget files of days that are gone, and files that are gone."""
        gone = [key for key in self._dated if day_folder(key) not in days]
        for key in gone:
            del self._dated[key]
            self._changed = True
        wanted = {_DATED, *(_place(file.key) for file in files)}
        store = self._context.artifacts.bytes
        for key in store.list(f"{FOLDER}/"):
            if key not in wanted:
                store.delete(key)

    @cached_property
    def _dated(self) -> dict[str, list[Any]]:
        try:
            value = self._context.artifacts.bytes.read_json(_DATED)
            return dict(value["files"]) if value["columns"] == self._columns else {}
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return {}

    @cached_property
    def _ledger(self) -> dict[str, date]:
        return arrival_ledger.read_ledger(self._context.artifacts.bytes)

    @cached_property
    def _ledger_state(self) -> str:
        return digest_of(sorted((key, day.toordinal()) for key, day in self._ledger.items()))[:16]

    def _state(self, file: LabelFile) -> list[Any]:
        return [file.size, file.etag, self._columns]

    def _keep(self, file: LabelFile, record: dict[str, Any]) -> None:
        self._context.artifacts.bytes.write_json(_place(file.key), record)


def _totals(record: dict[str, Any]) -> FileTotals:
    return FileTotals({date.fromisoformat(d): int(total, 16) for d, total in record["days"].items()}, int(record["every"], 16))


def _place(key: str) -> str:
    return f"{FOLDER}/{digest_of(key)[:32]}.json"


def _day(key: str) -> date | None:
    try:
        return day_folder(key)
    except ValueError:  # a row that names a folder such as 2026-13-40 names no image
        return None
