"""Sources: what counts as an object, and on which day it came, in a folder and on S3."""

import os
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from pipeline_project.ingest.sources import FolderSource, SourceError, assign_days, day_folder, open_source
from pipeline_project.stage import StageContext

Put = Callable[[str, bytes | str], Path]
ONE, TWO = date(2026, 11, 1), date(2026, 11, 2)


def dated(path: Path, day: date, hour: int = 12) -> Path:
    moment = datetime(day.year, day.month, day.day, hour, tzinfo=UTC).timestamp()
    os.utime(path, (moment, moment))
    return path


def keys_of(context: StageContext, day: date) -> tuple[list[str], list[str]]:
    """The day's images, and the label files that may speak of it."""
    listed = open_source(context.settings).list_day(day)
    days = assign_days(listed, context.artifacts.bytes, context.settings)
    labels = [o.key for o in listed if o.key.endswith("labels.csv")]
    return [o.key for o in listed if o.key not in labels and days[o.key] == day], [k for k in labels if day_folder(k) in (None, day)]


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
    with pytest.raises(SourceError, match="the scheme must be s3, gs or az"):
        open_source(open_context(DATA__SOURCE="ftp://x/y").settings)
