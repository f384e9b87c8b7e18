"""Human approvals (R130, R198): signed records, created once, that say who allowed what and why.

An approval is bound to a kind and to the digest of its subject, so it cannot be moved to another release or another setting.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline_project.digests import canonical_json, digest_of
from pipeline_project.storage.byte_store import AlreadyExistsError, ByteStore
from pipeline_project.trust.signing import Signature, UntrustedError, sign, verify

ApprovalKind = Literal[
    "production_deployment", "model_architecture_changes", "data_source_modifications", "compliance_configuration_changes"
]
_PREFIX = "artifacts/approvals"


class Approval(BaseModel):
    """Who allowed which change, when and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    kind: ApprovalKind
    subject: str = Field(pattern=r"^[0-9a-f]{64}$")
    approver: str = Field(min_length=1, max_length=200)
    reason: str = Field(min_length=1, max_length=2000)
    created: datetime


class SignedApproval(BaseModel):
    """An approval with its signature, as it is stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    approval: Approval
    signature: Signature


class ApprovalRequiredError(ValueError):
    """A change waits for a human; the message says for what, and how to approve it."""

    def __init__(self, kind: ApprovalKind, subject: str, what: str) -> None:
        super().__init__(
            f"{what} A person must approve it: look at the change, then run\n"
            f'  pipeline approve {kind} {subject} --approver NAME --reason "why"\nand materialize this asset again.'
        )
        self.kind: ApprovalKind = kind
        self.subject = subject


def record_approval(
    store: ByteStore, key: Ed25519PrivateKey, kind: ApprovalKind, subject: str, *, approver: str, reason: str
) -> SignedApproval:
    """Sign an approval and store it for ever."""
    approval = Approval(kind=kind, subject=subject, approver=approver, reason=reason, created=datetime.now(UTC))
    signed = SignedApproval(approval=approval, signature=sign(_signed_bytes(approval), key))
    store.create(f"{_PREFIX}/{kind}/{subject}/{digest_of(signed.model_dump(mode='json'))[:16]}.json", signed.model_dump_json().encode())
    return signed


def find_approval(store: ByteStore, trusted_approvers: Path, kind: ApprovalKind, subject: str) -> SignedApproval | None:
    """The oldest approval of this very subject whose signature holds, or None. Forged and damaged records are passed over."""
    valid = []
    for key in store.list(f"{_PREFIX}/{kind}/{subject}/"):
        try:
            signed = SignedApproval.model_validate_json(store.read(key))
            verify(_signed_bytes(signed.approval), signed.signature, trusted_approvers)
        except (ValidationError, UntrustedError):
            continue
        if signed.approval.kind == kind and signed.approval.subject == subject:
            valid.append(signed)
    return min(valid, key=lambda signed: signed.approval.created, default=None)


def require_unchanged(store: ByteStore, trusted_approvers: Path, kind: ApprovalKind, subject: dict[str, Any], what: str) -> str:
    """Let the first value pass and be remembered; let another pass only with an approval (R198). Returns the subject's digest.

    Raises:
        ApprovalRequiredError: the subject differs from the last accepted one and nobody approved it.
    """
    digest = digest_of(subject)
    baseline = f"{_PREFIX}/baselines/{kind}.json"
    try:
        store.create(baseline, canonical_json({"accepted": digest, "subject": subject}))
    except AlreadyExistsError:
        accepted = store.read_json(baseline)
        if accepted["accepted"] != digest:
            if find_approval(store, trusted_approvers, kind, digest) is None:
                changes = _differences(accepted["subject"], subject)
                raise ApprovalRequiredError(kind, digest, f"{what} changed: {changes}.") from None
            store.write(baseline, canonical_json({"accepted": digest, "subject": subject}))
    return digest


def _signed_bytes(approval: Approval) -> bytes:
    return canonical_json(approval.model_dump(mode="json"))


def _differences(before: dict[str, Any], after: dict[str, Any]) -> str:
    keys = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return ", ".join(f"{key} from {before.get(key)!r} to {after.get(key)!r}" for key in keys)
