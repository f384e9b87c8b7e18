"""A store that cannot be written, fills up or is out of reach: one message, nothing half-written, and the old version stays."""

import contextlib
import errno
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from pipeline_project.storage import ArtifactStore, FolderStore, S3Store, StoreError
from pipeline_project.storage.errors import explain_os_error
from pipeline_project_tests.bad_input.conftest import INGEST, Shop

NOTHING_LOST = "Nothing that was stored before is lost."


def publish(store: FolderStore | S3Store, size: int, name: str = "report") -> str:
    return ArtifactStore(store).publish(name, {"a.bin": b"a" * 10, "b.bin": b"b" * size}).digest


def assert_as_before(root: Path, digest: str) -> None:
    """The head names the old version, whose bytes are whole; no draft is left."""
    found = ArtifactStore(FolderStore(root)).latest("report")
    assert found.digest == digest
    found.verify()
    assert not [path for path in root.rglob("*") if path.name.startswith(".draft-")]


# --- a folder -------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of one megabyte, where this user may mount one; else the test is skipped."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a file system; test_full_store_by_a_limit covers the rest")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_full_store(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        store = FolderStore(disk / "store")
        digest = publish(store, 1000)
        with pytest.raises(StoreError) as caught:
            publish(store, 5_000_000)
        said = str(caught.value)
        assert said.startswith(f"The artefact store {disk / 'store'}: cannot write artifacts/report/all/")
        assert "b.bin (5,000,000 bytes): no space left on device (" in said
        assert "MB free). Make room there, or set store.root to a larger disk; then run it again." in said
        assert said.endswith(NOTHING_LOST)
        assert_as_before(disk / "store", digest)
        with pytest.raises(StoreError, match="no space left"):
            store.create("once", b"x" * 5_000_000)
        assert not store.exists("once")
        assert publish(store, 2000) != digest, "there is room for less"


_LIMITED = """
import resource, signal, sys
from pathlib import Path
from pipeline_project.storage import ArtifactStore, FolderStore, StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    ArtifactStore(FolderStore(Path(sys.argv[1]))).publish("report", {"a.bin": b"a", "b.bin": b"b" * 300_000})
except StoreError as error:
    print(error)
"""


def test_full_store_by_a_limit(tmp_path: Path) -> None:
    """The system's own limit on files: a real failure in the middle of a write, without a small disk."""
    digest = publish(FolderStore(tmp_path), 1000)
    done = subprocess.run([sys.executable, "-c", _LIMITED, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60)
    assert "b.bin (300,000 bytes): file too large (" in done.stdout
    assert "Make room there, or set store.root to a larger disk" in done.stdout
    assert_as_before(tmp_path, digest)


def test_read_only_store(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        digest = publish(FolderStore(disk / "store"), 1000)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        store = FolderStore(disk / "store")
        attempts: list[Callable[[], object]] = [
            lambda: publish(store, 2000),
            lambda: store.create("x", b"1"),
            lambda: store.delete(f"artifacts/report/all/{digest[:24]}/a.bin"),
        ]
        for attempt in attempts:
            with pytest.raises(StoreError, match=r"read-only file system\. Give this user the right to write there, or set store\.root"):
                attempt()
        assert_as_before(disk / "store", digest)


def test_folder_in_whose_place_a_file_stands(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    store = FolderStore(tmp_path / "store")
    with pytest.raises(
        StoreError, match=r"cannot write .*: a file stands where a folder is needed \([^ ]*/store\)\. Move it away, or set store\.root"
    ):
        publish(store, 10)
    assert (tmp_path / "store").read_text() == "not a folder"


def test_missing_keys_are_no_failures_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no/thing: not in {tmp_path}") as caught:
        FolderStore(tmp_path).read("no/thing")
    assert not isinstance(caught.value, StoreError)


def test_the_error_crosses_processes_whole(tmp_path: Path) -> None:
    error = StoreError("write x", str(tmp_path), *explain_os_error(OSError(errno.ENOSPC, "full"), tmp_path))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


# --- S3 -------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedMotoServer]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    made = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    yield made
    with contextlib.suppress(Exception):
        made.stop()


def address(server: ThreadedMotoServer) -> str:
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


def opened(server: ThreadedMotoServer, tmp_path: Path, bucket: str) -> S3Store:
    return S3Store(bucket, "zone/", cache=tmp_path / "cache", endpoint_url=address(server))


@pytest.mark.slow
def test_s3_that_does_not_answer(server: ThreadedMotoServer, tmp_path: Path) -> None:
    bucket = f"b{time.monotonic_ns()}"
    boto3.client("s3", endpoint_url=address(server)).create_bucket(Bucket=bucket)
    store = opened(server, tmp_path, bucket)
    publish(store, 10)
    server.stop()
    for attempt in (lambda: store.write("x", b"1"), lambda: store.create("x", b"1"), lambda: store.read("x"), lambda: store.list("")):
        with pytest.raises(StoreError) as caught:
            attempt()
        assert f"The artefact store s3://{bucket}/zone/: cannot " in str(caught.value)
        assert f"{address(server)} does not answer. Check that it runs, store.endpoint_url and the network" in str(caught.value)


@pytest.mark.slow
def test_bucket_that_does_not_exist(server: ThreadedMotoServer, tmp_path: Path) -> None:
    store = opened(server, tmp_path, "nowhere")
    for attempt in (lambda: store.write("x", b"1"), lambda: store.create("x", b"1"), lambda: store.read("x"), lambda: store.list("")):
        with pytest.raises(StoreError, match=r"has no bucket nowhere\. Create the bucket, or correct store\.root; then run it again"):
            attempt()
    with pytest.raises(StoreError, match="has no bucket nowhere"):
        ArtifactStore(store).find("report")


_DENIED = """
import sys, boto3, requests
from pathlib import Path
from moto.server import ThreadedMotoServer
from pipeline_project.storage import S3Store, StoreError
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
url = "http://%s:%s" % server.get_host_and_port()
boto3.client("s3", endpoint_url=url).create_bucket(Bucket="shop")
requests.post(url + "/moto-api/reset-auth", data="0", timeout=10)
store = S3Store("shop", "", cache=Path(sys.argv[1]), endpoint_url=url)
for attempt in (lambda: store.write("x", b"1"), lambda: store.list(""), lambda: store.read("x"), lambda: store.exists("x")):
    try:
        attempt()
    except StoreError as error:
        print(error)
server.stop()
"""


@pytest.mark.slow
def test_denied_credentials(tmp_path: Path) -> None:
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "wrong", "AWS_DEFAULT_REGION": "us-east-1"}
    done = subprocess.run(
        [sys.executable, "-c", _DENIED, str(tmp_path)], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("The artefact store s3://shop/: cannot ")]
    assert len(lines) == 4, done.stdout + done.stderr[-2000:]
    for line in lines:
        assert "denies it (" in line
        assert "Check the credentials and their rights on bucket shop; then run it again." in line
        assert "wrong" not in line


@pytest.mark.slow
def test_no_credentials(server: ThreadedMotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers credentials
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreError, match=r"there are no AWS credentials\. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role"):
        opened(server, tmp_path, "shop").write("x", b"1")


@pytest.mark.slow
def test_cache_in_whose_place_a_file_stands(server: ThreadedMotoServer, tmp_path: Path) -> None:
    bucket = f"b{time.monotonic_ns()}"
    boto3.client("s3", endpoint_url=address(server)).create_bucket(Bucket=bucket)
    store = opened(server, tmp_path, bucket)
    store.write("pixels.npy", b"1")
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StoreError, match=rf"cannot read pixels\.npy into {tmp_path}/cache: a file stands where a folder is needed"):
        store.local_path("pixels.npy")


# --- as a run meets it ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_run_on_a_store_that_cannot_be_written_says_so_and_goes_through_later(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    day = "2026-01-01"
    shop.day(day, 4)
    [good] = shop.materialize([INGEST], day)
    assert good.success
    zone = shop.home / "store" / "processed-data" / "validated_manifest"
    shutil.move(zone, zone.with_name("aside"))
    zone.write_text("in the way")
    shop.day(day, 5)
    before = shop.context().artifacts.latest("image_pack", day).digest
    [bad] = shop.materialize([["validated_manifest"]], day)
    assert not bad.success
    [said] = bad.failures.values()
    assert f"The artefact store {shop.home / 'store'}: cannot " in said
    assert "a file stands where a folder is needed" in said
    assert "Move it away, or set store.root to another folder. Nothing that was stored before is lost." in said
    zone.unlink()
    shutil.move(zone.with_name("aside"), zone)
    assert shop.context().artifacts.latest("image_pack", day).digest == before
    [again] = shop.materialize([INGEST], day)
    assert again.success
    assert again.made["image_pack"]["images"] == 5
