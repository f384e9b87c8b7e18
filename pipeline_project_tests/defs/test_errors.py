"""Which errors a step tries again: what was out of reach, never what is wrong."""

import dagster as dg
import pytest

from pipeline_project.defs.errors import FAILURE_KIND, NEEDS_APPROVAL, OUT_OF_REACH, WRONG_INPUT, user_errors
from pipeline_project.settings import SettingsError
from pipeline_project.storage import ArtifactMissingError
from pipeline_project.storage.errors import StoreError
from pipeline_project.trust.approvals import ApprovalRequiredError


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def botocore_error() -> Exception:
    from botocore.exceptions import EndpointConnectionError

    return EndpointConnectionError(endpoint_url="http://127.0.0.1:9")


def unreadable_picture() -> Exception:
    from PIL import UnidentifiedImageError

    return UnidentifiedImageError("cannot identify image file")


@pytest.mark.parametrize(
    ("error", "kind", "retried"),
    [
        (StoreError("write x", "/store", "no space left", "Make room."), OUT_OF_REACH, True),
        (ConnectionRefusedError("127.0.0.1:5000"), OUT_OF_REACH, True),
        (TimeoutError("no answer"), OUT_OF_REACH, True),
        (botocore_error(), OUT_OF_REACH, True),
        (caused(ValueError("the registry cannot be read"), ConnectionResetError()), OUT_OF_REACH, True),
        (ValueError("two labels for one image"), WRONG_INPUT, False),
        (SettingsError("gates.accuracy: 2 is above 1"), WRONG_INPUT, False),
        (ArtifactMissingError("Materialize raw_images first."), WRONG_INPUT, False),
        (unreadable_picture(), WRONG_INPUT, False),
        (ApprovalRequiredError("production_deployment", "0" * 64, "Ready."), NEEDS_APPROVAL, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_only_what_was_out_of_reach_is_tried_again(error: Exception, kind: str, retried: bool) -> None:
    tries = []

    @dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
    def step() -> None:
        tries.append(1)
        with user_errors():
            raise error

    @dg.job
    def work() -> None:
        step()

    result = work.execute_in_process(raise_on_error=False)
    assert not result.success
    assert len(tries) == (2 if retried else 1)
    (failure,) = (event.step_failure_data.user_failure_data for event in result.get_step_failure_events())
    assert failure is not None
    assert failure.description == str(error)
    assert failure.metadata[FAILURE_KIND].value == kind


def test_our_own_mistakes_pass_with_their_traceback() -> None:
    with pytest.raises(TypeError), user_errors():
        raise TypeError("a bug")


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_cancelled_step_is_not_tried_again_an_interrupted_one_is(cancelled: bool) -> None:
    tries = []

    @dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
    def step(context: dg.OpExecutionContext) -> None:
        tries.append(1)
        with user_errors():
            if cancelled:
                context.instance.report_run_canceling(context.run)
            if len(tries) == 1:
                raise dg.DagsterExecutionInterruptedError

    @dg.job
    def work() -> None:
        step()

    with dg.DagsterInstance.ephemeral() as instance:
        if cancelled:
            with pytest.raises(dg.DagsterExecutionInterruptedError):
                work.execute_in_process(instance=instance)
            (run,) = instance.get_runs()
            assert run.status is dg.DagsterRunStatus.CANCELED
        else:
            assert work.execute_in_process(instance=instance).success
    assert len(tries) == (1 if cancelled else 2)
