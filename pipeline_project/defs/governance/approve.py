"""The job `approve`: a person's approval from the UI, as `pipeline approve` gives it from the command line."""

from enum import Enum

import dagster as dg
from pydantic import Field

from pipeline_project.defs.common import stage_context
from pipeline_project.defs.errors import user_errors


class ApprovalKinds(Enum):
    """The kinds of `ApprovalKind`, as the launchpad offers them: by name."""

    production_deployment = "production_deployment"
    model_architecture_changes = "model_architecture_changes"
    data_source_modifications = "data_source_modifications"
    compliance_configuration_changes = "compliance_configuration_changes"


class ApprovalConfig(dg.Config):
    """What a person says in the launchpad."""

    kind: ApprovalKinds = Field(description="what is approved; the refusal of the waiting step names it")
    subject: str = Field(description="the whole digest that the refusal names, 64 hexadecimal digits")
    approver: str = Field(description="your name, as you made your key: `pipeline keys create NAME`. keys/NAME.pem signs")
    reason: str = Field(description="why; kept for ever and shown to auditors")


@dg.op
def sign_approval(context: dg.OpExecutionContext, config: ApprovalConfig) -> None:
    """Sign the approval with the approver's key, store it, and note it in the audit ledger."""
    from pipeline_project.governance.approving import approve as record
    from pipeline_project.governance.approving import what_is_approved

    stage = stage_context(context)
    with user_errors():
        signed = record(stage, config.kind.value, config.subject, approver=config.approver, reason=config.reason)
        approval = signed.approval
        what = what_is_approved(stage, approval.kind, approval.subject)
    context.log.info(f"{approval.kind} of {approval.subject} approved by {approval.approver}: {approval.reason}")
    context.add_output_metadata(
        {
            "kind": approval.kind,
            "subject": approval.subject,
            "approver": approval.approver,
            "reason": approval.reason,
            "created": approval.created.isoformat(timespec="seconds"),
            "key_id": signed.signature.key_id,
            "approved": dg.MetadataValue.json(what),
        }
    )


@dg.job(
    description="Approve a change or a release that a step waits for: kind and digest stand in its refusal. Then materialize it again.",
    tags={"kind": "approval"},
)
def approve() -> None:
    """One approval."""
    sign_approval()
