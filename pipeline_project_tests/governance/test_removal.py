"""Removing: audited, safe beside runs that publish, and safe to kill at any operation."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from pipeline_project.contracts import DesiredState, Route
from pipeline_project.digests import sha256_bytes
from pipeline_project.governance import ledger
from pipeline_project.governance.removal import apply_removal
from pipeline_project.governance.retention import RemovalPlan, RetentionError, plan_removal
from pipeline_project.settings import load_settings
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact, ArtifactMissingError, ArtifactStore, ByteStore, FolderStore
from pipeline_project.storage.removal import NOTICES, NoticeExpiredError, RemovalNotice, notices
from pipeline_project_tests.governance.history import History, released


class Stopped(BaseException):
    """The process is gone."""


class HookedStore(FolderStore):
    """Calls `before` with the number of each change (write, create, delete) before it is made."""

    changes = 0
    before: Callable[[int], None] = staticmethod(lambda _: None)

    def _change(self) -> None:
        self.changes += 1
        self.before(self.changes)

    def write(self, key: str, data: bytes) -> None:
        self._change()
        super().write(key, data)

    def create(self, key: str, data: bytes) -> None:
        self._change()
        super().create(key, data)

    def delete(self, key: str) -> None:
        self._change()
        super().delete(key)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path)


def on(history: History, store: ByteStore) -> StageContext:
    """The same project through another store object."""
    return StageContext(history.context.settings, ArtifactStore(store), history.context.log)


def whole(history: History) -> None:
    """Whatever must stay is there, and every version that a reader can find is whole."""
    assert history.expected() <= history.there()
    for prefix in history.there():
        history.entries[prefix].artifact.verify()
    for name, partition in history.heads:
        history.artifacts.latest(name, partition).verify()


def test_the_ledger_tells_who_removed_what(history: History) -> None:
    released(history, 3)
    plan = plan_removal(history.context, history.now)
    done = apply_removal(history.context, plan, actor="Ada")
    entry = list(ledger.entries(history.artifacts.bytes))[-1]
    assert (entry.actor, entry.action, entry.subject) == ("Ada", "removed", done.list_key)
    listed = history.artifacts.bytes.read_json(done.list_key)
    assert entry.details["artefacts"] == len(plan.remove) == len(listed["removed"])
    assert entry.details["bytes"] == plan.size == done.size
    assert entry.details["list_sha256"] == sha256_bytes(history.artifacts.bytes.read(done.list_key))
    assert {item["digest"] for item in listed["removed"]} == {v.digest for v in plan.remove}
    assert ledger.verify(history.artifacts.bytes).intact
    assert history.artifacts.bytes.list(NOTICES) == []
    assert history.artifacts.bytes.list("artifacts/housekeeping/begun/") == []
    apply_removal(history.context, plan_removal(history.context, history.now))
    assert len(list(ledger.entries(history.artifacts.bytes))) == 1, "nothing was removed the second time"


def test_what_became_live_after_the_plan_is_spared(history: History) -> None:
    released(history, 3)
    plan = plan_removal(history.context, history.now)
    package = history.find("model_package", history.deployed[0][2])
    assert package.prefix in {v.prefix for v in plan.remove}
    document = DesiredState(
        environment="staging",
        number=1,
        routes=[Route(name="champion", package=package.digest, weight=1.0)],
        reason="back to the first",
        author="Ada",
        created=datetime.now(UTC),
    )
    key = "artifacts/deployments/staging/documents/00000001.json"
    history.artifacts.bytes.create(key, document.model_dump_json().encode())
    done = apply_removal(history.context, plan)
    assert package.prefix in {v.prefix for v in done.spared}
    waiting = [package.prefix]
    while waiting:
        entry = history.entries[waiting.pop()]
        entry.artifact.verify()
        waiting += entry.needs


def test_step_outputs_drafts_caches_studies_and_reuse_records(history: History) -> None:
    store, home = history.artifacts.bytes, history.context.settings.home
    old = history.publish("tuned_hyperparameters", info={"x": 1})
    history.artifacts.bytes.write_json(f"{old.prefix}study.json", {"name": "a" * 32})
    history.now += timedelta(days=100)
    kept = history.artifacts.publish("tuned_hyperparameters", {"study.json": b'{"name": "' + b"b" * 32 + b'"}'})
    history.stamp(kept)
    history.now += timedelta(days=100)
    made = "artifacts/made/tuned_hyperparameters/all/"
    keys = {
        "artifacts/steps/run/op/result.json": True,
        f"{made}{'1' * 32}.json": True,
        f"{made}{'2' * 32}.json": False,
        f"{made}newest.json": False,
        "artifacts/made/nothing/all/newest.json": True,
        "artifacts/trained_model/all/.draft-0123": True,
        "artifacts/alerts/2026-01-01/x.json": False,
        "artifacts/approvals/production_deployment/x/y.json": False,
        "processed-data/quarantine/x/bytes": False,
        "processed-data/arrivals/x.json": False,
        "processed-data/scan/taken.json": False,
        "features/prediction-segments/production/2026-01-01/x": False,
    }
    digests = {f"{made}{'1' * 32}.json": old.digest, f"{made}{'2' * 32}.json": kept.digest}
    for key in keys:
        store.write_json(key, {"digest": digests.get(key, "")})
    local = {
        "cache/aa/pixels.npy": True,
        "cache/bb/.draft-1": True,
        f"studies/{'a' * 32}.journal": True,
        f"studies/{'b' * 32}.journal": False,
        "studies/notes.txt": False,
        "spool/production/prediction-segments/2026-01-01/x": False,
    }
    for name in local:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"x" * 10)
    for file in [*(history.folder / key for key in keys), *(home / name for name in local)]:
        long_ago = history.now.timestamp() - 86400 * 50
        os.utime(file, (long_ago, long_ago))
    (home / "cache/cc").mkdir()
    (home / "cache/cc/fresh.npy").write_bytes(b"y")
    os.utime(home / "cache/cc/fresh.npy", (history.now.timestamp(), history.now.timestamp()))
    plan = plan_removal(history.context, history.now)
    done = apply_removal(history.context, plan)
    assert done.pieces == plan.pieces
    assert {key: not (history.folder / key).exists() for key in keys} == keys
    assert {name: not (home / name).exists() for name in local} == local
    assert (home / "cache/cc/fresh.npy").exists()
    assert not (home / "cache/aa").exists()
    assert plan_removal(history.context, history.now).pieces == ()


@pytest.mark.slow
def test_stopped_at_any_change_it_can_be_run_again(tmp_path: Path) -> None:
    stopped_at, complete = 0, False
    while not complete:
        stopped_at += 1
        history = History(tmp_path / str(stopped_at))
        for _ in range(3):
            history.publish("data_profile")
            history.publish("drift_report", partition="2026-01-01")
            history.now += timedelta(days=50)
        planned = {v.digest for v in plan_removal(history.context, history.now).remove}
        store = HookedStore(history.folder)

        def stop(number: int, last: int = stopped_at) -> None:
            if number >= last:  # a dead process changes nothing more, not even in its `finally`
                raise Stopped

        store.before = stop
        context = on(history, store)
        try:
            apply_removal(context, plan_removal(context, history.now))
        except Stopped:
            _forget_the_process(history)
        else:
            complete = True
        whole(history)
        apply_removal(history.context, plan_removal(history.context, history.now))
        assert history.there() == history.expected()
        assert history.artifacts.bytes.list("artifacts/housekeeping/begun/") == []
        assert not [f for p in set(history.entries) - history.expected() for f in (history.folder / p).rglob("*") if f.is_file()]
        told = [history.artifacts.bytes.read_json(e.subject) for e in ledger.entries(history.artifacts.bytes)]
        assert {item["digest"] for each in told for item in each["removed"]} - {""} == planned
    assert stopped_at > 12


def _forget_the_process(history: History) -> None:
    """Its notice names this living process; a killed one's counts no more."""
    for key in history.artifacts.bytes.list(NOTICES):
        notice = history.artifacts.bytes.read_json(key)
        history.artifacts.bytes.write_json(key, notice | {"started": 0.0})


KILLED = """
import os, signal, sys
from datetime import datetime
from pipeline_project.governance.removal import apply_removal
from pipeline_project.governance.retention import plan_removal
from pipeline_project.settings import load_settings
from pipeline_project.stage import StageContext
from pipeline_project.storage import FolderStore
left = int(sys.argv[2])
delete = FolderStore.delete
def counted(self, key):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    delete(self, key)
FolderStore.delete = counted
context = StageContext.open(load_settings("sample"))
apply_removal(context, plan_removal(context, datetime.fromisoformat(sys.argv[1])), actor="Ada")
"""


@pytest.mark.slow
@pytest.mark.parametrize("deletes", [0, 1, 2, 3, 7, 20])
def test_a_killed_removal_leaves_what_is_live_whole_and_is_completed(history: History, deletes: int) -> None:
    released(history, 3)
    settings = history.context.settings.retention
    environment = {
        **os.environ,
        "PIPELINE_HOME": str(history.root),
        "PIPELINE__RETENTION__DAYS": str(settings.days),
        "PIPELINE__RETENTION__MODELS": str(settings.models),
        "PIPELINE__RETENTION__DOCUMENTS": str(settings.documents),
    }
    command = [sys.executable, "-c", KILLED, history.now.isoformat(), str(deletes)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    whole(history)
    assert notices(history.artifacts.bytes) == [], "a dead process holds nobody up"
    apply_removal(history.context, plan_removal(history.context, history.now))
    assert history.there() == history.expected()
    whole(history)
    entries = list(ledger.entries(history.artifacts.bytes))
    assert [entry.actor for entry in entries] == (["Ada", "pipeline gc"] if deletes else ["pipeline gc"])


def _condemned(history: History) -> tuple[Artifact, RemovalPlan]:
    """A version that a plan names; its payload is what `publish_old` publishes."""
    old = history.publish("data_profile", tag="old")
    history.now += timedelta(days=50)
    history.publish("data_profile", tag="new")
    history.now += timedelta(days=50)
    plan = plan_removal(history.context, history.now)
    assert [v.prefix for v in plan.remove] == [old.prefix]
    return old, plan


def publish_old(artifacts: ArtifactStore, old: Artifact) -> None:
    payload = {"x.json": b'{"tag":"old"}', "data.bin": b"data_profile old" * 20}
    assert artifacts.publish("data_profile", payload, sidecars={"s.txt": b"beside"}).digest == old.digest


def make_newest_again(artifacts: ArtifactStore, old: Artifact) -> None:
    try:
        artifacts.publish_again(artifacts.version("data_profile", old.digest), {"again": True})
    except ArtifactMissingError:
        return
    assert artifacts.latest("data_profile").digest == old.digest


@pytest.mark.parametrize("publish", [publish_old, make_newest_again])
def test_a_removal_at_any_moment_of_a_publication_leaves_it_whole(
    tmp_path: Path, publish: Callable[[ArtifactStore, Artifact], None]
) -> None:
    moment, outcomes = 0, set()
    while True:
        moment += 1
        history = History(tmp_path / str(moment))
        old, plan = _condemned(history)
        store = HookedStore(history.folder)
        removed = []

        def collect(
            number: int, at: int = moment, history: History = history, plan: RemovalPlan = plan, removed: list[int] = removed
        ) -> None:
            if number == at:
                removed.append(len(apply_removal(history.context, plan).versions))

        store.before = collect
        publish(ArtifactStore(store), old)
        newest = history.artifacts.latest("data_profile")
        newest.verify()
        assert newest.sidecar("s.txt") == b"beside"
        if not removed:
            break
        outcomes.add(removed[0])
    assert moment > 2
    assert 1 in outcomes, "at some moment the version was removed under the publisher"
    assert 0 in outcomes, "at some moment the removal saw the publisher"


@pytest.mark.slow
@pytest.mark.parametrize("publish", [publish_old, make_newest_again])
def test_a_publication_at_any_moment_of_a_removal_is_whole(tmp_path: Path, publish: Callable[[ArtifactStore, Artifact], None]) -> None:
    moment, reached = 0, True
    while reached:
        moment, reached = moment + 1, False
        history = History(tmp_path / str(moment))
        old, plan = _condemned(history)
        store = HookedStore(history.folder)
        problems: list[BaseException] = []

        def run(history: History = history, old: Artifact = old, problems: list[BaseException] = problems) -> None:
            try:
                publish(ArtifactStore(FolderStore(history.folder)), old)
            except BaseException as error:
                problems.append(error)

        publisher = threading.Thread(target=run)

        def begin(number: int, at: int = moment, publisher: threading.Thread = publisher) -> None:
            if number == at:
                publisher.start()
                publisher.join(0.2)  # until it is done, or waits for the removal to end

        store.before = begin
        apply_removal(on(history, store), plan)
        reached = publisher.ident is not None
        if reached:
            publisher.join()
        assert problems == []
        newest = history.artifacts.latest("data_profile")
        newest.verify()
        assert newest.sidecar("s.txt") == b"beside"
        if reached and publish is publish_old:
            assert newest.digest == old.digest
    assert moment > 5


def test_two_removals_at_once_are_refused(history: History) -> None:
    released(history, 3)
    plan = plan_removal(history.context, history.now)
    other = RemovalNotice(history.artifacts.bytes, "Grace")
    other.announce(["artifacts/data_profile/all/x/"])
    with pytest.raises(RetentionError, match="Another removal is at work, by Grace"):
        apply_removal(history.context, plan)
    other.withdraw()
    assert apply_removal(history.context, plan).versions


def test_a_notice_that_ended_forbids_removing(history: History) -> None:
    notice = RemovalNotice(history.artifacts.bytes, "Ada", seconds=1)
    notice.announce(["artifacts/data_profile/all/x/"])
    assert not notice.holds, "within the allowed difference of clocks it counts as ended for its owner"
    with pytest.raises(NoticeExpiredError, match="so slow"):
        notice.keep_up()
    assert len(notices(history.artifacts.bytes)) == 1, "and as holding for everybody else"


@pytest.mark.slow
def test_a_store_on_s3_and_its_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="retention")
        environment = {
            "PIPELINE_HOME": str(tmp_path),
            "PIPELINE__STORE__ROOT": "s3://retention/p",
            "PIPELINE__STORE__ENDPOINT_URL": f"http://{host}:{port}",
        }
        context = StageContext.open(load_settings("sample", environment=environment))
        old, new = (context.artifacts.publish("data_profile", {"x.json": data}, sidecars={"s": b"1"}) for data in (b"1", b"2"))
        used = [artifact.path("x.json") for artifact in (old, new)]
        later = datetime.now(UTC) + timedelta(days=100)
        assert plan_removal(context).remove == ()
        plan = plan_removal(context, later)
        assert [v.digest for v in plan.remove] == [old.digest]
        assert {p.place for p in plan.pieces} == {str(path) for path in used}
        done = apply_removal(context, plan)
        assert [v.digest for v in done.versions] == [old.digest]
        assert context.artifacts.bytes.list(old.prefix) == []
        assert not any(path.exists() for path in used)
        assert context.artifacts.latest("data_profile").path("x.json").read_bytes() == b"2"
        assert plan_removal(context, later).remove == ()
    finally:
        server.stop()
