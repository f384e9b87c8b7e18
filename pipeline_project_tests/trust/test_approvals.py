"""Approvals: bound to one subject, signed by someone trusted, and required for a change of what was accepted."""

import json
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline_project.digests import digest_of
from pipeline_project.storage import FolderStore
from pipeline_project.trust.approvals import ApprovalRequiredError, find_approval, record_approval, require_unchanged
from pipeline_project.trust.signing import load_or_create_key

SUBJECT, OTHER = "a" * 64, "b" * 64
KIND = "production_deployment"


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    return tmp_path / "approvers"


@pytest.fixture
def key(tmp_path: Path, trust: Path) -> Ed25519PrivateKey:
    return load_or_create_key(tmp_path / "anna.pem", trust)


def test_approval_is_found_for_its_own_kind_and_subject_only(store: FolderStore, trust: Path, key: Ed25519PrivateKey) -> None:
    record_approval(store, key, KIND, SUBJECT, approver="Anna", reason="looks right")
    found = find_approval(store, trust, KIND, SUBJECT)
    assert found is not None
    assert (found.approval.approver, found.approval.reason) == ("Anna", "looks right")
    assert find_approval(store, trust, KIND, OTHER) is None
    assert find_approval(store, trust, "model_architecture_changes", SUBJECT) is None


@pytest.mark.parametrize("target", [f"{KIND}/{OTHER}", f"model_architecture_changes/{SUBJECT}"])
def test_approval_cannot_be_moved(store: FolderStore, trust: Path, key: Ed25519PrivateKey, target: str) -> None:
    record_approval(store, key, KIND, SUBJECT, approver="Anna", reason="yes")
    [stored] = store.list(f"artifacts/approvals/{KIND}/{SUBJECT}/")
    store.write(f"artifacts/approvals/{target}/copy.json", store.read(stored))
    kind, subject = target.split("/")
    assert find_approval(store, trust, kind, subject) is None  # type: ignore[arg-type]
    assert find_approval(store, trust, KIND, SUBJECT) is not None


@pytest.mark.parametrize(
    ("field", "value"), [("approver", "Boss"), ("reason", "other"), ("created", "2020-01-01T00:00:00Z"), ("subject", OTHER)]
)
def test_edited_record_is_passed_over(store: FolderStore, trust: Path, key: Ed25519PrivateKey, field: str, value: str) -> None:
    record_approval(store, key, KIND, SUBJECT, approver="Anna", reason="yes")
    [stored] = store.list("artifacts/approvals/")
    record = json.loads(store.read(stored))
    record["approval"][field] = value
    store.write(stored, json.dumps(record).encode())
    assert find_approval(store, trust, KIND, SUBJECT) is None
    assert find_approval(store, trust, KIND, OTHER) is None


def test_stranger_and_rubbish_are_passed_over(store: FolderStore, trust: Path, key: Ed25519PrivateKey, tmp_path: Path) -> None:
    record_approval(store, load_or_create_key(tmp_path / "stranger.pem"), KIND, SUBJECT, approver="Anna", reason="yes")
    for number, rubbish in enumerate((b"", b"{}", b"\xff", b"[1]", b'{"approval": null, "signature": null}')):
        store.write(f"artifacts/approvals/{KIND}/{SUBJECT}/{number}.json", rubbish)
    assert find_approval(store, trust, KIND, SUBJECT) is None
    record_approval(store, key, KIND, SUBJECT, approver="Anna", reason="a true one")
    found = find_approval(store, trust, KIND, SUBJECT)
    assert found is not None
    assert found.approval.reason == "a true one"


def test_oldest_approval_counts(store: FolderStore, trust: Path, key: Ed25519PrivateKey) -> None:
    first = record_approval(store, key, KIND, SUBJECT, approver="Anna", reason="first")
    record_approval(store, key, KIND, SUBJECT, approver="Anna", reason="second")
    assert find_approval(store, trust, KIND, SUBJECT) == first


@pytest.mark.parametrize(
    ("subject", "approver", "reason"), [("abc", "A", "r"), (SUBJECT, "", "r"), (SUBJECT, "A", ""), ("../" + "a" * 61, "A", "r")]
)
def test_incomplete_approval_is_refused(store: FolderStore, key: Ed25519PrivateKey, subject: str, approver: str, reason: str) -> None:
    with pytest.raises(ValueError, match="validation error"):
        record_approval(store, key, KIND, subject, approver=approver, reason=reason)
    assert store.list("") == []


def test_first_value_is_accepted_and_remembered(store: FolderStore, trust: Path) -> None:
    first = {"source": "one", "classes": ["a", "b"]}
    assert require_unchanged(store, trust, "data_source_modifications", first, "The data source") == digest_of(first)
    assert require_unchanged(store, trust, "data_source_modifications", dict(reversed(first.items())), "The data source") == digest_of(
        first
    )


def test_changed_value_waits_for_exactly_the_approval_it_asks_for(store: FolderStore, trust: Path, key: Ed25519PrivateKey) -> None:
    kind = "data_source_modifications"
    first, second = {"source": "one", "format": "x"}, {"source": "two", "format": "x"}
    require_unchanged(store, trust, kind, first, "The data source")
    with pytest.raises(ApprovalRequiredError) as caught:
        require_unchanged(store, trust, kind, second, "The data source")
    message = str(caught.value)
    assert "The data source changed: source from 'one' to 'two'." in message
    assert "format" not in message
    command = re.search(r'^ *pipeline approve (\S+) ([0-9a-f]{64}) --approver NAME --reason "why"$', message, re.MULTILINE)
    assert command is not None
    assert command.groups() == (kind, digest_of(second)) == (caught.value.kind, caught.value.subject)

    record_approval(store, key, "model_architecture_changes", command.group(2), approver="Anna", reason="of another kind")
    with pytest.raises(ApprovalRequiredError):
        require_unchanged(store, trust, kind, second, "The data source")
    record_approval(store, key, kind, command.group(2), approver="Anna", reason="moved")
    assert require_unchanged(store, trust, kind, second, "The data source") == digest_of(second)
    with pytest.raises(ApprovalRequiredError, match="from 'two' to 'one'"):
        require_unchanged(store, trust, kind, first, "The data source")
