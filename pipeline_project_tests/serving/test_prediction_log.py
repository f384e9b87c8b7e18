"""The log keeps what was acknowledged: whatever is killed, full or shipped twice."""

import fcntl
import os
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_project.contracts import PredictionRecord, TruthRecord
from pipeline_project.serving.prediction_log import (
    Gap,
    PredictionLog,
    SegmentError,
    Shipper,
    days_with_segments,
    find_gaps,
    new_worker_id,
    read_segments,
    read_truth,
    ship,
)
from pipeline_project.storage import FolderStore

DAY = date(2026, 11, 20)


def record(sequence: int = 0, *, worker: str = "w-20261120T000000-00000000", day: date = DAY, request_id: str = "r") -> PredictionRecord:
    return PredictionRecord(
        request_id=request_id,
        time=datetime(day.year, day.month, day.day, 12, tzinfo=UTC),
        environment="staging",
        worker=worker,
        sequence=sequence,
        document=1,
        route="champion",
        package="a" * 64,
        image_id=None,
        status=200,
        predicted_class="toys",
        confidence=0.5,
        probabilities=[0.5, 0.5],
        latency_ms=1.0,
        measurements=None,
        features=None,
    )


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def segments(spool: Path) -> list[Path]:
    return sorted(spool.glob("prediction-segments/*/*.jsonl"))


def test_records_are_numbered_shipped_while_growing_and_removed_when_sealed(store: FolderStore, spool: Path) -> None:
    log = PredictionLog(spool, new_worker_id("r0"))
    log.append(record())
    shipper = Shipper(spool, store, "staging")
    assert shipper.ship() == 1
    assert shipper.ship() == 0  # nothing new
    log.append(record())
    assert shipper.ship() == 1
    assert len(segments(spool)) == 1  # still open: it stays
    log.close()
    shipper.ship()
    assert segments(spool) == []
    assert shipper.ship() == 0
    assert [r.sequence for r in read_segments(store, "staging", DAY)] == [1, 2]
    assert days_with_segments(store, "staging") == [DAY]


def test_segments_rotate_by_size_and_by_day(store: FolderStore, spool: Path) -> None:
    log = PredictionLog(spool, "w", segment_bytes=600)
    for _ in range(5):
        log.append(record())
    log.append(record(day=date(2026, 11, 21)))
    log.close()
    assert len(segments(spool)) == 4
    ship(spool, store, "staging")
    days = [list(read_segments(store, "staging", day)) for day in (DAY, date(2026, 11, 21))]
    assert [r.sequence for r in days[0]] == [1, 2, 3, 4, 5]
    assert [r.sequence for r in days[1]] == [6]


def test_a_segment_whose_writer_was_killed_is_shipped_with_its_torn_line_and_read(store: FolderStore, spool: Path) -> None:
    log = PredictionLog(spool, "w")
    log.append(record())
    log.close()
    with segments(spool)[0].open("ab") as file:
        file.write(record(2).model_dump_json().encode()[:50])
    ship(spool, store, "staging")
    assert segments(spool) == []
    assert [r.sequence for r in read_segments(store, "staging", DAY)] == [1]


def test_damage_elsewhere_is_an_error_that_names_the_line(store: FolderStore) -> None:
    lines = [record(1).model_dump_json(), "{}", record(3).model_dump_json(), ""]
    store.write(f"features/prediction-segments/staging/{DAY}/w-00001.jsonl", "\n".join(lines).encode())
    with pytest.raises(SegmentError, match=r"w-00001\.jsonl:2"):
        list(read_segments(store, "staging", DAY))


def test_a_full_disk_loses_no_number_and_tears_no_later_line(store: FolderStore, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = PredictionLog(spool, "w")
    log.append(record(request_id="first"))
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:20]))
    with pytest.raises(OSError, match="disk full"):
        log.append(record(request_id="lost"))
    monkeypatch.undo()
    log.append(record(request_id="second"))
    log.close()
    ship(spool, store, "staging")
    assert [(r.sequence, r.request_id) for r in read_segments(store, "staging", DAY)] == [(1, "first"), (2, "second")]


def test_nothing_is_removed_before_the_store_gave_the_same_bytes_back(
    store: FolderStore, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = PredictionLog(spool, "w")
    log.append(record())
    log.close()
    monkeypatch.setattr(store, "read", lambda key: b"something else")
    with pytest.raises(OSError, match="is kept"):
        ship(spool, store, "staging")
    assert len(segments(spool)) == 1


def test_a_segment_is_locked_for_as_long_as_it_may_grow(spool: Path) -> None:
    log = PredictionLog(spool, "w")
    log.append(record())
    with segments(spool)[0].open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_truth_goes_the_same_way(store: FolderStore, spool: Path) -> None:
    log = PredictionLog(spool, "w")
    truth = TruthRecord(request_id="r", label="toys", source="api", received=datetime(2026, 11, 20, 23, 59, tzinfo=UTC))
    log.append_truth(truth)
    log.close()
    ship(spool, store, "staging")
    assert list(read_truth(store, "staging", DAY)) == [truth]
    assert list(read_segments(store, "staging", DAY)) == []


@given(st.sets(st.integers(2, 60)), st.randoms(use_true_random=False))
def test_gaps_are_exactly_the_missing_numbers(missing: set[int], random: object) -> None:
    present = [n for n in range(1, 62) if n not in missing]
    random.shuffle(present)  # type: ignore[attr-defined]
    gaps = find_gaps(record(n) for n in present)
    assert {n for gap in gaps for n in range(gap.first, gap.last + 1)} == missing


def test_a_worker_of_this_day_begins_with_1_and_one_of_the_day_before_need_not() -> None:
    today, before = "w-20261120T000001-00000001", "w-20261119T235900-00000002"
    assert find_gaps([record(3, worker=today)]) == [Gap(today, 1, 2)]
    assert find_gaps([record(3, worker=before), record(4, worker=before)]) == []
    assert find_gaps([record(3, worker=before), record(5, worker=before)]) == [Gap(before, 4, 4)]


def test_worker_ids_are_unique_and_safe_as_file_names() -> None:
    assert new_worker_id("a/../b c") != new_worker_id("a/../b c")
    assert "/" not in new_worker_id("a/../b c")
    assert find_gaps([]) == []
