"""The sink of alerts: records in the store, and lines for people."""

from datetime import UTC, datetime
from pathlib import Path

from pipeline_project.monitoring.alerts import Alert, failure, judge, list_alerts, tell
from pipeline_project.storage.byte_store import FolderStore

MOMENT = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)


def test_a_failure_is_kept_with_its_facts_and_told_in_one_line(tmp_path: Path) -> None:
    store, log = FolderStore(tmp_path / "store"), tmp_path / "logs" / "alerts.log"
    alert = failure("run_failed", "critical", "ingest_day:\nno labels.csv", {"run": "abc", "page": "/runs/abc"})
    tell(store, log, MOMENT, alert)
    assert list_alerts(store) == [(MOMENT.date(), alert)]
    (line,) = log.read_text().splitlines()
    assert line.startswith("2026-11-20 09:30:00 critical ")
    assert line.endswith("run_failed: ingest_day: no labels.csv [run=abc page=/runs/abc]")


def test_the_same_failure_is_told_once_another_one_too(tmp_path: Path) -> None:
    store, log = FolderStore(tmp_path / "store"), tmp_path / "alerts.log"
    for run in ("abc", "abc", "def", "abc"):
        tell(store, log, MOMENT, failure("run_failed", "critical", "no labels.csv", {"run": run}))
    assert len(log.read_text().splitlines()) == len(list_alerts(store)) == 2


def test_a_line_that_was_lost_in_a_crash_is_written_again(tmp_path: Path) -> None:
    store, log = FolderStore(tmp_path / "store"), tmp_path / "alerts.log"
    alert = failure("run_failed", "critical", "no labels.csv", {"run": "abc"})
    tell(store, log, MOMENT, alert)
    log.unlink()
    tell(store, log, MOMENT, alert)
    assert len(log.read_text().splitlines()) == 1


def test_alerts_of_reports_look_as_they_did_before_failures_had_facts() -> None:
    alert = judge("accuracy", "critical", 0.7, "<", 0.8)
    assert "facts" not in alert.model_dump(mode="json")
    assert Alert.model_validate(alert.model_dump()) == alert
    assert Alert.model_validate_json(alert.model_dump_json()) == alert
