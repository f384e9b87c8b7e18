"""Recording a person's approval (R130, R198): one way in for the command line and for the job `approve` of the Dagster UI."""

import re
from pathlib import Path
from typing import Any

from pipeline_project.governance import ledger
from pipeline_project.packaging.package import MANIFEST_FILE, NAME
from pipeline_project.stage import StageContext
from pipeline_project.storage import ArtifactMissingError
from pipeline_project.trust.approvals import KINDS, ApprovalKind, SignedApproval, record_approval, subject_key
from pipeline_project.trust.signing import key_file, key_id, load_private_key, trusted_keys

_MAX_REASON = 2000


def approve(context: StageContext, kind: str, subject: str, *, approver: str, reason: str, key: Path | None = None) -> SignedApproval:
    """Sign an approval with the approver's key, store it, and note it in the audit ledger.

    Args:
        kind: one of `ApprovalKind`.
        subject: the whole digest that the refusal named.
        approver: whose key signs; its public half must be trusted under this name.
        key: the private key's file; default: keys/APPROVER.pem in the runtime home.

    Raises:
        ValueError: one of the arguments cannot be right, nothing asked for this approval, or the key does not count here.
    """
    settings = context.settings
    checked, subject, reason = _kind(kind), _digest(subject), _reason(reason)
    path = key_file(settings.home / "keys", approver)  # also with a key from elsewhere: the name is checked
    if key is None and not path.is_file():
        remedy = f"Make one with `pipeline keys create {approver}`, or name the file of one that you have with --key"
        raise ValueError(f"There is no key of {approver} in {path.parent}. {remedy} on the command line.")
    private = load_private_key(key or path)
    owner, _ = trusted_keys(settings.trusted_approvers).get(key_id(private.public_key()), (None, None))
    if owner != approver:
        whose = f"it is trusted as the key of {owner}" if owner else f"its public half is not in {settings.trusted_approvers}"
        raise ValueError(f"{key or path} does not count as a key of {approver}: {whose}. Nothing was approved.")
    what_is_approved(context, checked, subject)
    signed = record_approval(context.artifacts.bytes, private, checked, subject, approver=approver, reason=reason)
    details = {"kind": checked, "reason": reason, "key_id": signed.signature.key_id}
    if context.artifacts.run is not None:
        details["dagster_run_id"] = context.artifacts.run
    ledger.append(context.artifacts.bytes, approver, "approved", subject, details)
    return signed


def what_is_approved(context: StageContext, kind: ApprovalKind, subject: str) -> dict[str, Any]:
    """What a digest stands for: the settings that were asked for, or the main facts of a package.

    Raises:
        ValueError: nothing of this kind and digest is known here.
    """
    try:
        if kind == "production_deployment":
            manifest = context.artifacts.version(NAME, subject).json(MANIFEST_FILE)
            return {name: manifest.get(name) for name in ("architecture", "variant", "classes", "dataset_version", "validation_accuracy")}
        found: dict[str, Any] = context.artifacts.bytes.read_json(subject_key(kind, subject))
    except (ArtifactMissingError, FileNotFoundError):
        raise ValueError(
            f"Nothing asked for {kind} of {subject[:12]} in {context.artifacts.bytes.uri}. "
            "Copy kind and digest from the refusal of the step that waits."
        ) from None
    return found


def _kind(kind: str) -> ApprovalKind:
    for known in KINDS:
        if kind == known:
            return known
    raise ValueError(f"{kind[:80]!r} is no kind of approval; there are: {', '.join(KINDS)}.")


def _digest(subject: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", subject.strip()):
        raise ValueError(f"{subject[:80]!r} is not a whole digest: copy all 64 hexadecimal digits from the refusal.")
    return subject.strip()


def _reason(reason: str) -> str:
    if not reason.strip() or len(reason) > _MAX_REASON:
        raise ValueError(f"Say why, in 1 to {_MAX_REASON} characters: the reason is what an auditor reads first.")
    return reason.strip()
