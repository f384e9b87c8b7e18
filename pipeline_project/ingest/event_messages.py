"""What a message about a bucket says: S3's own records, wrapped by SNS or not, and EventBridge's form."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

from pipeline_project.settings import Settings

_MAX_WRAPS = 3


class MalformedMessageError(ValueError):
    """A message that tells of no object in a form that is known."""


@dataclass(frozen=True)
class ObjectEvent:
    """Something happened to an object of a bucket.

    Attributes:
        size: bytes, and `etag` as listings give it; 0 and "" where the event does not tell, as of removed objects.
        moment: when, UTC; now, where the event does not tell.
    """

    bucket: str
    key: str
    removed: bool
    size: int
    etag: str
    moment: datetime


def parse_message(body: str) -> list[ObjectEvent]:
    """The events of one message; none for the test event that S3 sends when notifications are set up.

    Raises:
        MalformedMessageError: what is wrong with it.
    """
    try:
        value = json.loads(body)
        for _ in range(_MAX_WRAPS):
            if isinstance(value, dict) and value.get("Type") == "Notification" and "Message" in value:
                value = json.loads(value["Message"])
        if not isinstance(value, dict):
            raise MalformedMessageError("it is no JSON object")
        if value.get("Event") == "s3:TestEvent":
            return []
        if value.get("source") == "aws.s3" and "detail" in value:
            return [_from_event_bridge(value)]
        records = value.get("Records")
        if not isinstance(records, list) or not records:
            raise MalformedMessageError(f"it has no records of S3; its fields are {', '.join(sorted(map(str, value))[:10]) or 'none'}")
        return [_from_record(record) for record in records]
    except MalformedMessageError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedMessageError(f"{type(error).__name__}: {str(error)[:200]}") from None


def source_keys(settings: Settings) -> list[tuple[str, str, str]]:
    """For each bucket that data.source names: the bucket, the prefix of what belongs to the source, and what its keys begin with here."""
    source = settings.data.source
    addresses = {"": source} if isinstance(source, str) else {f"{name}/": address for name, address in source.items()}
    found = []
    for name, address in addresses.items():
        scheme, _, rest = address.partition("://")
        if scheme == "s3":
            bucket, _, prefix = rest.partition("/")
            found.append((bucket, prefix if not prefix or prefix.endswith("/") else f"{prefix}/", name))
    return found


def key_in_source(event: ObjectEvent, places: list[tuple[str, str, str]]) -> str | None:
    """The object's key in the source; None where it does not belong to the source, or stands for a folder."""
    for bucket, prefix, name in places:
        if event.bucket == bucket and event.key.startswith(prefix) and event.key != prefix and not event.key.endswith("/"):
            return name + event.key.removeprefix(prefix)
    return None


def _from_record(record: dict[str, Any]) -> ObjectEvent:
    if record.get("eventSource") not in ("aws:s3", None) or "s3" not in record:
        raise MalformedMessageError(f"a record is of {record.get('eventSource')}, not of S3")
    what = record["s3"]["object"]
    name = str(record["eventName"]).removeprefix("s3:")
    removed = name.startswith(("ObjectRemoved:", "LifecycleExpiration:"))
    key = unquote_plus(what["key"], errors="strict")
    return _event(record["s3"]["bucket"]["name"], key, removed, what.get("size"), what.get("eTag"), record.get("eventTime"))


def _from_event_bridge(value: dict[str, Any]) -> ObjectEvent:
    detail = value["detail"]
    what = detail["object"]
    removed = value.get("detail-type") == "Object Deleted"
    return _event(detail["bucket"]["name"], what["key"], removed, what.get("size"), what.get("etag"), value.get("time"))  # key not encoded


def _event(bucket: object, key: object, removed: bool, size: object, etag: object, moment: object) -> ObjectEvent:
    if not isinstance(bucket, str) or not isinstance(key, str) or not bucket or not key:
        raise MalformedMessageError("it names no bucket or no key")
    if not isinstance(size, int | None) or not isinstance(etag, str | None):
        raise MalformedMessageError(f"{key[:200]}: its size or eTag is not what S3 sends")
    when = datetime.fromisoformat(moment) if isinstance(moment, str) else datetime.now(UTC)
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return ObjectEvent(bucket, key, removed, size or 0, (etag or "").strip('"'), when.astimezone(UTC))
