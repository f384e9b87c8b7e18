"""Sources in a bucket, against real servers on loopback, with the faults that networks have."""

import hashlib
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline_project.ingest.sources import FolderSource, S3Source, Source, SourceError, SourceUnreachableError, assign_days
from pipeline_project.stage import StageContext
from pipeline_project.storage.s3_client import Patience
from pipeline_project_tests.servers.faulty_proxy import FaultyProxy
from pipeline_project_tests.servers.fixtures import log_in
from pipeline_project_tests.servers.object_server import ObjectServer

pytestmark = pytest.mark.slow

ONE = date(2026, 11, 1)
HASTY = Patience(connect_s=2, read_s=2, attempts=4, pause_s=0.01)
Faulty = Callable[[ObjectServer], FaultyProxy]
STRANGE = ["a-1", "a.jpg", "a/1.jpg", "a0.jpg", "a//b.jpg", "t/./c.jpg", "é ü %.jpg", "sp ace/x+y.jpg", "q?uery#&=.jpg", "back\\slash.jpg"]


@pytest.fixture
def shop(object_server: ObjectServer) -> S3Source:
    keys = ["2026-11-01/a.jpg", "2026-11-01/labels.csv", "2026-11-02/b.jpg", "flat.jpg", "sub/c.jpg"]
    objects = {f"shop/{key}": key.encode() for key in keys}
    markers = {"shop/": b"", "shop/2026-11-02/": b""}  # what the console makes for an empty folder
    return S3Source(object_server.filled_bucket(objects | markers | {"other/x.jpg": b"x"}), "shop/", object_server.endpoint, HASTY)


def test_objects_below_the_prefix(shop: S3Source) -> None:
    assert [o.key for o in shop.list_all()] == ["2026-11-01/a.jpg", "2026-11-01/labels.csv", "2026-11-02/b.jpg", "flat.jpg", "sub/c.jpg"]
    assert [o.key for o in shop.list_day(ONE)] == ["2026-11-01/a.jpg", "2026-11-01/labels.csv", "flat.jpg", "sub/c.jpg"]
    first = shop.list_all()[0]
    assert (first.size, first.etag) == (16, hashlib.md5(b"2026-11-01/a.jpg").hexdigest())
    assert abs((datetime.now(UTC) - first.modified).total_seconds()) < 300


def test_reading_whole_and_first_bytes(shop: S3Source) -> None:
    assert shop.read("flat.jpg") == b"flat.jpg"
    assert shop.read("flat.jpg", 4) == b"flat"
    assert shop.read("2026-11-02/", 16) == b"", "a range of an empty object"
    with pytest.raises(FileNotFoundError, match=r"no\.jpg: no longer in s3://"):
        shop.read("no.jpg")


def test_days_of_objects(shop: S3Source, open_context: Callable[..., StageContext]) -> None:
    context = open_context(DATA__START_DATE="2020-01-01")
    days = assign_days(shop.list_all(), context.artifacts.bytes, context.settings)
    assert days["2026-11-01/a.jpg"] == ONE
    assert days["flat.jpg"] == shop.list_all()[3].modified.date()


def test_strange_keys_are_listed_in_byte_order_and_read(object_server: ObjectServer) -> None:
    keys = [key for key in STRANGE if object_server.name == "swift" or ("/./" not in key and "//" not in key and "?" not in key)]
    source = S3Source(object_server.filled_bucket({f"p/{key}": key.encode() for key in keys}), "p/", object_server.endpoint, HASTY)
    assert [o.key for o in source.scan()] == sorted(keys, key=str.encode)
    assert all(source.read(key) == key.encode() for key in keys)


def test_a_scan_of_5000_keys_goes_on_where_it_stopped(
    swift_server: ObjectServer, moto_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for server, count, step in ((moto_server, 5000, 1700), (swift_server, 120, 50)):  # Swift takes 25 s to be given 5,000 objects
        log_in(server, monkeypatch)
        keys = [f"n/{'ab-/'[n % 4]}{n:05d}.jpg" for n in range(count)]
        source = S3Source(server.filled_bucket(dict.fromkeys(keys, b"x")), "n/", server.endpoint, HASTY)
        seen: list[str] = []
        while True:
            part = [o.key for o in islice(source.scan(seen[-1] if seen else None), step)]
            seen += part
            if len(part) < step:
                break
        assert seen == sorted(key.removeprefix("n/") for key in keys)


def test_a_scan_that_stops_early_lists_no_more_than_it_needs(moto_login: ObjectServer, faulty: Faulty) -> None:
    keys = [f"{n:05d}.jpg" for n in range(3000)]
    proxy = faulty(moto_login)
    source = S3Source(moto_login.filled_bucket(dict.fromkeys(keys, b"x")), "", proxy.endpoint, HASTY)
    assert [o.key for o in islice(source.scan("01499.jpg"), 3)] == ["01500.jpg", "01501.jpg", "01502.jpg"]
    assert proxy.bytes_back < 700_000, "one page of three"


# --- who may not, and what is not there ---------------------------------------------------------------------------------------


def explains(source: Source, *parts: str, key: str = "a.jpg") -> str:
    """Each way of asking fails with all these parts in its message; gives the last message."""
    said = ""
    for ask in (source.list_all, lambda: source.list_day(ONE), lambda: source.read(key)):
        with pytest.raises(SourceUnreachableError) as caught:
            ask()
        said = str(caught.value)
        assert isinstance(caught.value, OSError)
        for part in parts:
            assert part in said
    return said


def test_wrong_credentials(swift_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = swift_server.filled_bucket({"a.jpg": b"x"})
    log_in(swift_server, monkeypatch, AWS_SECRET_ACCESS_KEY="not-the-secret")
    said = explains(S3Source(bucket, "", swift_server.endpoint, HASTY), "denies it", f"rights on bucket {bucket}")
    assert "not-the-secret" not in said
    assert "Signature=" not in said
    log_in(swift_server, monkeypatch, AWS_ACCESS_KEY_ID="nobody:here")
    explains(S3Source(bucket, "", swift_server.endpoint, HASTY), "denies it")


def test_no_credentials(swift_server: ObjectServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    explains(S3Source("bucket", "", swift_server.endpoint, HASTY), "there are no AWS credentials", "AWS_ACCESS_KEY_ID", "or a role")


def test_missing_bucket(object_server: ObjectServer) -> None:
    source = S3Source("no-such-bucket", "shop/", object_server.endpoint, HASTY)
    explains(
        source, "data.source: s3://no-such-bucket/shop/: ", "has no bucket no-such-bucket", "Create the bucket, or correct data.source"
    )


def test_server_that_is_not_there(moto_login: ObjectServer, faulty: Faulty) -> None:
    proxy = faulty(moto_login)
    bucket = moto_login.filled_bucket({"a.jpg": b"x"})
    source = S3Source(bucket, "", proxy.endpoint, HASTY)
    assert source.read("a.jpg") == b"x"
    proxy.close()
    explains(source, f"{proxy.endpoint} does not answer", "the network")


def test_name_that_cannot_be_resolved(moto_login: ObjectServer) -> None:
    source = S3Source("bucket", "", "http://no-such-host.invalid:9", Patience(connect_s=2, read_s=2, attempts=1))
    explains(source, "http://no-such-host.invalid:9 does not answer")


def test_bucket_that_vanishes_in_the_middle_of_a_scan(swift_login: ObjectServer) -> None:
    keys = [f"{n:04d}.jpg" for n in range(5)]
    bucket = swift_login.filled_bucket(dict.fromkeys(keys, b"x"))
    source = _paged(S3Source(bucket, "", swift_login.endpoint, HASTY), 2)
    scan = source.scan()
    assert next(scan).key == "0000.jpg"
    client = swift_login.client()
    for key in keys:
        client.delete_object(Bucket=bucket, Key=key)
    client.delete_bucket(Bucket=bucket)
    with pytest.raises(SourceUnreachableError, match=f"cannot be listed: .* has no bucket {bucket}"):
        list(scan)


def _paged(source: S3Source, size: int) -> S3Source:
    """The same source, whose server gives pages of that many keys."""
    source._client.meta.events.register("provide-client-params.s3.ListObjectsV2", lambda params, **_: params | {"MaxKeys": size})
    return source


# --- slow, flapping, cut ------------------------------------------------------------------------------------------------------


def test_slow_server_is_waited_for(moto_login: ObjectServer, faulty: Faulty) -> None:
    proxy = faulty(moto_login)
    source = S3Source(moto_login.filled_bucket({"a.jpg": b"x" * 100_000}), "", proxy.endpoint, HASTY)
    proxy.delay_s = 0.3
    assert [o.key for o in source.list_all()] == ["a.jpg"]
    assert source.read("a.jpg") == b"x" * 100_000


def test_server_that_never_answers_is_given_up(moto_login: ObjectServer, faulty: Faulty) -> None:
    proxy = faulty(moto_login)
    source = S3Source(
        moto_login.filled_bucket({"a.jpg": b"x"}), "", proxy.endpoint, Patience(connect_s=1, read_s=0.3, attempts=2, pause_s=0.01)
    )
    proxy.silent = True
    begin = time.monotonic()
    explains(source, "does not answer")
    assert time.monotonic() - begin < 30
    proxy.silent = False
    assert source.read("a.jpg") == b"x", "and is there again later"


def test_flapping_server(moto_login: ObjectServer, faulty: Faulty) -> None:
    proxy = faulty(moto_login)
    source = S3Source(moto_login.filled_bucket({"a.jpg": b"x"}), "", proxy.endpoint, HASTY)
    for ask in (lambda: source.read("a.jpg"), source.list_all):
        proxy.drop_connections()
        proxy.refusals = HASTY.attempts - 1
        assert ask()
        assert proxy.refusals == 0
    proxy.drop_connections()
    proxy.refusals = 10**6
    explains(source, "does not answer")


@pytest.mark.parametrize("after", [400, 70_000, 250_000])
def test_cut_body_is_asked_for_again_and_never_taken_for_a_whole_one(object_server: ObjectServer, faulty: Faulty, after: int) -> None:
    proxy = faulty(object_server)
    data = bytes(range(256)) * 1200
    source = S3Source(object_server.filled_bucket({"a.jpg": data}), "", proxy.endpoint, HASTY)
    proxy.cut_after, proxy.cuts = after, 2
    assert source.read("a.jpg") == data
    assert proxy.cuts == 0
    proxy.cuts = 10**6
    with pytest.raises(
        SourceUnreachableError, match=r"a\.jpg cannot be read: (the connection ended before all bytes came|.*does not answer)"
    ):
        source.read("a.jpg")


def test_listing_cut_in_the_middle_is_whole_or_an_error(swift_login: ObjectServer, faulty: Faulty) -> None:
    proxy = faulty(swift_login)
    keys = [f"{n:03d}.jpg" for n in range(60)]
    source = S3Source(swift_login.filled_bucket(dict.fromkeys(keys, b"x")), "", proxy.endpoint, HASTY)
    proxy.cut_after, proxy.cuts = 3000, 1
    assert [o.key for o in source.list_all()] == keys
    proxy.cuts = 10**6
    with pytest.raises(SourceUnreachableError, match="cannot be listed"):
        source.list_all()


def test_bytes_that_do_not_match_their_etag(moto_login: ObjectServer) -> None:
    """A server that damages bytes once is asked again; one whose ETags are no MD5 at all gives the same bytes twice, which count."""
    data, asked = b"0123456789", []
    source = S3Source(moto_login.filled_bucket({"a.jpg": data}), "", moto_login.endpoint, HASTY)

    def damage(parsed: dict[str, Any], **_: object) -> None:
        asked.append(1)
        if len(asked) == 1:
            parsed["ETag"] = f'"{hashlib.md5(b"other").hexdigest()}"'

    source._client.meta.events.register("after-call.s3.GetObject", damage)
    assert source.read("a.jpg") == data
    assert len(asked) == 2


# --- a folder scans like a bucket ---------------------------------------------------------------------------------------------

_NAMES = st.lists(st.text("ab-.0/é", min_size=1, max_size=6), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.lists(st.text("ab-0é", min_size=1, max_size=3), min_size=1, max_size=3).map("/".join), max_size=12), data=st.data()
)
def test_folder_scan_is_in_byte_order_and_goes_on_anywhere(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("scan")
    for name in names:
        path = root / name
        if not any(place.is_file() for place in path.parents if place != root) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    keys = sorted((path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()), key=str.encode)
    source = FolderSource(root)
    assert [o.key for o in source.scan()] == keys
    start = data.draw(st.one_of(st.sampled_from(keys) if keys else st.nothing(), st.text("ab-0é/", max_size=5)))
    assert [o.key for o in source.scan(start)] == [key for key in keys if key > start]


def test_unreadable_folder_is_an_error_and_a_vanished_one_is_none(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.jpg").write_bytes(b"x")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/2.jpg").write_bytes(b"x")
    scan = FolderSource(tmp_path).scan()
    assert next(scan).key == "a/1.jpg"
    (tmp_path / "b/2.jpg").unlink()
    (tmp_path / "b").rmdir()
    assert list(scan) == []
    gone = FolderSource(tmp_path)
    (tmp_path / "a/1.jpg").unlink()
    (tmp_path / "a").rmdir()
    tmp_path.rmdir()
    with pytest.raises(SourceUnreachableError, match="cannot be listed: no such file or directory"):
        gone.list_all()


def test_name_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / b"caf\xe9.jpg".decode("utf-8", "surrogateescape")).write_bytes(b"x")
    with pytest.raises(SourceError, match=r"caf\\xe9\.jpg' is not UTF-8\. Rename the file"):
        FolderSource(tmp_path).list_all()
