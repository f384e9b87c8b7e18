"""Sources: what counts as an object, and on which day it came, in a folder and on S3."""

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from pipeline_project.ingest.sources import FolderSource, S3Source, SourceError, assign_days, day_folder, objects_of_day, open_source
from pipeline_project.stage import StageContext

Put = Callable[[str, bytes | str], Path]
ONE, TWO = date(2026, 11, 1), date(2026, 11, 2)


def dated(path: Path, day: date, hour: int = 12) -> Path:
    moment = datetime(day.year, day.month, day.day, hour, tzinfo=UTC).timestamp()
    os.utime(path, (moment, moment))
    return path


def keys_of(context: StageContext, day: date) -> tuple[list[str], list[str]]:
    found = objects_of_day(open_source(context.settings), context.artifacts.bytes, context.settings, day)
    return [o.key for o in found.images], [o.key for o in found.label_files]


def test_dated_folders_name_the_day(context: StageContext, put: Put) -> None:
    for key in ("2026-11-01/images/a.jpg", "2026-11-01/labels.csv", "2026-11-02/b.jpg", "2026-11-02/labels.csv"):
        dated(put(key, "x"), date(2020, 1, 1))
    assert keys_of(context, ONE) == (["2026-11-01/images/a.jpg"], ["2026-11-01/labels.csv"])
    assert keys_of(context, TWO) == (["2026-11-02/b.jpg"], ["2026-11-02/labels.csv"])
    assert keys_of(context, date(2026, 11, 3)) == ([], [])


def test_dated_folders_below_another_folder_name_the_day_too(context: StageContext, put: Put) -> None:
    for key in ("shop/2026-11-01/a.jpg", "shop/2026-11-01/labels.csv", "shop/2026-11-02/b.jpg", "shop/2026-11-02/labels.csv"):
        put(key, "x")
    assert keys_of(context, ONE) == (["shop/2026-11-01/a.jpg"], ["shop/2026-11-01/labels.csv"])
    assert keys_of(context, TWO) == (["shop/2026-11-02/b.jpg"], ["shop/2026-11-02/labels.csv"])


def test_flat_objects_come_on_the_day_they_were_modified_in_utc(context: StageContext, put: Put) -> None:
    dated(put("a.jpg", "x"), ONE, hour=0)
    dated(put("sub/b.jpg", "x"), ONE, hour=23)
    dated(put("c.jpg", "x"), TWO)
    dated(put("labels.csv", "x"), date(2026, 10, 1))
    assert keys_of(context, ONE) == (["a.jpg", "sub/b.jpg"], ["labels.csv"])
    assert keys_of(context, TWO) == (["c.jpg"], ["labels.csv"])


def test_first_arrival_fixes_the_day(context: StageContext, put: Put) -> None:
    path = dated(put("a.jpg", "x"), ONE)
    assert keys_of(context, ONE)[0] == ["a.jpg"]
    dated(path, TWO)
    dated(put("b.jpg", "x"), TWO)
    assert keys_of(context, ONE)[0] == ["a.jpg"]
    assert keys_of(context, TWO)[0] == ["b.jpg"]
    dated(path, ONE, hour=3)
    assert keys_of(context, TWO)[0] == ["b.jpg"]


@pytest.mark.parametrize("key", ["2026-10-31/a.jpg", "a.jpg"])
def test_object_before_the_start_date_is_an_error_and_never_skipped(context: StageContext, put: Put, key: str) -> None:
    dated(put(key, "x"), date(2026, 10, 31))
    dated(put("b.jpg", "x"), ONE)
    listed = open_source(context.settings).list_all()
    with pytest.raises(SourceError, match=rf"1 objects lie before data\.start_date \(2026-11-01\), the first is {key} of 2026-10-31"):
        assign_days(listed, context.artifacts.bytes, context.settings)


@pytest.mark.parametrize("folder", ["2026-13-01", "2026-02-30"])
def test_folder_that_looks_like_a_day_but_is_none_is_named(context: StageContext, put: Put, folder: str) -> None:
    put(f"{folder}/a.jpg", "x")
    with pytest.raises(SourceError, match=f"{folder} looks like a day but is none"):
        assign_days(open_source(context.settings).list_all(), context.artifacts.bytes, context.settings)
    assert day_folder("2026-1-1/a.jpg") is None
    assert day_folder("2026-11-01") is None, "a file's own name is no folder"


def test_hidden_files_and_links_are_no_objects(source: Path, put: Put, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jpg").write_text("x")
    for key in ("a.jpg", ".DS_Store", ".cache/b.jpg", "sub/.c.jpg", "sub/d.jpg"):
        put(key, "x")
    (source / "file-link.jpg").symlink_to(outside / "secret.jpg")
    (source / "folder-link").symlink_to(outside)
    (source / "2026-11-01").symlink_to(outside)
    (source / "sub" / "deep-link").symlink_to(outside)
    (source / "loop").symlink_to(source)
    folder = FolderSource(source)
    assert [o.key for o in folder.list_all()] == ["a.jpg", "sub/d.jpg"]
    assert [o.key for o in folder.list_day(ONE)] == ["a.jpg", "sub/d.jpg"]


@pytest.mark.parametrize("key", ["../outside.jpg", "sub/../../outside.jpg", "link.jpg", "links/outside.jpg"])
def test_reading_does_not_leave_the_source(source: Path, tmp_path: Path, key: str) -> None:
    (tmp_path / "outside.jpg").write_text("secret")
    (source / "sub").mkdir()
    (source / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    (source / "links").symlink_to(tmp_path)
    with pytest.raises(SourceError, match="leaves the source folder"):
        FolderSource(source).read(key)


def test_reading_whole_and_first_bytes(source: Path, put: Put) -> None:
    put("a.jpg", b"0123456789")
    assert FolderSource(source).read("a.jpg") == b"0123456789"
    assert FolderSource(source).read("a.jpg", 4) == b"0123"
    with pytest.raises(FileNotFoundError):
        FolderSource(source).read("b.jpg")


def test_etag_follows_the_bytes(source: Path, put: Put) -> None:
    put("a.jpg", b"one")
    [before] = FolderSource(source).list_all()
    [same] = FolderSource(source).list_all()
    put("a.jpg", b"two")
    [after] = FolderSource(source).list_all()
    assert before == same
    assert before.etag != after.etag


def test_missing_folder_and_strange_schemes_are_named(tmp_path: Path, open_context: Callable[..., StageContext]) -> None:
    with pytest.raises(SourceError, match="nowhere is not a folder"):
        FolderSource(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="the scheme must be s3"):
        open_source(open_context(DATA__SOURCE="ftp://x/y").settings)


# --- S3 -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> S3Source:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"s{time.monotonic_ns()}"
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="other/x.jpg", Body=b"x")
    client.put_object(Bucket=bucket, Key="shop/", Body=b"")  # what the console makes for an empty folder
    client.put_object(Bucket=bucket, Key="shop/2026-11-02/", Body=b"")
    for key in ("2026-11-01/a.jpg", "2026-11-01/labels.csv", "2026-11-02/b.jpg", "flat.jpg", "sub/c.jpg"):
        client.put_object(Bucket=bucket, Key=f"shop/{key}", Body=key.encode())
    return S3Source(bucket, "shop/", endpoint)


@pytest.mark.slow
def test_s3_lists_objects_below_the_prefix(s3: S3Source) -> None:
    assert [o.key for o in s3.list_all()] == ["2026-11-01/a.jpg", "2026-11-01/labels.csv", "2026-11-02/b.jpg", "flat.jpg", "sub/c.jpg"]
    assert [o.key for o in s3.list_day(ONE)] == ["2026-11-01/a.jpg", "2026-11-01/labels.csv", "flat.jpg", "sub/c.jpg"]
    [first, *_] = s3.list_all()
    assert (first.size, len(first.etag), first.modified.tzinfo is not None) == (16, 32, True)


@pytest.mark.slow
def test_s3_reads_whole_and_first_bytes(s3: S3Source, endpoint: str) -> None:
    assert s3.read("flat.jpg") == b"flat.jpg"
    assert s3.read("flat.jpg", 4) == b"flat"
    assert s3.read("2026-11-02/", 16) == b"", "a range of an empty object"
    with pytest.raises(FileNotFoundError, match=r"no\.jpg: no longer in s3://"):
        s3.read("no.jpg")


@pytest.mark.slow
def test_unreachable_bucket_is_never_quiet(s3: S3Source, endpoint: str) -> None:
    missing = S3Source("no-such-bucket", "shop/", endpoint)
    for ask in (missing.list_all, lambda: missing.list_day(ONE)):
        with pytest.raises(SourceError, match="s3://no-such-bucket/shop/ cannot be listed: .*NoSuchBucket.* Check the address"):
            ask()


@pytest.mark.slow
def test_s3_source_assigns_days(s3: S3Source, open_context: Callable[..., StageContext]) -> None:
    context = open_context(DATA__START_DATE="2020-01-01")
    days = assign_days(s3.list_all(), context.artifacts.bytes, context.settings)
    assert (days["2026-11-01/a.jpg"], days["2026-11-02/b.jpg"]) == (ONE, TWO)
    assert days["flat.jpg"] == s3.list_all()[3].modified.date()
