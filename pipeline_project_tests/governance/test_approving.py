"""One way in for approvals: what the command line passes on."""

import pytest

from pipeline_project.governance import ledger
from pipeline_project.governance.approving import approve, what_is_approved
from pipeline_project.trust.approvals import find_approval
from pipeline_project.trust.signing import load_or_create_key

DEPLOYMENT = "production_deployment"


def given(release, package):
    return find_approval(release.context.artifacts.bytes, release.context.settings.trusted_approvers, DEPLOYMENT, package)


def test_a_release_is_approved_with_a_key_from_elsewhere_and_noted_in_the_ledger(release, tmp_path):
    package = release.build(approve=False)
    key = tmp_path / "stick" / "ada.pem"
    load_or_create_key(key, release.context.settings.trusted_approvers)
    assert given(release, package) is None
    signed = approve(release.context, DEPLOYMENT, f" {package}\n", approver="ada", reason=" read the report ", key=key)
    assert given(release, package) == signed
    assert signed.approval.reason == "read the report"
    [entry] = ledger.entries(release.context.artifacts.bytes)
    assert (entry.actor, entry.action, entry.subject) == ("ada", "approved", package)
    assert entry.details == {"kind": DEPLOYMENT, "reason": "read the report", "key_id": signed.signature.key_id}
    assert what_is_approved(release.context, DEPLOYMENT, package)["variant"] == "int8"


def test_a_package_that_is_not_there_cannot_be_approved(release):
    package = release.build(approve=False)
    load_or_create_key(release.context.settings.home / "keys" / "ada.pem", release.context.settings.trusted_approvers)
    other = package[:24] + "0" * 40  # the same folder in the store, another digest
    for subject in ("0" * 64, other):
        with pytest.raises(ValueError, match="Nothing asked for production_deployment|of another artefact"):
            approve(release.context, DEPLOYMENT, subject, approver="ada", reason="why not")
        assert given(release, subject) is None


@pytest.mark.parametrize(
    ("kind", "words"), [("everything", "there are: production_deployment, "), ("", "is no kind of approval"), ("../x", "is no kind")]
)
def test_an_unknown_kind_names_those_there_are(release, kind, words):
    with pytest.raises(ValueError, match=words):
        approve(release.context, kind, release.build(approve=False), approver="ada", reason="why")


def test_a_file_that_is_no_key_and_a_missing_one_are_told(release, tmp_path):
    package = release.build(approve=False)
    (tmp_path / "ada.pem").write_text("not a key")
    for key, words in ((tmp_path / "ada.pem", "not an Ed25519 private key"), (tmp_path / "none.pem", "no such key")):
        with pytest.raises(ValueError, match=words):
            approve(release.context, DEPLOYMENT, package, approver="ada", reason="why", key=key)
    assert given(release, package) is None
