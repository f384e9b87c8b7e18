"""Google and Azure sources. Azure's client against Microsoft's own emulator where it is installed (`npm install -g azurite`); Google's
against moto, whose S3 answers have the form of Google's XML interface; what needs no server, always."""

import base64
import hashlib
import hmac
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from datetime import date
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from pipeline_project.ingest.sources import FolderSource, ObjectStoreSource, SourceError, SourceUnreachableError, open_source
from pipeline_project.stage import StageContext
from pipeline_project.storage.s3_client import Patience
from pipeline_project_tests.servers.faulty_proxy import FaultyProxy
from pipeline_project_tests.servers.object_server import ObjectServer
from pipeline_project_tests.small_project import free_ports

pytestmark = pytest.mark.slow

ONE = date(2026, 11, 1)
HASTY = Patience(connect_s=2, read_s=2, attempts=4, pause_s=0.01)
OBJECTS = {
    f"shop/{key}": key.encode() for key in ("2026-11-01/a.jpg", "2026-11-01/labels.csv", "2026-11-02/b.jpg", "flat.jpg", "sub/c.jpg")
}
ACCOUNT, KEY = "devstoreaccount1", base64.b64encode(b"a key of this test's own").decode()


def google(endpoint: str, bucket: str, prefix: str = "shop/") -> ObjectStoreSource:
    account = {"disable_oauth": True, "gcs_base_url": endpoint, "client_email": "", "private_key": "", "private_key_id": ""}
    options = {"service_account_key": json.dumps(account), "client_options": {"allow_http": True}}
    return ObjectStoreSource("gs", bucket, prefix, options, HASTY)


@pytest.fixture
def public_bucket(moto_login: ObjectServer) -> str:
    """Readable by everybody, as moto knows nobody by Google's credentials."""
    bucket, client = moto_login.new_bucket(), moto_login.client()
    for key, data in (OBJECTS | {"shop/2026-11-02/": b"", "other/x.jpg": b"x"}).items():
        client.put_object(Bucket=bucket, Key=key, Body=data, ACL="public-read")
    return bucket


def behaves_as_a_source(source: ObjectStoreSource) -> None:
    keys = [key.removeprefix("shop/") for key in sorted(OBJECTS)]
    assert [o.key for o in source.list_all()] == keys
    assert [o.key for o in source.list_day(ONE)] == ["2026-11-01/a.jpg", "2026-11-01/labels.csv", "flat.jpg", "sub/c.jpg"]
    for start in (*keys, "", "2026-11-01", "g", "z"):
        assert [o.key for o in source.scan(start)] == [key for key in keys if key > start]
    assert source.find("flat.jpg") == source.list_all()[3]
    assert source.find("flat") is None
    first = source.list_all()[0]
    assert (first.size, bool(first.etag), first.modified.tzinfo is not None) == (16, True, True)
    assert source.read("flat.jpg") == b"flat.jpg"
    assert source.read("flat.jpg", 4) == b"flat"
    with pytest.raises(FileNotFoundError, match=r"no\.jpg: no longer in "):
        source.read("no.jpg")


def test_google_client(moto_login: ObjectServer, public_bucket: str) -> None:
    behaves_as_a_source(google(moto_login.endpoint, public_bucket))


def test_google_client_and_a_bad_network(
    moto_login: ObjectServer, public_bucket: str, faulty: Callable[[ObjectServer], FaultyProxy]
) -> None:
    proxy = faulty(moto_login)
    data = bytes(range(256)) * 10_000  # obstore goes on where a body was cut; this is more than its attempts can mend
    moto_login.client().put_object(Bucket=public_bucket, Key="shop/large.jpg", Body=data, ACL="public-read")
    source = google(proxy.endpoint, public_bucket)
    for after in (300, 100_000):
        proxy.cut_after, proxy.cuts = after, 2
        assert source.read("large.jpg") == data
        assert proxy.cuts == 0
    proxy.refusals = 2
    proxy.drop_connections()
    assert source.list_all()
    proxy.cut_after, proxy.cuts = 100_000, 10**6
    with pytest.raises(SourceUnreachableError, match=r"large\.jpg cannot be read: the server does not answer"):
        source.read("large.jpg")
    proxy.close()
    for ask in (source.list_all, lambda: source.list_day(ONE), lambda: source.read("flat.jpg")):
        with pytest.raises(SourceUnreachableError, match="the server does not answer .* Check the network"):
            ask()


def test_missing_bucket_and_keys_that_obstore_cannot_tell(moto_login: ObjectServer, public_bucket: str) -> None:
    missing = google(moto_login.endpoint, "no-such-bucket")
    for ask in (missing.list_all, lambda: missing.list_day(ONE), lambda: missing.read("flat.jpg")):
        with pytest.raises(SourceUnreachableError, match=r"gs://no-such-bucket/shop/: .* there is no bucket no-such-bucket\. Create it"):
            ask()
    moto_login.client().put_object(Bucket=public_bucket, Key="shop/a//b.jpg", Body=b"x")
    with pytest.raises(SourceError, match=r'"shop/a//b\.jpg" contained empty path segment\. Rename that object'):
        google(moto_login.endpoint, public_bucket).list_all()


def test_addresses_in_settings(open_context: Callable[..., StageContext], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_CONNECTION_STRING"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SourceError, match=r"az://photos/: .*Account must be specified\. Set AZURE_STORAGE_ACCOUNT_NAME with a key"):
        open_source(open_context(DATA__SOURCE="az://photos").settings)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "company")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    assert isinstance(open_source(open_context(DATA__SOURCE="az://photos/a").settings), ObjectStoreSource)
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", "{not json with hunter2")
    with pytest.raises(SourceError, match="GOOGLE_APPLICATION_CREDENTIALS") as caught:
        open_source(open_context(DATA__SOURCE="gs://photos/").settings)
    assert "hunter2" not in str(caught.value)
    for wrong in ("ftp://x/y", "s3://", "gs:///x"):
        with pytest.raises(SourceError, match="the scheme must be s3, gs or az, followed by a bucket"):
            open_source(open_context(DATA__SOURCE=wrong).settings)


# --- Azure's emulator -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Options of a store on the emulator; its container `photos` holds `OBJECTS`."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite-blob is not installed (npm install -g azurite)")
    import os

    import obstore
    from obstore.store import AzureStore

    [port] = free_ports(1)
    folder = tmp_path_factory.mktemp("azurite")
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen(
            [program, "--blobPort", str(port), "--location", str(folder), "--silent", "--disableTelemetry", "--skipApiVersionCheck"],
            stdout=log,
            stderr=log,
            env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"},
        )
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    options = {"account_name": ACCOUNT, "account_key": KEY, "endpoint": endpoint, "client_options": {"allow_http": True}}
    try:
        _make_container(endpoint, "photos", server, folder / "log.txt")
        store = AzureStore("photos", **options)
        for key, data in (OBJECTS | {"other/x.jpg": b"x"}).items():
            obstore.put(store, key, data)
        yield options
    finally:
        server.kill()
        server.wait()


def _make_container(endpoint: str, name: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    """Ask until the emulator answers."""
    import time

    deadline = time.monotonic() + 60
    while True:
        now = formatdate(usegmt=True)
        signed = "PUT" + "\n" * 12 + f"x-ms-date:{now}\nx-ms-version:2021-08-06\n/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
        signature = base64.b64encode(hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()).decode()
        headers = {
            "x-ms-date": now,
            "x-ms-version": "2021-08-06",
            "Authorization": f"SharedKey {ACCOUNT}:{signature}",
            "Content-Length": "0",
        }
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{name}?restype=container", method="PUT", headers=headers)):
                return
        except ConnectionError:
            pass
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionError):
                raise
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"azurite did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def test_azure(azure: dict[str, Any]) -> None:
    behaves_as_a_source(ObjectStoreSource("az", "photos", "shop/", azure, HASTY))


def test_azure_refusals(azure: dict[str, Any]) -> None:
    wrong = azure | {"account_key": base64.b64encode(b"another key").decode()}
    for source, said in (
        (ObjectStoreSource("az", "photos", "shop/", wrong, HASTY), r"az://photos/shop/: .* the server denies it \(Auth"),
        (ObjectStoreSource("az", "nowhere", "", azure, HASTY), "there is no bucket nowhere"),
    ):
        for ask in (source.list_all, lambda source=source: source.list_day(ONE), lambda source=source: source.read("flat.jpg")):
            with pytest.raises(SourceUnreachableError, match=said) as caught:
                ask()
            assert wrong["account_key"] not in str(caught.value)


# --- what a source of any kind gives --------------------------------------------------------------------------------------------


def test_find_is_what_a_listing_tells(tmp_path: Path) -> None:
    for key in ("a/1.jpg", "a-b.jpg", "b.jpg"):
        (tmp_path / key).parent.mkdir(exist_ok=True)
        (tmp_path / key).write_text(key)
    (tmp_path / "link.jpg").symlink_to(tmp_path / "b.jpg")
    source = FolderSource(tmp_path)
    assert [source.find(o.key) for o in source.list_all()] == source.list_all()
    for absent in ("a", "a/2.jpg", "b.jpg/x", "link.jpg", "../x", ".hidden", "a//1.jpg"):
        assert source.find(absent) is None
