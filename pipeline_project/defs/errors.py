"""Which errors a step may try again, and how a failure says what kind it is: for retry policies, sensors and alerts."""

import dagster as dg

from pipeline_project.trust.approvals import ApprovalRequiredError

FAILURE_KIND = "failure_kind"
"""Metadata of a failure: one of the three below. On a check's evaluation it means that the check could not look."""

OUT_OF_REACH = "out_of_reach"
"""A store, a source or a server did not answer, or had no room: another try may succeed."""

WRONG_INPUT = "wrong_input"
"""Data, settings or a missing upstream artefact: the same input fails again."""

NEEDS_APPROVAL = "needs_approval"
"""A person must approve something first; the next two say what."""

APPROVAL_KIND, APPROVAL_SUBJECT = "approval_kind", "approval_subject"

_CLIENTS = {"botocore", "boto3", "urllib3"}  # their errors are no OSError
_WRONG = {"PIL"}  # its errors are OSErrors about the picture, not about the disk


class CancelledError(dg.DagsterError, dg.DagsterExecutionInterruptedError):
    """Somebody cancelled the run of a step.

    Dagster tries an interrupted step again where it has a retry policy, also when it was interrupted by the UI's "Terminate". Dagster's own
    errors it leaves alone, and an interrupt ends the run as cancelled: so this is both.
    """


def out_of_reach(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a store, source or server that did not answer or failed (OSError but missing files)."""
    while error is not None:
        if isinstance(error, FileNotFoundError | FileExistsError):
            return False
        library = type(error).__module__.split(".")[0]
        if library in _CLIENTS or (isinstance(error, OSError) and library not in _WRONG):
            return True
        error = error.__cause__
    return False


class user_errors:  # noqa: N801 - reads as a statement
    """Errors that are for the user fail the step with their own words.

    Wrong data, missing inputs, missing approvals: at once, a retry would not help. A store, a source or MLflow out of reach: the step's
    retry policy decides. Other errors are ours, and pass with their traceback. A cancelled run stays cancelled.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, dg.DagsterExecutionInterruptedError | KeyboardInterrupt) and _being_cancelled():
            raise CancelledError("The run was cancelled.") from error
        if isinstance(error, Exception) and out_of_reach(error):
            raise dg.Failure(description=str(error), metadata={FAILURE_KIND: OUT_OF_REACH}) from error
        if isinstance(error, ApprovalRequiredError):
            asked = {FAILURE_KIND: NEEDS_APPROVAL, APPROVAL_KIND: error.kind, APPROVAL_SUBJECT: error.subject}
            raise dg.Failure(description=str(error), metadata=asked, allow_retries=False) from error
        if isinstance(error, ValueError | OSError):  # SettingsError is a ValueError, a missing artefact an OSError
            raise dg.Failure(description=str(error), metadata={FAILURE_KIND: WRONG_INPUT}, allow_retries=False) from error


def _being_cancelled() -> bool:
    """Whether somebody cancels this step's run. An interrupt can also be a machine that is taken away; then another try helps."""
    try:
        context = dg.OpExecutionContext.get()
    except dg.DagsterInvariantViolationError:  # not in a step
        return False
    run = context.instance.get_run_by_id(context.run_id)
    return run is not None and run.status is dg.DagsterRunStatus.CANCELING
