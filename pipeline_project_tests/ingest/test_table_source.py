"""A table of images as a source: files and databases, local images, buckets and web servers, and what must not be read."""

import csv
import io
import os
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline_project.ingest.labels import parse_labels
from pipeline_project.ingest.sources import Source, SourceError, SourceUnreachableError, assign_days, open_source, source_identity
from pipeline_project.ingest.sources.table.web import WebImages
from pipeline_project.stage import StageContext
from pipeline_project.storage.s3_client import Patience
from pipeline_project_tests.servers.object_server import ObjectServer

ONE, TWO = date(2026, 11, 1), date(2026, 11, 2)
HASTY = Patience(connect_s=2, read_s=1, attempts=3, pause_s=0.01)
Put = Callable[[str, bytes | str], Path]
Open = Callable[..., StageContext]


@pytest.fixture
def opened(open_context: Open, source: Path) -> Callable[..., Source]:
    """Opens the source `table.csv` (or another), with settings of its own."""

    def make(name: str = "table.csv", **overrides: str) -> Source:
        address = name if "://" in name or name.startswith("env:") else str(source / name)
        return open_source(open_context(DATA__SOURCE=address, **overrides).settings)

    return make


def labels_of(source: Source) -> dict[str, tuple[str, ...]]:
    """{image: the other columns' values} of the label file that the table makes."""
    rows = list(csv.reader(io.StringIO(source.read("labels.csv").decode())))
    return {row[0]: tuple(row[1:]) for row in rows}


def test_rows_name_images_beside_the_table(opened: Callable[..., Source], put: Put, open_context: Open, source: Path) -> None:
    for key in ("photos/a.jpg", "photos/b.jpg", "c.jpg"):
        put(key, key)
    put("unmentioned.jpg", "x")
    put("table.csv", "image,label,brand\nphotos/b.jpg,books,acme\nc.jpg,toys,\nphotos/a.jpg, home ,zen\nphotos/missing.jpg,home,\n")
    found = opened()
    assert [o.key for o in found.list_all()] == ["c.jpg", "labels.csv", "photos/a.jpg", "photos/b.jpg"]
    assert [o.key for o in found.scan("labels.csv")] == ["photos/a.jpg", "photos/b.jpg"]
    assert [o.key for o in islice(found.scan(), 2)] == ["c.jpg", "labels.csv"]
    assert found.read("photos/a.jpg") == b"photos/a.jpg"
    assert found.read("photos/a.jpg", 3) == b"pho"
    [listed] = [o for o in found.list_all() if o.key == "labels.csv"]
    assert listed.size == len(found.read("labels.csv"))
    assert labels_of(found) == {
        "image": ("label", "brand"),
        "photos/a.jpg": ("home", "zen"),
        "photos/b.jpg": ("books", "acme"),
        "c.jpg": ("toys", ""),
        "photos/missing.jpg": ("home", ""),
    }
    settings = open_context(DATA__SOURCE=str(source / "table.csv")).settings
    rows, problems = parse_labels("labels.csv", found.read("labels.csv"), settings.data)
    assert problems == []
    assert {row.image for row in rows} >= {o.key for o in found.list_all()} - {"labels.csv"}


def test_reading_needs_no_table_in_the_process_that_reads(opened: Callable[..., Source], put: Put, source: Path) -> None:
    put("a.jpg", "x")
    put("table.csv", "image,label\na.jpg,books\n")
    other = opened()
    (source / "table.csv").unlink()
    assert other.read("a.jpg") == b"x"


def test_changes_show_in_etags(opened: Callable[..., Source], put: Put) -> None:
    put("a.jpg", "x")
    put("b.jpg", "y")
    put("table.csv", "image,label\na.jpg,books\nb.jpg,toys\n")
    before = {o.key: o.etag for o in opened().list_all()}
    put("table.csv", "image,label\nb.jpg,toys\na.jpg,books\n")
    assert {o.key: o.etag for o in opened().list_all()} == before, "the order of the rows says nothing"
    put("table.csv", "image,label\nb.jpg,toys\na.jpg,home\n")
    changed = {o.key: o.etag for o in opened().list_all()}
    assert changed["labels.csv"] != before["labels.csv"]
    assert changed["a.jpg"] == before["a.jpg"], "another label is no reason to decode the image again"
    put("a.jpg", "z")
    assert {o.key: o.etag for o in opened().list_all()}["a.jpg"] != before["a.jpg"]


def test_day_column(opened: Callable[..., Source], put: Put, open_context: Open, source: Path) -> None:
    for key in ("a.jpg", "b.jpg"):
        put(key, key)
    put("table.csv", "image,label,taken\na.jpg,books,2026-11-01\nb.jpg,toys,2026-11-02 10:30:00\n")
    context = open_context(DATA__SOURCE=str(source / "table.csv"), DATA__TABLE__DAY_COLUMN="taken")
    found = open_source(context.settings)
    assert [o.key for o in found.scan()] == ["2026-11-01/a.jpg", "2026-11-02/b.jpg", "labels.csv"]
    assert [o.key for o in found.list_day(TWO)] == ["2026-11-02/b.jpg", "labels.csv"]
    assert found.read("2026-11-02/b.jpg") == b"b.jpg"
    days = assign_days(found.list_day(ONE), context.artifacts.bytes, context.settings)
    assert days["2026-11-01/a.jpg"] == ONE
    put("table.csv", "image,label,taken\na.jpg,books,2026-13-01\n")
    with pytest.raises(SourceError, match=r"row 1 of .*table\.csv: taken is '2026-13-01', which is no day\. Write YYYY-MM-DD"):
        open_source(context.settings).list_all()


def test_parquet(opened: Callable[..., Source], put: Put, source: Path) -> None:
    put("a.jpg", "x")
    table = pa.table({"image": ["a.jpg", "b.jpg"], "label": ["books", None], "price": [1.5, 2.0], "seen": [ONE, TWO]})
    pq.write_table(table, source / "table.parquet")
    found = opened("table.parquet")
    assert [o.key for o in found.list_all()] == ["a.jpg", "labels.csv"]
    assert labels_of(found) == {
        "image": ("label", "price", "seen"),
        "a.jpg": ("books", "1.5", "2026-11-01"),
        "b.jpg": ("", "2.0", "2026-11-02"),
    }


@pytest.mark.parametrize(
    "location",
    [
        "../secret.jpg",
        "/etc/passwd",
        "a/../../secret.jpg",
        "link.jpg",
        "links/secret.jpg",
        "a\\b.jpg",
        "",
        "ftp://x/a.jpg",
        "file:///etc/passwd",
    ],
)
def test_paths_out_of_the_tables_folder_are_never_read(
    opened: Callable[..., Source], put: Put, source: Path, tmp_path: Path, location: str
) -> None:
    (tmp_path / "secret.jpg").write_text("secret")
    (source / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (source / "links").symlink_to(tmp_path)
    put("a.jpg", "x")
    put("table.csv", f"image,label\na.jpg,books\n{location},toys\n")
    found = opened()
    assert [o.key for o in found.list_all()] == ["a.jpg", "labels.csv"]
    rows = list(csv.reader(io.StringIO(found.read("labels.csv").decode())))
    assert [location, "toys"] in rows, "it is reported as a row without image"
    with pytest.raises((SourceError, FileNotFoundError)):
        found.read(location)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\na.jpg,books\n", "has no column image; there are path, label. Rename one, or set data.table.location_column"),
        ("image,class\na.jpg,books\n", "has no column label; there are image, class. Rename one, or set data.label_column"),
        ("image,image,label\na.jpg,a.jpg,books\n", "has more than one column image"),
        ("", "is empty. Its first line must name the columns"),
        (b"image,label\n\xff\xfe,books\n", "is no CSV file in UTF-8"),
        (
            "image,label\n/abs.jpg,books\nhttps://elsewhere.example/a.jpg,toys\n",
            "none of the 2 rows of .* the first names '/abs.jpg'. Paths must",
        ),
    ],
)
def test_tables_that_cannot_be_used(opened: Callable[..., Source], put: Put, text: str | bytes, said: str) -> None:
    put("table.csv", text)
    with pytest.raises(SourceError, match=said):
        opened().list_all()


def test_missing_table_and_damaged_parquet(opened: Callable[..., Source], put: Put) -> None:
    with pytest.raises(SourceError, match=r"there is no table .*table\.csv\. Correct data\.source"):
        opened().list_all()
    put("table.parquet", b"PAR1 not really PAR1")
    with pytest.raises(SourceError, match=r"table\.parquet is no Parquet file"):
        opened("table.parquet").list_all()


# --- databases ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put: Put) -> Path:
    path = tmp_path / "photos.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table photos (image text, label text, day text)")
        connection.executemany(
            "insert into photos values (?, ?, ?)", [("s3://shop/a.jpg", "books", "2026-11-01"), ("b.jpg", None, "2026-11-02")]
        )
    monkeypatch.setenv("SHOP_DATABASE", f"sqlite:///{path}")
    return path


def test_database(database: Path, open_context: Open) -> None:
    context = open_context(DATA__SOURCE="env:SHOP_DATABASE", DATA__TABLE__QUERY="select image, label, day from photos;")
    found = open_source(context.settings)
    assert labels_of(found) == {"image": ("label", "day"), "s3:/shop/a.jpg": ("books", "2026-11-01"), "b.jpg": ("", "2026-11-02")}
    identity = source_identity(context.settings)
    assert identity["databases"] == {"env:SHOP_DATABASE": f"sqlite:///{database}"}
    assert identity["table"]["query"] == "select image, label, day from photos;"


@pytest.mark.parametrize("query", ["delete from photos", "select 1; delete from photos", "", "insert into photos values ('x', 'y', 'z')"])
def test_queries_that_are_no_select_are_refused(database: Path, opened: Callable[..., Source], query: str) -> None:
    with pytest.raises(SourceError, match=r"data\.table\.query: must be one SELECT"):
        opened("env:SHOP_DATABASE", DATA__TABLE__QUERY=f"'{query.replace(chr(39), chr(39) * 2)}'").list_all()


def test_the_connection_is_read_only(database: Path, opened: Callable[..., Source]) -> None:
    query = "with gone as (select 1) select * from photos where image in (select image from photos) and writes() = 1"
    with pytest.raises(SourceUnreachableError, match="no such function: writes"):
        opened("env:SHOP_DATABASE", DATA__TABLE__QUERY=f'"{query}"').list_all()
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import OperationalError

    from pipeline_project.ingest.sources.table.rows import _make_read_only

    with create_engine(f"sqlite:///{database}").connect() as connection:
        _make_read_only(connection)
        with pytest.raises(OperationalError, match="readonly"):
            connection.execute(text("with x as (select 1) delete from photos"))


def test_database_errors_name_the_database_and_no_password(
    opened: Callable[..., Source], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="environment variable SHOP_DATABASE: not set"):
        opened("env:SHOP_DATABASE", DATA__TABLE__QUERY="select 1").list_all()
    monkeypatch.setenv("SHOP_DATABASE", f"sqlite:///{tmp_path}/none/x.db")
    with pytest.raises(SourceUnreachableError, match="unable to open database file. Check the database"):
        opened("env:SHOP_DATABASE", DATA__TABLE__QUERY="select 1").list_all()
    for url in ("nonsense", "nodriver://me:hunter2@host/db", "postgresql+nodriver://me:hunter2@host/db"):
        monkeypatch.setenv("SHOP_DATABASE", url)
        with pytest.raises(SourceError, match="the database URL cannot be used") as caught:
            opened("env:SHOP_DATABASE", DATA__TABLE__QUERY="select 1").list_all()
        assert "hunter2" not in str(caught.value)


# --- buckets ------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_table_and_images_in_buckets(moto_login: ObjectServer, open_context: Open) -> None:
    far = moto_login.filled_bucket({f"x/{n:05d}.jpg": b"far" for n in range(3500)} | {"y.jpg": b"why"})
    table = f"image,label\nphotos/a.jpg,books\ns3://{far}/x/00002.jpg,toys\ns3://{far}/x/03400.jpg,toys\ns3://{far}/y.jpg,home\ns3://{far}/no.jpg,home\n"
    near = moto_login.filled_bucket({"shop/table.csv": table.encode(), "shop/photos/a.jpg": b"near", "shop/photos/b.jpg": b"x"})
    context = open_context(DATA__SOURCE=f"s3://{near}/shop/table.csv", STORE__ENDPOINT_URL=moto_login.endpoint)
    found = open_source(context.settings)
    keys = ["labels.csv", "photos/a.jpg", f"s3:/{far}/x/00002.jpg", f"s3:/{far}/x/03400.jpg", f"s3:/{far}/y.jpg"]
    assert [o.key for o in found.list_all()] == keys
    assert [found.read(key) for key in keys[1:]] == [b"near", b"far", b"far", b"why"]
    assert {o.size for o in found.list_all()[1:]} == {3, 4}


# --- web servers --------------------------------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append((self.path, self.headers["Host"]))
        path, body, status, headers = self.path.split("?")[0], b"0123456789" * 100, 200, {}
        if path == "/gone.jpg":
            status = 404
        elif path == "/login.jpg":
            status = 401
        elif path == "/flaky.jpg" and len(server.asked) % 3:
            status = 503
        elif path == "/down.jpg":
            status = 500
        elif path.startswith("/to/"):
            status, headers = 302, {"Location": server.redirects[path.removeprefix("/to/")]}
        elif path == "/large.jpg":
            body *= 10_000
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) + (50 if path == "/cut.jpg" else 0)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = path == "/cut.jpg"

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Any]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.asked, server.redirects = [], {}  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def at(server: Any, path: str, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{server.server_address[1]}{path}"


def test_images_on_web_servers(web: Any, opened: Callable[..., Source], put: Put) -> None:
    put("table.csv", f"image,label,version\n{at(web, '/a.jpg?size=big')},books,1\nhttps://elsewhere.example/b.jpg,toys,1\n")
    found = opened(DATA__TABLE__HOSTS="[127.0.0.1]")
    key = f"http:/127.0.0.1:{web.server_address[1]}/a.jpg?size=big"
    listed = {o.key: o for o in found.list_all()}
    assert set(listed) == {"labels.csv", key}
    assert web.asked == [], "a listing asks no web server"
    assert found.read(key) == b"0123456789" * 100
    assert found.read(key, 5) == b"01234"
    assert web.asked[0] == ("/a.jpg?size=big", f"127.0.0.1:{web.server_address[1]}")
    assert labels_of(found)["https://elsewhere.example/b.jpg"] == ("toys", "1")
    put("table.csv", f"image,label,version\n{at(web, '/a.jpg?size=big')},books,2\n")
    assert {o.key: o.etag for o in opened(DATA__TABLE__HOSTS="[127.0.0.1]").list_all()}[key] != listed[key].etag


def test_web_answers(web: Any) -> None:
    images = WebImages(["127.0.0.1"], 1_000_000, HASTY)
    assert len(images.read(at(web, "/flaky.jpg"), "k")) == 1000
    with pytest.raises(FileNotFoundError, match="k: no longer in http://127.0.0.1/gone.jpg"):
        images.read(at(web, "/gone.jpg?token=hunter2"), "k")
    for path, said in {
        "/login.jpg": "the server says 401. Check that it may be read without a login",
        "/down.jpg": "the server says 500, 3 times",
        "/large.jpg": r"larger than ingest\.max_bytes \(1,000,000\)",
        "/cut.jpg": "cannot be read: .*, 3 times",
    }.items():
        with pytest.raises(SourceUnreachableError, match=said) as caught:
            images.read(at(web, f"{path}?token=hunter2"), "k")
        assert "hunter2" not in str(caught.value)
    assert images.read(at(web, "/large.jpg"), "k", 10) == b"0123456789"


def test_redirects_stay_on_listed_hosts(web: Any) -> None:
    images = WebImages(["127.0.0.1"], 1_000_000, HASTY)
    web.redirects |= {"here": "/a.jpg", "localhost": at(web, "/a.jpg", "localhost"), "file": "file:///etc/passwd", "loop": "/to/loop"}
    assert len(images.read(at(web, "/to/here"), "k")) == 1000
    for path in ("localhost", "file"):
        with pytest.raises(SourceError, match=r"leads to .* which data\.table\.hosts does not allow"):
            images.read(at(web, f"/to/{path}"), "k")
    with pytest.raises(SourceUnreachableError, match="redirects more than 5 times"):
        images.read(at(web, "/to/loop"), "k")
    assert all(not host.startswith("localhost") for _, host in web.asked)


def test_private_addresses_need_a_listing_of_their_own(web: Any) -> None:
    url = at(web, "/a.jpg", "localhost")
    with pytest.raises(SourceError, match=r"localhost has the private address .*add that address to data\.table\.hosts"):
        WebImages(["localhost"], 1000, HASTY).read(url, "k")
    assert web.asked == []
    assert len(WebImages(["localhost", "127.0.0.0/8"], 1000, HASTY).read(url, "k")) == 1000
    assert web.asked[0][1].startswith("localhost:"), "the server sees the name, whatever address it was reached by"
    for url in ("http://user:pw@127.0.0.1/a.jpg", "http://[::1", "http:///a.jpg", "http://127.0.0.1.example/a.jpg", "ftp://127.0.0.1/a"):
        assert not WebImages(["127.0.0.1"], 1000, HASTY).allows(url)


def test_web_server_that_is_not_there() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with pytest.raises(SourceUnreachableError, match=r"cannot be read: ConnectError.*, 3 times"):
        WebImages(["127.0.0.1"], 1000, HASTY).read(f"http://127.0.0.1:{port}/a.jpg", "k")
    with pytest.raises(SourceUnreachableError, match=r"the name no-such-host\.invalid cannot be resolved"):
        WebImages(["no-such-host.invalid"], 1000, HASTY).read("http://no-such-host.invalid/a.jpg", "k")


# --- several sources ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def shops(tmp_path: Path, open_context: Open) -> StageContext:
    for name, day in (("one", "2026-11-01"), ("one", "2026-11-02"), ("two", "2026-11-01")):
        folder = tmp_path / name / day
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_text(f"{name} {day}")
        (folder / "labels.csv").write_text("image,label\na.jpg,books\n")
    (tmp_path / "two" / "flat.jpg").write_text("flat")
    os.utime(tmp_path / "two" / "flat.jpg", (datetime(2026, 11, 2, tzinfo=UTC).timestamp(),) * 2)
    return open_context(DATA__SOURCE=f"{{one-b: {tmp_path}/two, one: {tmp_path}/one}}")


def test_several_sources(shops: StageContext) -> None:
    found = open_source(shops.settings)
    keys = [o.key for o in found.list_all()]
    assert keys == sorted(keys, key=str.encode)
    assert keys == [
        "one-b/2026-11-01/a.jpg",
        "one-b/2026-11-01/labels.csv",
        "one-b/flat.jpg",
        "one/2026-11-01/a.jpg",
        "one/2026-11-01/labels.csv",
        "one/2026-11-02/a.jpg",
        "one/2026-11-02/labels.csv",
    ]
    for start in [None, "", "one", "one-b", "one-b/zzz", "one/", "zzz", *keys]:
        assert [o.key for o in found.scan(start)] == [key for key in keys if key > (start or "")]
    assert found.read("one/2026-11-02/a.jpg") == b"one 2026-11-02"
    listed = found.list_day(TWO)
    days = assign_days(listed, shops.artifacts.bytes, shops.settings)
    assert [key for key, day in days.items() if day == TWO and key.endswith("jpg")] == ["one/2026-11-02/a.jpg", "one-b/flat.jpg"]
    identity = source_identity(shops.settings)
    assert set(identity["source"]) == {"one", "one-b"}


def test_one_source_that_cannot_be_read_is_named(shops: StageContext, tmp_path: Path, open_context: Open) -> None:
    found = open_source(shops.settings)
    with pytest.raises(FileNotFoundError, match="source one: none.jpg: no longer in"):
        found.read("one/none.jpg")
    with pytest.raises(FileNotFoundError, match="data.source has no source three; there are one-b, one"):
        found.read("three/a.jpg")
    (tmp_path / "one").rename(tmp_path / "moved")
    for ask in (found.list_all, lambda: found.list_day(ONE), lambda: list(found.scan())):
        with pytest.raises(SourceUnreachableError, match="source one: data.source: .*one cannot be listed"):
            ask()
    with pytest.raises(SourceError, match="source one: data.source: .*/one is not a folder"):
        open_source(shops.settings)


def test_identity_of_a_plain_source_has_no_new_fields(open_context: Open, source: Path) -> None:
    for address in (str(source), "s3://bucket/prefix/"):
        assert set(source_identity(open_context(DATA__SOURCE=address).settings)) == {
            "source", "labels_file", "image_column", "label_column", "classes",
        }  # fmt: skip
