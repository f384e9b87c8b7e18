"""Human approvals (R130, R198): signed records, created once, that say who allowed what and why.

An approval is bound to a kind and to the digest of its subject, so it cannot be moved to another release or another setting. It says
that a state is acceptable, not that one step to it is: what was approved may be returned to, for as long as its approver's key counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline_project.digests import canonical_json, digest_of
from pipeline_project.storage.byte_store import AlreadyExistsError, ByteStore
from pipeline_project.trust.signing import Signature, UntrustedError, sign, verify

ApprovalKind = Literal[
    "production_deployment", "model_architecture_changes", "data_source_modifications", "compliance_configuration_changes"
]
KINDS: tuple[ApprovalKind, ...] = get_args(ApprovalKind)
PREFIX = "artifacts/approvals"
_UNSET = "not set"


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


@dataclass(frozen=True)
class Acceptance:
    """Why a state of the settings may be used: it was approved, or it is the first one (`approval` is None)."""

    subject: str
    approval: SignedApproval | None

    @property
    def metadata(self) -> dict[str, str]:
        """What a materialization shows of it: the digest of what was accepted, and by whom."""
        by = "the first value, accepted without a person" if self.approval is None else in_words(self.approval)
        return {"accepted_settings": self.subject, "accepted_by": by}


class ApprovalRequiredError(ValueError):
    """A change waits for a human; the message says for what, and both ways to approve it."""

    def __init__(self, kind: ApprovalKind, subject: str, what: str) -> None:
        super().__init__(
            f"{what} A person must approve it. Look at the change, then approve it on the command line:\n"
            f'  pipeline approve {kind} {subject} --approver NAME --reason "why"\n'
            "or in the Dagster UI: Jobs, approve, Launchpad, with\n"
            f'  ops: {{sign_approval: {{config: {{kind: {kind}, subject: {subject}, approver: NAME, reason: "why"}}}}}}\n'
            "and materialize this asset again."
        )
        self.kind: ApprovalKind = kind
        self.subject = subject


def record_approval(
    store: ByteStore, key: Ed25519PrivateKey, kind: ApprovalKind, subject: str, *, approver: str, reason: str
) -> SignedApproval:
    """Sign an approval and store it for ever."""
    approval = Approval(kind=kind, subject=subject, approver=approver, reason=reason, created=datetime.now(UTC))
    signed = SignedApproval(approval=approval, signature=sign(_signed_bytes(approval), key))
    store.create(f"{PREFIX}/{kind}/{subject}/{digest_of(signed.model_dump(mode='json'))[:16]}.json", signed.model_dump_json().encode())
    return signed


def find_approval(store: ByteStore, trusted_approvers: Path, kind: ApprovalKind, subject: str) -> SignedApproval | None:
    """The oldest approval of this very subject whose signature holds, or None. Forged and damaged records are passed over."""
    valid = []
    for key in store.list(f"{PREFIX}/{kind}/{subject}/"):
        try:
            signed = SignedApproval.model_validate_json(store.read(key))
            verify(_signed_bytes(signed.approval), signed.signature, trusted_approvers)
        except (ValidationError, UntrustedError):
            continue
        if signed.approval.kind == kind and signed.approval.subject == subject:
            valid.append(signed)
    return min(valid, key=lambda signed: signed.approval.created, default=None)


def in_words(signed: SignedApproval) -> str:
    """Who approved, when, why, and with which key."""
    approval = signed.approval
    return f"{approval.approver} on {approval.created:%Y-%m-%d %H:%M} UTC: {approval.reason} (key {signed.signature.key_id})"


def find_acceptance(store: ByteStore, trusted_approvers: Path, kind: ApprovalKind, subject: str) -> Acceptance | None:
    """Why a state of the settings may be used, or None: it is neither the first one nor approved."""
    try:
        baseline = store.read_json(_baseline(kind))
    except FileNotFoundError:
        baseline = None
    if baseline is not None and subject == baseline.get("first", baseline["accepted"]):
        return Acceptance(subject, None)
    approval = find_approval(store, trusted_approvers, kind, subject)
    return None if approval is None else Acceptance(subject, approval)


def require_unchanged(store: ByteStore, trusted_approvers: Path, kind: ApprovalKind, subject: dict[str, Any], what: str) -> Acceptance:
    """Let the first value pass and be remembered; let another pass only with an approval (R198).

    Going back to the first value, or to one that was approved, needs no new approval. Withdrawing an approver's key withdraws what it
    approved. Every value that was asked for is kept under its digest, so that an auditor can read what was approved.

    Raises:
        ApprovalRequiredError: the subject was neither the first one nor approved; the message names what changed since the last
            accepted one.
    """
    digest = digest_of(subject)
    record = canonical_json({"accepted": digest, "subject": subject, "first": digest})
    _create(store, subject_key(kind, digest), canonical_json(subject))
    if _create(store, _baseline(kind), record):
        return Acceptance(digest, None)
    last = store.read_json(_baseline(kind))
    accepted = find_acceptance(store, trusted_approvers, kind, digest)
    if accepted is None:
        changes = _differences(last["subject"], subject)
        change = f"changed: {changes}." if changes else f"did not change, but no key in {trusted_approvers} stands behind its approval."
        raise ApprovalRequiredError(kind, digest, f"{what} {change}")
    if last["accepted"] != digest:  # only to say, at the next change, what it differs from
        store.write_json(_baseline(kind), {"accepted": digest, "subject": subject, "first": last.get("first", last["accepted"])})
    return accepted


def subject_key(kind: ApprovalKind, digest: str) -> str:
    """Where the store keeps the settings that a digest stands for."""
    return f"{PREFIX}/subjects/{kind}/{digest}.json"


def _signed_bytes(approval: Approval) -> bytes:
    return canonical_json(approval.model_dump(mode="json"))


def _baseline(kind: ApprovalKind) -> str:
    return f"{PREFIX}/baselines/{kind}.json"


def _create(store: ByteStore, key: str, data: bytes) -> bool:
    """Whether the key was free and is taken now."""
    try:
        store.create(key, data)
    except AlreadyExistsError:
        return False
    return True


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Each value that differs, by its dotted name."""
    old, new = _leaves(before), _leaves(after)
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key, _UNSET) != new.get(key, _UNSET))
    return ", ".join(f"{key} from {_shown(old, key)} to {_shown(new, key)}" for key in keys)


def _leaves(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= _leaves(value, f"{above}{key}.")
        else:
            found[above + key] = value
    return found


def _shown(leaves: Mapping[str, Any], key: str) -> str:
    return repr(leaves[key]) if key in leaves else _UNSET
