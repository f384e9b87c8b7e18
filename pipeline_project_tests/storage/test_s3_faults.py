"""The store on S3 where the network fails, on real servers: nothing half, nothing twice, large files in parts, and clear errors."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline_project.storage import AlreadyExistsError, S3Store, StoreError
from pipeline_project.storage.byte_store import s3
from pipeline_project.storage.s3_client import Patience
from pipeline_project_tests.servers.faulty_proxy import FaultyProxy
from pipeline_project_tests.servers.fixtures import log_in
from pipeline_project_tests.servers.object_server import ObjectServer

pytestmark = pytest.mark.slow

HASTY = Patience(connect_s=2, read_s=2, attempts=4, pause_s=0.01)
Faulty = Callable[[ObjectServer], FaultyProxy]


def opened(server: ObjectServer, tmp_path: Path, bucket: str, endpoint: str | None = None, **more: str) -> S3Store:
    return S3Store(bucket, "zone/", cache=tmp_path / "cache", endpoint_url=endpoint or server.endpoint, patience=HASTY, **more)  # type: ignore[arg-type]


def test_large_files_go_up_and_come_down_in_parts(object_server: ObjectServer, tmp_path: Path) -> None:
    bucket = object_server.new_bucket()
    store = opened(object_server, tmp_path, bucket)
    (tmp_path / "pack.npy").write_bytes(os.urandom(1 << 20) * 35)
    store.write_file("packs/pack.npy", tmp_path / "pack.npy")
    head = object_server.client().head_object(Bucket=bucket, Key="zone/packs/pack.npy")
    assert head["ETag"].strip('"').endswith("-3"), "three parts of 16 MiB and less"
    digest = hashlib.sha256((tmp_path / "pack.npy").read_bytes()).digest()
    assert hashlib.sha256(store.local_path("packs/pack.npy").read_bytes()).digest() == digest
    assert hashlib.sha256(store.read("packs/pack.npy")).digest() == digest


def test_part_that_is_cut_is_sent_again(moto_login: ObjectServer, tmp_path: Path, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_PART", 5 << 20)  # the smallest that S3 allows
    proxy = faulty(moto_login)
    store = opened(moto_login, tmp_path, moto_login.new_bucket(), proxy.endpoint)
    data = os.urandom(1 << 20) * 12
    (tmp_path / "pack.npy").write_bytes(data)
    proxy.swallows = 2  # answers to parts (or to the beginning) that are lost
    store.write_file("pack.npy", tmp_path / "pack.npy")
    assert proxy.swallows == 0
    proxy.cut_after, proxy.cuts = 1_000_000, 2
    assert store.local_path("pack.npy").read_bytes() == data
    assert proxy.cuts == 0
    proxy.refusals = 10**6
    proxy.drop_connections()
    with pytest.raises(StoreError, match=r"cannot write pack\.npy \(12,582,912 bytes\): "):
        store.write_file("pack.npy", tmp_path / "pack.npy")
    proxy.refusals = 0
    assert store.read("pack.npy") == data


def test_answer_that_says_no_is_cut(object_server: ObjectServer, tmp_path: Path, faulty: Faulty) -> None:
    """Of a 404 only the head comes: botocore passes this one fault on without trying again."""
    proxy = faulty(object_server)
    store = opened(object_server, tmp_path, object_server.new_bucket(), proxy.endpoint)
    for cut_after in range(250, 700, 50):
        proxy.cut_after, proxy.cuts = cut_after, 2
        with pytest.raises(FileNotFoundError, match="no/thing: not in"):
            store.read("no/thing")
    proxy.cut_after, proxy.cuts = 350, 10**6
    with pytest.raises(StoreError, match="cannot read no/thing"):
        store.read("no/thing")


@pytest.mark.parametrize("after", [300, 100_000])
def test_cut_bodies(object_server: ObjectServer, tmp_path: Path, faulty: Faulty, after: int) -> None:
    proxy = faulty(object_server)
    store = opened(object_server, tmp_path, object_server.new_bucket(), proxy.endpoint)
    data = os.urandom(1000) * 300
    store.write("k", data)
    proxy.cut_after, proxy.cuts = after, 2
    assert store.read("k") == data
    proxy.cuts = 10**6
    with pytest.raises(StoreError, match=r"cannot read k: (the connection ended before all bytes came|.* does not answer)"):
        store.read("k")
    with pytest.raises(StoreError, match=r"cannot (read k into|look for k: .* does not answer)"):
        store.local_path("k")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()], "no half file in the cache"


def test_flapping_server(object_server: ObjectServer, tmp_path: Path, faulty: Faulty) -> None:
    proxy = faulty(object_server)
    store = opened(object_server, tmp_path, object_server.new_bucket(), proxy.endpoint)
    actions: list[Callable[[], object]] = [
        lambda: store.write("k", b"1"), lambda: store.read("k"), lambda: store.list(""), lambda: store.create("once", b"2"),
        lambda: store.exists("k"), lambda: store.delete("k"),
    ]  # fmt: skip
    for action in actions:
        proxy.drop_connections()
        proxy.refusals = 2
        action()
        assert proxy.refusals == 0
    assert store.list("") == ["once"]


def test_creation_whose_answer_is_lost_is_known_as_ones_own(object_server: ObjectServer, tmp_path: Path, faulty: Faulty) -> None:
    proxy = faulty(object_server)
    bucket = object_server.new_bucket()
    store = opened(object_server, tmp_path, bucket, proxy.endpoint)
    store.create("before", b"1")
    proxy.swallows = 1
    store.create("ledger/1", b"mine")
    assert proxy.swallows == 0
    other = opened(object_server, tmp_path, bucket, proxy.endpoint)
    other.create("ledger/0", b"")
    proxy.swallows = 1
    with pytest.raises(AlreadyExistsError):
        other.create("ledger/1", b"mine")
    assert store.read("ledger/1") == b"mine"
    assert store.list("") == ["before", "ledger/0", "ledger/1"], "nothing stays of the trial"


def test_server_that_ignores_conditions_is_refused(moto_login: ObjectServer, tmp_path: Path) -> None:
    """moto asked without the header, as a server behaves that does not know it (rclone's does)."""
    store = opened(moto_login, tmp_path, moto_login.new_bucket())
    store._client.meta.events.register("before-sign.s3.PutObject", lambda request, **_: request.headers.__delitem__("If-None-Match"))
    for _ in range(2):
        with pytest.raises(
            StoreError, match=r"ignores If-None-Match, so a document could be replaced unseen\. Set store\.root to a bucket"
        ):
            store.create("ledger/1", b"x")
    assert store.list("") == []


def test_encryption_is_asked_for_by_every_write(moto_login: ObjectServer, tmp_path: Path) -> None:
    bucket = moto_login.new_bucket()
    (tmp_path / "large").write_bytes(b"x" * (17 << 20))
    for kind in ("AES256", "aws:kms"):
        store = opened(moto_login, tmp_path, bucket, encryption=kind)
        store.write("k", b"1")
        store.write_file("f", tmp_path / "large")
        store.create(f"l-{kind[:3]}", b"1")
        client = moto_login.client()
        heads = [client.head_object(Bucket=bucket, Key=f"zone/{key}") for key in ("k", "f", f"l-{kind[:3]}")]
        assert {head["ServerSideEncryption"] for head in heads} == {kind}
        assert store.read("k") == b"1"
        assert store.local_path("f").stat().st_size == 17 << 20


def test_server_without_encryption_says_what_to_set(swift_login: ObjectServer, tmp_path: Path) -> None:
    store = opened(swift_login, tmp_path, swift_login.new_bucket(), encryption="AES256")
    with pytest.raises(StoreError, match=r"cannot do it .*needs store\.encryption: none"):
        store.write("k", b"1")


def test_wrong_credentials(swift_server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = swift_server.new_bucket()
    log_in(swift_server, monkeypatch, AWS_SECRET_ACCESS_KEY="hunter2hunter2")
    store = opened(swift_server, tmp_path, bucket)
    for attempt in (lambda: store.write("k", b"1"), lambda: store.create("k", b"1"), lambda: store.list(""), lambda: store.exists("k")):
        with pytest.raises(StoreError, match=f"denies it .*rights on bucket {bucket}") as caught:
            attempt()
        assert "hunter2" not in str(caught.value)
