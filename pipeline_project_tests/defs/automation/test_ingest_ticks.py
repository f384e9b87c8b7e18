"""Ticks of the ingest sensors with the real definitions: gone on with, failed, killed, told of, and fed by a bucket's events."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from pipeline_project.defs.resources import project_settings
from pipeline_project.ingest.scanning import ScanState, scan_identity
from pipeline_project.ingest.sources import SourceError
from pipeline_project.monitoring.alerts import list_alerts
from pipeline_project_tests.defs.automation.shop import Shop, days_ago
from pipeline_project_tests.servers.object_server import ObjectServer

pytestmark = pytest.mark.slow
DAYS = [days_ago(n) for n in (6, 5, 4, 3)]
KEYS_A_DAY = 5
TONIGHT = datetime.combine(days_ago(0), time(2), UTC)
KILLED_TICK = """
import os, signal, sys
import dagster as dg
from pipeline_project.definitions import defs
from pipeline_project.ingest.scanning import ScanState

ScanState.dump = lambda self: os.kill(os.getpid(), signal.SIGKILL)
repository = defs().get_repository_def()
with dg.DagsterInstance.local_temp(sys.argv[1]) as instance:
    context = dg.build_sensor_context(instance=instance, cursor=sys.argv[2] or None, repository_def=repository)
    repository.get_sensor_def("new_objects").evaluate_tick(context)
"""


def set_up(shop: Shop, monkeypatch: pytest.MonkeyPatch, **values: object) -> Shop:
    """The same shop with other settings."""
    for name, value in values.items():
        monkeypatch.setenv(f"PIPELINE__{name}", str(value))
    project_settings.cache_clear()
    return shop


def days(result: Any) -> list[str]:
    return [request.partition_key for request in result.run_requests]


def state_of(shop: Shop, result: Any) -> ScanState:
    return ScanState.load(result.cursor, scan_identity(shop.settings))


def test_a_scan_goes_on_over_ticks_and_asks_for_days_as_it_passes_them(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(shop, monkeypatch, INGEST__SCAN_KEYS=KEYS_A_DAY + 1)
    for day in DAYS:
        shop.arrive(day)
    first = shop.sense("new_objects")
    assert days(first) == [str(DAYS[0])]
    for request in first.run_requests:  # as the daemon hands them over
        shop.start(job="ingest_day", day=DAYS[0], **request.tags)
    asked, result = [], first
    for _ in range(3):
        result = shop.sense("new_objects", result.cursor)
        asked.append(days(result))
        for request in result.run_requests:
            shop.instance.add_run(dg.DagsterRun("ingest_day", tags=dict(request.tags) | {"dagster/partition": request.partition_key}))
    assert asked == [[str(DAYS[1])], [str(DAYS[2])], [str(DAYS[3])]]
    assert state_of(shop, result).scans == 1
    more = shop.sense("new_objects", result.cursor)
    assert not more.run_requests
    assert f"in flight: {', '.join(map(str, DAYS))}" in more.skip_message
    assert "the scan goes on at the next tick" in more.skip_message


def test_a_failing_tick_keeps_the_cursor_and_the_next_goes_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(shop, monkeypatch, INGEST__SCAN_KEYS=KEYS_A_DAY * 3 + 1)
    for day in DAYS:
        shop.arrive(day)
    cursor = shop.sense("new_objects").cursor
    moved = shop.source.rename(shop.source.with_name("moved"))
    with pytest.raises(SourceError, match="is not a folder"):
        shop.sense("new_objects", cursor)
    moved.rename(shop.source)
    result = shop.sense("new_objects", cursor)
    assert (state_of(shop, result).scans, days(result)) == (1, [str(day) for day in DAYS])


def test_a_tick_killed_before_its_cursor_is_kept_loses_nothing_and_asks_for_nothing_twice(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(shop, monkeypatch, INGEST__SCAN_KEYS=KEYS_A_DAY * 2 + 1)
    for day in DAYS:
        shop.arrive(day)
    cursor, keys = "", []
    for _ in range(2):
        command = [sys.executable, "-W", "ignore", "-c", KILLED_TICK, shop.instance.root_directory, cursor]
        killed = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
        result = shop.sense("new_objects", cursor or None)
        again = shop.sense("new_objects", cursor or None)
        assert [r.run_key for r in again.run_requests] == [r.run_key for r in result.run_requests], "Dagster starts one run for a key"
        for request in result.run_requests:
            shop.instance.add_run(dg.DagsterRun("ingest_day", tags=dict(request.tags) | {"dagster/partition": request.partition_key}))
        keys += [request.run_key for request in result.run_requests]
        cursor = result.cursor
    assert [key[:10] for key in keys] == [str(day) for day in DAYS]


def test_a_stuck_day_is_told_once_and_so_is_that_it_was_taken_in_after_all(shop: Shop) -> None:
    shop.arrive(DAYS[0], labels=False)
    results = shop.run("ingest_day", shop.sense("new_objects").run_requests)
    assert not results[0].success
    stuck = shop.sense("new_objects")
    for cursor in (stuck.cursor, None):  # also where the cursor was lost
        shop.sense("new_objects", cursor)
    shop.schedule("daily_ingest", TONIGHT)
    (line,) = [line for line in shop.alerts if " day_stuck: " in line]
    for word in ("critical", f"{DAYS[0]} waits for a person: raw_images: the check", results[0].run_id, "next_step=mend"):
        assert word in line
    assert [a.name for _, a in list_alerts(shop.context.artifacts.bytes) if a.name == "day_stuck"] == ["day_stuck"]
    shop.arrive(DAYS[0])
    again = shop.sense("new_objects", stuck.cursor)
    assert shop.run("ingest_day", again.run_requests)[0].success
    after = shop.sense("new_objects", again.cursor)
    shop.sense("new_objects", after.cursor)
    assert state_of(shop, after).told == {}
    (line,) = [line for line in shop.alerts if " day_recovered: " in line]
    assert f"{DAYS[0]} was taken in" in line


def test_uploads_settle_before_a_day_is_asked_for(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(shop, monkeypatch, INGEST__SETTLE_MINUTES=10)
    shop.arrive(DAYS[0])
    told = shop.sense("new_objects").skip_message
    assert f"{DAYS[0]} waits: uploads settle until" in told
    for path in (shop.source / str(DAYS[0])).iterdir():
        moment = path.stat().st_mtime - timedelta(minutes=11).total_seconds()
        os.utime(path, (moment, moment))
    assert days(shop.sense("new_objects")) == [str(DAYS[0])]


def test_the_sensor_of_events_is_there_where_a_queue_is_set(shop: Shop) -> None:
    assert "object_events" not in {sensor.name for sensor in shop.repository.sensor_defs}


def test_events_of_a_bucket_lead_to_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moto_login: ObjectServer) -> None:
    import boto3

    sqs = boto3.client("sqs", endpoint_url=moto_login.endpoint, region_name="us-east-1")
    queue = sqs.create_queue(QueueName=tmp_path.name[:60])["QueueUrl"]
    bucket = moto_login.filled_bucket({f"shop/{DAYS[0]}/a.jpg": b"x", f"shop/{DAYS[1]}/a.jpg": b"x"})
    values = {
        "PIPELINE_HOME": str(tmp_path / "home"),
        "PIPELINE__DATA__SOURCE": f"s3://{bucket}/shop/",
        "PIPELINE__STORE__ROOT": str(tmp_path / "store"),
        "PIPELINE__STORE__ENDPOINT_URL": moto_login.endpoint,
        "PIPELINE__INGEST__NOTIFICATIONS": queue,
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    record = {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put"}
    record |= {"s3": {"bucket": {"name": bucket}, "object": {"key": f"shop/{DAYS[1]}/a.jpg", "size": 1, "eTag": "e"}}}  # type: ignore[dict-item]
    sqs.send_message(QueueUrl=queue, MessageBody=json.dumps({"Records": [record]}))
    program = """
import sys
import dagster as dg
from pipeline_project.definitions import defs

repository = defs().get_repository_def()
with dg.DagsterInstance.local_temp(sys.argv[1]) as instance:
    cursor = None
    for _ in range(2):
        context = dg.build_sensor_context(instance=instance, cursor=cursor, repository_def=repository)
        result = repository.get_sensor_def("object_events").evaluate_tick(context)
        cursor = result.cursor
        print(*[f"{r.partition_key} {r.tags['reason']} {r.run_key}" for r in result.run_requests], sep=chr(10))
"""
    (tmp_path / "dagster").mkdir()
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "dagster")]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    first, again = done.stdout.splitlines()
    assert first.startswith(f"{DAYS[1]} object_events {DAYS[1]}-")
    assert again == first, "until a run is there the same run is asked for, under the same key"
