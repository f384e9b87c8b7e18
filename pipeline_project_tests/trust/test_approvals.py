"""Approvals: bound to one subject, signed by someone trusted, and required for a change of what was accepted."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline_project.digests import digest_of
from pipeline_project.storage import FolderStore
from pipeline_project.trust.approvals import (
    Acceptance,
    ApprovalRequiredError,
    find_acceptance,
    find_approval,
    record_approval,
    require_unchanged,
    subject_key,
)
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


SOURCE = "data_source_modifications"


def test_first_value_is_accepted_and_remembered(store: FolderStore, trust: Path) -> None:
    first = {"source": "one", "classes": ["a", "b"]}
    accepted = require_unchanged(store, trust, SOURCE, first, "The data source")
    assert accepted == Acceptance(digest_of(first), None)
    assert accepted.metadata == {"accepted_settings": digest_of(first), "accepted_by": "the first value, accepted without a person"}
    assert require_unchanged(store, trust, SOURCE, dict(reversed(first.items())), "The data source") == accepted
    assert find_acceptance(store, trust, SOURCE, digest_of(first)) == accepted
    assert find_acceptance(store, trust, SOURCE, OTHER) is None
    assert find_acceptance(store, trust, KIND, digest_of(first)) is None


def refusal(store: FolderStore, trust: Path, subject: dict[str, Any]) -> ApprovalRequiredError:
    with pytest.raises(ApprovalRequiredError) as caught:
        require_unchanged(store, trust, SOURCE, subject, "The data source")
    return caught.value


def test_changed_value_waits_for_exactly_the_approval_it_asks_for(store: FolderStore, trust: Path, key: Ed25519PrivateKey) -> None:
    first, second = {"source": "one", "format": "x"}, {"source": "two", "format": "x"}
    require_unchanged(store, trust, SOURCE, first, "The data source")
    refused = refusal(store, trust, second)
    message = str(refused)
    assert "The data source changed: source from 'one' to 'two'." in message
    assert "format" not in message
    command = re.search(r'^ *pipeline approve (\S+) ([0-9a-f]{64}) --approver NAME --reason "why"$', message, re.MULTILINE)
    assert command is not None
    assert command.groups() == (SOURCE, digest_of(second)) == (refused.kind, refused.subject)
    assert json.loads(store.read(subject_key(SOURCE, refused.subject))) == second, "an auditor can read what is to be approved"

    record_approval(store, key, "model_architecture_changes", refused.subject, approver="Anna", reason="of another kind")
    refusal(store, trust, second)
    given = record_approval(store, key, SOURCE, refused.subject, approver="Anna", reason="moved")
    accepted = require_unchanged(store, trust, SOURCE, second, "The data source")
    assert accepted == Acceptance(digest_of(second), given)
    assert accepted.metadata["accepted_by"].startswith("Anna on ")
    assert f"moved (key {given.signature.key_id})" in accepted.metadata["accepted_by"]


def test_the_refusal_names_the_job_with_a_configuration_that_can_be_pasted(store: FolderStore, trust: Path) -> None:
    require_unchanged(store, trust, SOURCE, {"source": "one"}, "The data source")
    refused = refusal(store, trust, {"source": "two"})
    [pasted] = [yaml.safe_load(line) for line in str(refused).splitlines() if line.strip().startswith("ops:")]
    config = {"kind": SOURCE, "subject": refused.subject, "approver": "NAME", "reason": "why"}
    assert pasted == {"ops": {"sign_approval": {"config": config}}}


def test_what_was_accepted_may_be_returned_to(store: FolderStore, trust: Path, key: Ed25519PrivateKey) -> None:
    """An approval says that a state is acceptable: there and back needs one, and a third state needs its own."""
    first, second, third = ({"source": name} for name in ("one", "two", "three"))
    require_unchanged(store, trust, SOURCE, first, "The data source")
    record_approval(store, key, SOURCE, refusal(store, trust, second).subject, approver="Anna", reason="moved")
    for subject in (second, first, second, first, second):
        assert require_unchanged(store, trust, SOURCE, subject, "The data source").subject == digest_of(subject)
    assert "source from 'two' to 'three'" in str(refusal(store, trust, third)), "it differs from the last accepted one, not from the first"
    assert "source from 'two' to 'three'" in str(refusal(store, trust, third)), "being asked is not being accepted"


def test_withdrawing_a_key_withdraws_what_it_approved(store: FolderStore, trust: Path, key: Ed25519PrivateKey) -> None:
    first, second = {"source": "one"}, {"source": "two"}
    require_unchanged(store, trust, SOURCE, first, "The data source")
    record_approval(store, key, SOURCE, refusal(store, trust, second).subject, approver="Anna", reason="moved")
    require_unchanged(store, trust, SOURCE, second, "The data source")
    for file in trust.iterdir():
        file.unlink()
    assert f"The data source did not change, but no key in {trust} stands behind its approval." in str(refusal(store, trust, second))
    assert require_unchanged(store, trust, SOURCE, first, "The data source").approval is None, "the first one needs no key"


def test_only_the_nested_values_that_differ_are_named(store: FolderStore, trust: Path) -> None:
    before = {"gates": {"mode": "point", "accuracy": 0.85}, "data": {"slice_columns": ["region"], "old": None}}
    after = {"gates": {"mode": "point", "accuracy": 0.5}, "data": {"slice_columns": [], "new": {"deep": 1}}}
    require_unchanged(store, trust, SOURCE, before, "What decides")
    expected = (
        "changed: data.new.deep from not set to 1, data.old from None to not set, data.slice_columns from ['region'] to [], "
        "gates.accuracy from 0.85 to 0.5."
    )
    assert expected in str(refusal(store, trust, after))


def test_an_acceptance_recorded_before_the_first_one_was_kept_still_counts(store: FolderStore, trust: Path) -> None:
    subject = {"source": "one"}
    store.write_json(f"artifacts/approvals/baselines/{SOURCE}.json", {"accepted": digest_of(subject), "subject": subject})
    assert require_unchanged(store, trust, SOURCE, subject, "The data source").subject == digest_of(subject)
    assert "from 'one' to 'two'" in str(refusal(store, trust, {"source": "two"}))
