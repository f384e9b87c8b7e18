"""Both byte stores against the same expectations: the folder on disk, S3 against a real server on loopback."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipeline_project.settings import load_settings
from pipeline_project.storage import AlreadyExistsError, ByteStore, FolderStore, S3Store, open_store
from pipeline_project_tests.servers.object_server import ObjectServer

MakeStore = Callable[[], ByteStore]


@pytest.fixture
def bucket(moto_login: ObjectServer) -> str:
    return moto_login.new_bucket()


@pytest.fixture
def endpoint(moto_login: ObjectServer) -> str:
    return moto_login.endpoint


@pytest.fixture(params=["folder", pytest.param("moto", marks=pytest.mark.slow), pytest.param("swift", marks=pytest.mark.slow)])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """Opens the same store anew, as another process would."""
    if request.param == "folder":
        return lambda: FolderStore(tmp_path / "store")
    server: ObjectServer = request.getfixturevalue(f"{request.param}_login")
    bucket = server.new_bucket()
    return lambda: S3Store(bucket, "zone/", cache=tmp_path / "cache", endpoint_url=server.endpoint)


def test_what_is_written_is_read_back_by_another(make: MakeStore) -> None:
    data = bytes(range(256)) * 50
    make().write("a/b/c.bin", data)
    make().write("a/b/c.bin", data + b"!")
    assert make().read("a/b/c.bin") == data + b"!"
    make().write_json("x.json", {"b": [1, 2.5], "a": "é"})
    assert make().read("x.json") == '{"a":"é","b":[1,2.5]}'.encode()
    assert make().read_json("x.json") == {"a": "é", "b": [1, 2.5]}


def test_files_are_stored_whole(make: MakeStore, tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "large.bin").write_bytes(data)
    make().write_file("a/large.bin", tmp_path / "large.bin")
    assert make().read("a/large.bin") == data
    assert (tmp_path / "large.bin").read_bytes() == data
    (tmp_path / "large.bin").write_bytes(b"")
    make().write_file("a/large.bin", tmp_path / "large.bin")
    assert make().read("a/large.bin") == b""
    with pytest.raises(FileNotFoundError):
        make().write_file("a/other", tmp_path / "none")
    assert make().list("") == ["a/large.bin"]


def test_missing_keys(make: MakeStore) -> None:
    store = make()
    assert not store.exists("no/thing")
    assert store.list("no/") == []
    store.delete("no/thing")
    for ask in (store.read, store.local_path, store.read_json):
        with pytest.raises(FileNotFoundError):
            ask("no/thing")


def test_list_gives_sorted_keys_below_a_prefix(make: MakeStore) -> None:
    store = make()
    for key in ("d/2/x", "d/10/x", "d/1", "dd/1", "e"):
        store.write(key, b".")
    assert store.list("d/") == ["d/1", "d/10/x", "d/2/x"]
    assert store.list("d/1") == ["d/1", "d/10/x"]
    assert store.list("d") == ["d/1", "d/10/x", "d/2/x", "dd/1"]
    assert store.list("") == ["d/1", "d/10/x", "d/2/x", "dd/1", "e"]


def test_entries_tell_size_and_age(make: MakeStore) -> None:
    store, before = make(), datetime.now(UTC) - timedelta(seconds=2)  # S3 tells whole seconds
    for key, data in (("d/2", b"22"), ("d/1", b"1"), ("e", b"")):
        store.write(key, data)
    assert [(entry.key, entry.size) for entry in make().entries("d/")] == [("d/1", 1), ("d/2", 2)]
    assert [entry.key for entry in store.entries("")] == store.list("")
    assert all(before <= entry.modified <= datetime.now(UTC) + timedelta(seconds=1) for entry in store.entries(""))
    assert store.entries("nothing/") == []
    assert store.drafts() == []


def test_drafts_of_killed_writers_are_found_and_can_be_deleted(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    assert store.drafts() == []
    store.write("a/b", b"1")
    (tmp_path / "store/a/.draft-0123").write_bytes(b"123")
    assert [(draft.key, draft.size) for draft in store.drafts()] == [("a/.draft-0123", 3)]
    store.delete("a/.draft-0123")
    assert store.drafts() == []
    assert store.list("") == ["a/b"]


@pytest.mark.slow
def test_the_cache_remembers_the_last_use_of_a_file(bucket: str, endpoint: str, tmp_path: Path) -> None:
    store = S3Store(bucket, "", cache=tmp_path, endpoint_url=endpoint)
    store.write("k", b"1")
    path = store.local_path("k")
    os.utime(path, (0, 0))
    assert store.local_path("k").stat().st_mtime > 0


def test_deleted_keys_are_gone(make: MakeStore) -> None:
    store = make()
    store.write("a", b"1")
    store.delete("a")
    assert not store.exists("a")
    assert store.list("") == []
    store.create("a", b"2")
    assert store.read("a") == b"2"


def test_create_never_replaces(make: MakeStore) -> None:
    store = make()
    store.create("once", b"first")
    with pytest.raises(AlreadyExistsError, match="once exists already"):
        make().create("once", b"second")
    assert store.read("once") == b"first"
    assert store.list("") == ["once"]


def test_of_concurrent_creators_exactly_one_wins(make: MakeStore, request: pytest.FixtureRequest) -> None:
    if "swift" in request.node.name:
        pytest.skip("Swift looks and then writes, so two creators at the very same moment may both win; S3Store says so")
    stores = [make() for _ in range(8)]
    for turn in range(5):
        barrier = threading.Barrier(len(stores))

        def attempt(number: int, turn: int = turn, barrier: threading.Barrier = barrier) -> int | None:
            barrier.wait()
            try:
                stores[number].create(f"doc/{turn}", str(number).encode())
            except AlreadyExistsError:
                return None
            return number

        with ThreadPoolExecutor(len(stores)) as pool:
            winners = [number for number in pool.map(attempt, range(len(stores))) if number is not None]
        assert len(winners) == 1
        assert stores[0].read(f"doc/{turn}") == str(winners[0]).encode()


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a/..", "..", ".", "a\\..\\x", "a\0b", "a//b", "a/", "./a"])
def test_keys_that_leave_the_store_or_have_two_spellings_are_refused(make: MakeStore, key: str, tmp_path: Path) -> None:
    store = make()
    for ask in (store.read, store.exists, store.delete, store.local_path):
        with pytest.raises(ValueError, match="not a store key"):
            ask(key)
    (tmp_path.parent / f"{tmp_path.name}.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match="not a store key"):
        store.write_file(key, tmp_path.parent / f"{tmp_path.name}.bin")
    for put in (store.write, store.create):
        with pytest.raises(ValueError, match="not a store key"):
            put(key, b"x")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_folder_listing_does_not_leave_the_store(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    store = FolderStore(tmp_path / "store")
    store.write("a", b"1")
    for prefix in ("../", "a/../../", f"{tmp_path}/"):
        with pytest.raises(ValueError, match="not a store key"):
            store.list(prefix)


def test_local_path_holds_the_present_bytes(make: MakeStore) -> None:
    store = make()
    store.write("m/pixels.npy", b"old")
    assert store.local_path("m/pixels.npy").read_bytes() == b"old"
    store.write("m/pixels.npy", b"new")
    path = make().local_path("m/pixels.npy")
    assert path.read_bytes() == b"new"
    assert path.name == "pixels.npy"


@pytest.mark.slow
def test_s3_stores_of_other_prefixes_do_not_meet(bucket: str, endpoint: str, tmp_path: Path) -> None:
    one, two = (S3Store(bucket, prefix, cache=tmp_path, endpoint_url=endpoint) for prefix in ("one/", "two/"))
    one.write("k", b"1")
    assert not two.exists("k")
    assert two.list("") == []
    assert one.uri == f"s3://{bucket}/one/"


@pytest.mark.slow
def test_s3_encryption_is_asked_for(bucket: str, endpoint: str, tmp_path: Path) -> None:
    store = S3Store(bucket, "", cache=tmp_path, endpoint_url=endpoint, encryption="aws:kms")
    store.write("k", b"1")
    store.create("l", b"1")
    client = boto3.client("s3", endpoint_url=endpoint)
    assert {client.head_object(Bucket=bucket, Key=key)["ServerSideEncryption"] for key in ("k", "l")} == {"aws:kms"}


@pytest.mark.slow
def test_s3_lists_more_than_one_page(bucket: str, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3Store(bucket, "", cache=tmp_path, endpoint_url=endpoint)
    for n in range(11):
        store.write(f"n/{n:04d}", b"")
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")  # the server's page; 1000 otherwise
    assert boto3.client("s3", endpoint_url=endpoint).list_objects_v2(Bucket=bucket)["IsTruncated"]
    assert store.list("n/") == [f"n/{n:04d}" for n in range(11)]


def test_address_of_the_store_comes_from_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(root: str) -> ByteStore:
        return open_store(load_settings("sample", environment={"PIPELINE_HOME": str(tmp_path), "PIPELINE__STORE__ROOT": root}))

    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert opened("store").uri == str(tmp_path / "store")
    assert opened("s3://bucket/some/prefix").uri == "s3://bucket/some/prefix/"
    assert opened("s3://bucket").uri == "s3://bucket/"
    assert not list(tmp_path.iterdir()), "opening creates nothing"
    with pytest.raises(ValueError, match=r"store\.root: gs://x: the scheme must be s3"):
        opened("gs://x")


def test_killed_writer_leaves_only_whole_values(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    script = (
        "import sys, itertools; from pathlib import Path; from pipeline_project.storage import FolderStore\n"
        "store = FolderStore(Path(sys.argv[1]))\n"
        "for n in itertools.count():\n"
        "    for key in ('a/one', 'a/two'):\n"
        "        store.write(key, bytes([n % 256]) * 300_000)\n"
    )
    for delay in (0.0, 0.03, 0.011):
        writer = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
        try:
            deadline = time.monotonic() + 30
            before = store.read("a/two") if store.exists("a/two") else None
            while not store.exists("a/two") or store.read("a/two") == before:
                assert time.monotonic() < deadline
                time.sleep(0.002)
            time.sleep(delay)
        finally:
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()
        assert store.list("") == ["a/one", "a/two"], "drafts of the killed writer are not keys"
        for key in store.list(""):
            data = store.read(key)
            assert data == data[:1] * 300_000


_KEYS = st.sampled_from(["a/1", "a/2", "a/b/1", "b", "ab/1"])


class FolderModel(RuleBasedStateMachine):
    """The folder store against a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = FolderStore(Path(self.folder.name) / "store")
        self.model: dict[str, bytes] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(key=_KEYS, data=st.binary(max_size=20))
    def write(self, key: str, data: bytes) -> None:
        self.store.write(key, data)
        self.model[key] = data

    @rule(key=_KEYS, data=st.binary(max_size=20))
    def create(self, key: str, data: bytes) -> None:
        try:
            self.store.create(key, data)
        except AlreadyExistsError:
            assert key in self.model
        else:
            assert key not in self.model
            self.model[key] = data

    @rule(key=_KEYS)
    def delete(self, key: str) -> None:
        self.store.delete(key)
        self.model.pop(key, None)

    @rule(key=_KEYS)
    def read(self, key: str) -> None:
        try:
            assert self.store.read(key) == self.model[key]
        except FileNotFoundError:
            assert key not in self.model

    @invariant()
    def same_keys(self) -> None:
        for prefix in ("", "a", "a/", "a/b/", "zz/"):
            assert self.store.list(prefix) == sorted(key for key in self.model if key.startswith(prefix))
        assert all(self.store.exists(key) == (key in self.model) for key in ("a/1", "a/b", "b"))


FolderModel.TestCase.settings = hypothesis_settings(max_examples=25, stateful_step_count=20, deadline=None)
TestFolderModel = FolderModel.TestCase
