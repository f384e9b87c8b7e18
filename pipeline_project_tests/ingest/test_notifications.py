"""Event notifications: S3 and SQS for real (moto's server), every form of message, kills and doubles that lose nothing."""

import json
import secrets
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_project.ingest import notifications
from pipeline_project.ingest.event_messages import MalformedMessageError, key_in_source, parse_message, source_keys
from pipeline_project.ingest.notifications import ASIDE, PENDING, take_notifications
from pipeline_project.ingest.scanning import ScanState, scan_identity
from pipeline_project.ingest.sources import SourceUnreachableError, open_source
from pipeline_project.settings import load_settings
from pipeline_project.stage import StageContext
from pipeline_project_tests.ingest.days import take_in
from pipeline_project_tests.servers.object_server import ObjectServer

TODAY = datetime.now(UTC).date()
DAY, BEFORE = TODAY - timedelta(days=1), TODAY - timedelta(days=2)


def s3_record(key: str, name: str = "ObjectCreated:Put", bucket: str = "photos", **what: Any) -> dict[str, Any]:
    moment = f"{TODAY}T10:00:00.000Z"
    entry = {"key": key, **({} if name.startswith("ObjectRemoved") else {"size": 3, "eTag": "e"}), **what}
    return {"eventSource": "aws:s3", "eventName": name, "eventTime": moment, "s3": {"bucket": {"name": bucket}, "object": entry}}


def from_event_bridge(key: str, kind: str = "Object Created", bucket: str = "photos") -> dict[str, Any]:
    detail = {"bucket": {"name": bucket}, "object": {"key": key, "size": 3, "etag": "e"}}
    return {"version": "0", "detail-type": kind, "source": "aws.s3", "time": f"{TODAY}T10:00:00Z", "detail": detail}


class TestMessages:
    def test_s3_records_with_encoded_keys(self) -> None:
        body = json.dumps({"Records": [s3_record("a+b%2Bc/%C3%A4.jpg"), s3_record("x.jpg", "ObjectRemoved:Delete")]})
        created, removed = parse_message(body)
        assert (created.bucket, created.key, created.removed, created.size, created.etag) == ("photos", "a b+c/ä.jpg", False, 3, "e")
        assert created.moment == datetime(TODAY.year, TODAY.month, TODAY.day, 10, tzinfo=UTC)
        assert (removed.key, removed.removed) == ("x.jpg", True)

    def test_wrapped_by_sns(self) -> None:
        inner = json.dumps({"Records": [s3_record("x.jpg")]})
        assert parse_message(json.dumps({"Type": "Notification", "Message": inner}))[0].key == "x.jpg"

    @pytest.mark.parametrize(("kind", "removed"), [("Object Created", False), ("Object Deleted", True)])
    def test_event_bridge_does_not_encode_keys(self, kind: str, removed: bool) -> None:
        (event,) = parse_message(json.dumps(from_event_bridge("a+b%20.jpg", kind)))
        assert (event.key, event.removed) == ("a+b%20.jpg", removed)

    def test_the_test_event_names_nothing(self) -> None:
        assert parse_message(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "photos"})) == []

    @pytest.mark.parametrize(
        "body",
        [
            "",
            "no JSON",
            "[]",
            "7",
            "{}",
            '{"Records": []}',
            '{"Records": [7]}',
            '{"Records": [{"eventSource": "aws:sqs"}]}',
            '{"Type": "Notification", "Message": "{"}',
            '{"source": "aws.s3", "detail": {}}',
            json.dumps({"Records": [s3_record("%ff")]}),
            json.dumps({"Records": [s3_record("a", size="many")]}),
            json.dumps({"Records": [s3_record("")]}),
            "[" * 100_000,
        ],
    )
    def test_anything_else_is_malformed(self, body: str) -> None:
        with pytest.raises(MalformedMessageError):
            parse_message(body)

    @given(st.recursive(st.none() | st.text() | st.integers(), lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=12))
    def test_no_message_breaks_it(self, value: Any) -> None:
        for body in (json.dumps(value), json.dumps({"Records": [value]}), json.dumps({"source": "aws.s3", "detail": value})):
            with pytest.raises(MalformedMessageError):
                parse_message(body)

    def test_only_objects_of_the_source_count(self) -> None:
        places = [("photos", "shop/", ""), ("more", "", "more/")]

        def key(bucket: str, name: str) -> str | None:
            return key_in_source(parse_message(json.dumps({"Records": [s3_record(name, bucket=bucket)]}))[0], places)

        assert key("photos", "shop/a.jpg") == "a.jpg"
        assert key("more", "shop/a.jpg") == "more/shop/a.jpg"
        assert [key("photos", "other/a.jpg"), key("others", "shop/a.jpg"), key("photos", "shop/"), key("more", "a/")] == [None] * 4


class Bucket:
    """A bucket whose events go to a queue, and a platform that reads it."""

    def __init__(self, server: ObjectServer, folder: Path) -> None:
        import boto3

        self.client = server.client()
        self.sqs = boto3.client("sqs", endpoint_url=server.endpoint, region_name="us-east-1")
        name = f"q{secrets.token_hex(6)}"
        self.queue = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        self.bucket = server.new_bucket()
        arn = f"arn:aws:sqs:us-east-1:123456789012:{name}"
        events = {"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}]}
        self.client.put_bucket_notification_configuration(Bucket=self.bucket, NotificationConfiguration=events)
        environment = {
            "PIPELINE_HOME": str(folder / "home"),
            "PIPELINE__DATA__SOURCE": f"s3://{self.bucket}/shop/",
            "PIPELINE__STORE__ENDPOINT_URL": server.endpoint,
            "PIPELINE__STORE__ROOT": str(folder / "store"),
            "PIPELINE__INGEST__NOTIFICATIONS": self.queue,
        }
        self.context = StageContext.open(load_settings("sample", environment=environment))
        self.cursor: str | None = None
        self.identity = scan_identity(self.context.settings)

    def put(self, key: str, data: str = "x") -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"shop/{key}", Body=data.encode())

    def remove(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=f"shop/{key}")

    def send(self, *bodies: str) -> None:
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.queue, MessageBody=body)

    def tick(self, seconds: float = 10) -> tuple[ScanState, notifications.Taken]:
        state = ScanState.load(self.cursor, self.identity)
        taken = take_notifications(self.context, state, seconds)
        self.cursor = state.dump()
        return state, taken

    def changed(self) -> list[date]:
        return sorted(self.tick()[0].changes)

    @property
    def waiting_messages(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    @property
    def pending(self) -> list[str]:
        return list(self.context.artifacts.bytes.read_json(PENDING)["days"])


@pytest.fixture
def bucket(moto_login: ObjectServer, tmp_path: Path) -> Bucket:
    return Bucket(moto_login, tmp_path)


def test_new_overwritten_and_deleted_objects_lead_to_their_days(bucket: Bucket) -> None:
    bucket.put(f"{DAY}/a b+ä.jpg")
    assert bucket.changed() == [DAY]
    assert bucket.waiting_messages == 0
    take_in(bucket.context, DAY)
    assert (bucket.changed(), bucket.pending) == ([], [])
    bucket.put(f"{DAY}/a b+ä.jpg", "other bytes")
    bucket.put(f"{BEFORE}/a.jpg")
    assert bucket.changed() == [BEFORE, DAY]
    for day in (BEFORE, DAY):
        take_in(bucket.context, day)
    bucket.remove(f"{BEFORE}/a.jpg")
    assert bucket.changed() == [BEFORE]
    take_in(bucket.context, BEFORE)
    assert bucket.changed() == []


def test_label_files_lead_to_the_days_whose_rows_changed(bucket: Bucket) -> None:
    for day in (BEFORE, DAY):
        bucket.put(f"{day}/a.jpg")
    bucket.put("labels.csv", f"image,label\n{DAY}/a.jpg,toys\n")
    for day in bucket.changed():
        take_in(bucket.context, day)
    assert bucket.changed() == []
    bucket.put("labels.csv", f"image,label\n{DAY}/a.jpg,toys\n{BEFORE}/a.jpg,home\n")
    assert bucket.changed() == [BEFORE]
    take_in(bucket.context, BEFORE)
    bucket.put(f"{DAY}/labels.csv", "image,label\na.jpg,books\n")
    assert bucket.changed() == [DAY]
    take_in(bucket.context, DAY)
    bucket.remove("labels.csv")
    assert bucket.changed() == [BEFORE, DAY]


def test_an_object_in_no_dated_folder_leads_to_the_day_it_arrived(bucket: Bucket) -> None:
    bucket.put("a.jpg")
    assert bucket.changed() == [TODAY]
    take_in(bucket.context, TODAY)
    bucket.remove("a.jpg")
    assert bucket.changed() == [TODAY]


def test_a_day_stays_until_it_is_taken_in(bucket: Bucket) -> None:
    bucket.put(f"{DAY}/a.jpg")
    assert bucket.changed() == [DAY]
    bucket.cursor = None  # the process was killed before Dagster kept the tick: no message is left, the day is
    assert bucket.waiting_messages == 0
    assert bucket.changed() == [DAY]
    take_in(bucket.context, DAY)
    assert bucket.changed() == []


@pytest.mark.parametrize("moment", ["_write", "delete"])
def test_a_kill_before_or_after_the_days_are_kept_loses_nothing(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    bucket.put(f"{DAY}/a.jpg")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(notifications if moment == "_write" else notifications._Queue, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            bucket.tick()
    assert bucket.waiting_messages == 2 if moment == "_write" else bucket.pending == [str(DAY)]
    bucket.sqs.set_queue_attributes(QueueUrl=bucket.queue, Attributes={"VisibilityTimeout": "0"})
    again(bucket)
    assert bucket.changed() == [DAY]


def again(bucket: Bucket) -> None:
    """What a killed process had received comes again once its time is over; here, at once."""
    from moto.sqs.models import sqs_backends

    queue = sqs_backends["123456789012"]["us-east-1"].queues[bucket.queue.rpartition("/")[2]]
    for message in queue._messages:
        message.visible_at = 0


def test_doubles_and_late_messages_are_harmless(bucket: Bucket) -> None:
    bucket.put(f"{DAY}/a.jpg")
    body = json.dumps({"Records": [s3_record(f"shop/{DAY}/a.jpg", bucket=bucket.bucket)] * 3})
    bucket.send(body, body)
    assert bucket.changed() == [DAY]
    take_in(bucket.context, DAY)
    bucket.send(body)
    assert bucket.changed() == []
    assert bucket.waiting_messages == 0


def test_malformed_messages_go_aside_and_do_not_stop_the_others(bucket: Bucket) -> None:
    early = json.dumps({"Records": [s3_record("shop/2019-01-01/a.jpg", bucket=bucket.bucket)]})
    no_day = json.dumps({"Records": [s3_record("shop/2026-13-40/a.jpg", bucket=bucket.bucket)]})
    foreign = json.dumps({"Records": [s3_record("a.jpg", bucket="another")]})
    bucket.send("no JSON", early, no_day, foreign)
    bucket.put(f"{DAY}/a.jpg")
    state, taken = bucket.tick()
    assert list(state.changes) == [DAY]
    assert bucket.waiting_messages == 0
    assert (len(taken.aside), taken.foreign) == (3, 1)
    store = bucket.context.artifacts.bytes
    kept = [store.read_json(key) for key in store.list(f"{ASIDE}/")]
    assert {record["body"] for record in kept} == {"no JSON", early, no_day}
    assert any("before data.start_date" in record["why"] for record in kept)
    assert "3 put aside" in taken.in_words()


def test_an_aside_body_is_bounded(bucket: Bucket) -> None:
    bucket.send("x" * 200_000)
    bucket.tick()
    store = bucket.context.artifacts.bytes
    assert [entry.size < 65_000 for entry in store.entries(f"{ASIDE}/")] == [True]


def test_only_the_named_days_are_listed_and_never_the_whole_source(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put(f"{DAY}/a.jpg")

    def never(*_: object) -> None:
        raise AssertionError("the whole source is listed")

    monkeypatch.setattr(type(open_source(bucket.context.settings)), "scan", never)
    assert bucket.changed() == [DAY]


def test_days_that_a_tick_has_no_time_for_come_first_in_the_next(bucket: Bucket) -> None:
    days = [TODAY - timedelta(days=n) for n in range(6)]
    for day in days:
        bucket.put(f"{day}/a.jpg")
    found: set[date] = set()
    for _ in range(6):
        found |= bucket.tick(seconds=0)[0].changes.keys()
    assert sorted(found, reverse=True) == days


def test_uploads_settle_here_too(bucket: Bucket, tmp_path: Path) -> None:
    settings = bucket.context.settings
    ingest = settings.ingest.model_copy(update={"settle_minutes": 5.0})
    bucket.context = StageContext.open(settings.model_copy(update={"ingest": ingest}))
    bucket.put(f"{DAY}/a.jpg")
    state, _ = bucket.tick()
    assert (state.changes, list(state.waiting)) == ({}, [DAY])
    assert bucket.pending == [str(DAY)]
    take_notifications(bucket.context, state, 5, now=datetime.now(UTC) + timedelta(minutes=6))
    assert list(state.changes) == [DAY]


def test_a_day_to_come_is_kept_until_it_comes(bucket: Bucket) -> None:
    tomorrow = TODAY + timedelta(days=1)
    bucket.put(f"{tomorrow}/a.jpg")
    assert bucket.changed() == []
    assert bucket.pending == [str(tomorrow)]
    state = ScanState(bucket.identity)
    take_notifications(bucket.context, state, 5, now=datetime.now(UTC) + timedelta(days=1))
    assert list(state.changes) == [tomorrow]


@pytest.mark.parametrize("change", [lambda url: url + "-that-is-not-there", lambda _: "http://127.0.0.1:1/123456789012/queue"])
def test_a_queue_that_does_not_answer_is_an_error(bucket: Bucket, change: Callable[[str], str]) -> None:
    settings = bucket.context.settings
    ingest = settings.ingest.model_copy(update={"notifications": change(bucket.queue)})
    context = StageContext.open(settings.model_copy(update={"ingest": ingest}))
    with pytest.raises(SourceUnreachableError, match=r"ingest\.notifications: the queue .* does not answer: .* Check the address"):
        take_notifications(context, ScanState("x"), 5)


def test_several_sources() -> None:
    source = '{"eu": "s3://photos/eu", "us": "s3://photos/us/", "here": "/photos"}'
    settings = load_settings("sample", environment={"PIPELINE_HOME": "/tmp/x", "PIPELINE__DATA__SOURCE": source})
    assert source_keys(settings) == [("photos", "eu/", "eu/"), ("photos", "us/", "us/")]
